"""Rainbow MNIST, from a file in MNIST's layout with random images."""

import numpy as np
import pytest

from maml_tf.datasets import mnist, rainbow, rainbow_mnist
from maml_tf.errors import UserError

COLORS = [(255, 0, 0), (0, 0, 255)]
KINDS = ["full_0", "full_90", "full_180", "full_270", "half_0", "half_90", "half_180", "half_270"]


def write_mnist(data_dir, monkeypatch):
  """16 tasks need 1,600 of each digit: 1,400 for training (200 of those for validation) and 200 for the test."""
  for name, value in (("NUM_TRAIN", 14_000), ("NUM_TEST", 2_000), ("NUM_VALIDATION", 2_000)):
    monkeypatch.setattr(mnist, name, value)
  rng = np.random.default_rng(0)
  arrays = {}
  for part, count in (("train", 1_400), ("test", 200)):
    labels = np.repeat(np.arange(10, dtype=np.uint8), count)
    arrays[f"y_{part}"] = rng.permutation(labels) if part == "test" else np.tile(np.arange(10, dtype=np.uint8), count)
    arrays[f"x_{part}"] = rng.integers(0, 256, [len(labels), 28, 28]).astype(np.uint8)
  (data_dir / "mnist").mkdir(parents=True)
  np.savez(data_dir / "mnist" / "mnist.npz", **arrays)
  return arrays


@pytest.fixture
def made(tmp_path, monkeypatch):
  arrays = write_mnist(tmp_path, monkeypatch)
  return arrays, *rainbow_mnist.load(tmp_path, COLORS)


def test_tasks_are_colours_scales_and_rotations(made):
  _, images, labels, names = made
  assert names == [f"{color}_{kind}" for color in ("ff0000", "0000ff") for kind in KINDS]
  assert images.shape == (16, 1000, 28, 28, 3) and images.dtype == np.uint8
  assert labels.shape == (1000,) and labels.dtype == np.int32
  for first in range(0, 900, 20):  # a data batch
    assert np.bincount(labels[first : first + 20]).tolist() == [2] * 10
  assert np.bincount(labels[900:]).tolist() == [10] * 10


def test_a_pixel_is_between_the_ground_and_white(made):
  """The first task is red, at full size and not turned: green and blue are the digit's grey, red is full."""
  arrays, images, labels, _ = made
  grey = {image.tobytes(): int(y) for part in ("train", "test")
          for image, y in zip(arrays[f"x_{part}"], arrays[f"y_{part}"], strict=True)}  # fmt: skip
  assert (images[0, ..., 0] == 255).all()
  np.testing.assert_array_equal(images[0, ..., 1], images[0, ..., 2])
  assert [grey[image.tobytes()] for image in images[0, ..., 1]] == labels.tolist()
  turned = np.rot90(images[1, ..., 1], -1, axes=(1, 2))
  assert [grey[np.ascontiguousarray(image).tobytes()] for image in turned] == labels.tolist()


def test_no_digit_is_in_two_tasks(made):
  _, images, _, _ = made
  back = [np.rot90(images[task, ..., 1 if task < 4 else 0], -(task % 4), axes=(1, 2)) for task in (0, 1, 2, 3, 8, 9)]
  seen = [image.tobytes() for task in back for image in np.ascontiguousarray(task)]
  assert len(set(seen)) == len(seen)


def test_half_scale_is_padded_with_the_ground(made):
  _, images, _, _ = made
  assert (images[12, :, :7] == (0, 0, 255)).all() and (images[12, :, :, 21:] == (0, 0, 255)).all()
  assert images[12, :, 7:21, 7:21, 0].std() > 10


def test_it_is_the_same_every_time(tmp_path, monkeypatch, made):
  write_mnist(tmp_path / "again", monkeypatch)
  np.testing.assert_array_equal(rainbow_mnist.load(tmp_path / "again", COLORS)[0], made[1])


@pytest.mark.parametrize(
  "text", ["", "red", "ff0000,", "ff0000,FF0000", "ff00", ",".join(f"{i:06x}" for i in range(8))]
)
def test_what_is_no_colour_is_refused(text):
  with pytest.raises(UserError, match=r"^colors=.*: expected 1 to 7 different colours as rrggbb"):
    rainbow.parse_colors(text)


def test_colours_are_read_as_red_green_and_blue():
  assert rainbow.parse_colors("ff8000,0000FF") == [(255, 128, 0), (0, 0, 255)]
