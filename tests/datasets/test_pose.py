"""Objects on a table: geometry by hand, both ways to draw them, and the cache."""

import numpy as np
import pytest

from maml_tf.datasets import pose, pose_mujoco, pose_raster, pose_scenes
from maml_tf.datasets.pose_scenes import Camera, Part
from maml_tf.errors import UserError

BLUE = (0.0, 0.0, 1.0)


def part(kind="box", center=(0, 0, 0.1), size=(0.2, 0.1, 0.1), yaw=0.3, color=BLUE):
  return Part(kind, center, size, yaw, color)


@pytest.mark.parametrize(("parts", "symmetric"), [
  ([part("cylinder", size=(0.1, 0.1, 0.1))], True),
  ([part()], True),  # looks the same when turned by 180 degrees
  ([part(center=(0.2, 0, 0.1)), part(center=(-0.2, 0, 0.1))], True),
  ([part(center=(0.2, 0, 0.1)), part(center=(-0.2, 0, 0.1), color=(0.0, 1.0, 0.0))], False),
  ([part(), part("cylinder", (0.25, 0.1, 0.2), (0.1, 0.1, 0.2))], False),
])  # fmt: skip
def test_symmetric_objects_are_told_from_others(parts, symmetric):
  assert (pose_scenes.asymmetry(parts) < pose_scenes.LEAST_ASYMMETRY) == symmetric


def test_every_object_has_one_orientation_and_none_is_like_another():
  objects = [pose_scenes.an_object(number) for number in range(8)]
  assert min(pose_scenes.asymmetry(parts) for parts in objects[:4]) >= pose_scenes.LEAST_ASYMMETRY
  assert len({str(parts) for parts in objects}) == 8
  assert pose_scenes.an_object(3) == objects[3]


def test_labels_are_place_sine_and_cosine():
  found = pose_scenes.labels(np.array([[0.1, -0.2, np.pi / 6]]))
  np.testing.assert_allclose(found, [[0.1, -0.2, 0.5, np.sqrt(3) / 2]], rtol=1e-6)


def test_a_block_is_drawn_where_a_pinhole_camera_sees_it():
  """The middle of the pixels of a small block is its centre, projected by hand."""
  camera, block = Camera(0.7, 0.9), [part(size=(0.04, 0.04, 0.04), center=(0.2, 0.1, 0.04))]
  x, y, yaw = 0.3, -0.4, 1.1
  (image,) = pose_raster.draw(block, camera, np.array([[x, y, yaw]]), 129)
  rows, columns = np.nonzero((image[..., 2] > 80) & (image[..., 0] < 30))
  place = np.array([
    x + 0.2 * np.cos(yaw) - 0.1 * np.sin(yaw), y + 0.2 * np.sin(yaw) + 0.1 * np.cos(yaw), 0.04
  ])  # fmt: skip
  position, right, up, forward = camera.frame()
  across, above, depth = ((place - position) @ axis for axis in (right, up, forward))
  half = np.tan(camera.fov / 2)
  expected = [64 - 64.5 * above / depth / half, 64 + 64.5 * across / depth / half]
  np.testing.assert_allclose([rows.mean(), columns.mean()], expected, atol=1.2)


def test_mujoco_draws_what_numpy_does():
  tasks = [pose_scenes.a_task(number, 2) for number in (0, 7)]
  try:
    drawn = np.stack(list(pose_mujoco.draw(tasks, 48)))
  except UserError as error:
    assert "renderer=mujoco: no OpenGL works here" in str(error) and "renderer=numpy" in str(error)
    return
  rastered = np.stack([pose_raster.draw(*task, 48) for task in tasks])
  assert drawn.shape == rastered.shape == (2, 2, 48, 48, 3)

  def red(images):
    images = images.astype(float)
    return (images[..., 0] > 150) & (images[..., 1] < 80)

  assert red(rastered).sum() > 8 and (red(drawn) & red(rastered)).sum() > 0.6 * red(rastered).sum()
  contrast = [images.astype(float) - images.mean(axis=(2, 3), keepdims=True) for images in (drawn, rastered)]
  assert np.corrcoef(*(values.ravel() for values in contrast))[0, 1] > 0.9


def test_images_are_drawn_once_and_mended(tmp_path, capsys):
  load = lambda: pose.load(tmp_path, "numpy", 16, 2, 3)  # noqa: E731
  images, labels, names = load()
  assert (
    images.shape == (2, 3, 16, 16, 3) and labels.shape == (2, 3, 4) and names == ["object_0_view_0", "object_1_view_0"]
  )
  np.testing.assert_allclose(np.hypot(*np.moveaxis(labels[..., 2:], -1, 0)), 1, rtol=1e-6)
  first = np.array(images)
  assert "Drawing 6 images of 16 x 16 with numpy, once" in capsys.readouterr().err
  load()
  assert capsys.readouterr().err == ""
  (folder,) = (tmp_path / "maml_tf_cache").glob("pose-*")
  content = bytearray((folder / "images.npy").read_bytes())
  content[-1] ^= 1
  del images
  (folder / "images.npy").write_bytes(content)
  np.testing.assert_array_equal(load()[0], first)
  assert "this cache is damaged: images.npy is not what was written" in capsys.readouterr().err
  assert len(list((tmp_path / "maml_tf_cache").iterdir())) == 1
