"""Distributions of tasks over images without labels."""

import numpy as np
import pytest
import tensorflow as tf

from maml_tf import randomness
from maml_tf.errors import UserError
from maml_tf.unsupervised import tasks


def numbered(count, shape=(1, 2, 1)):
  """Images whose pixels say which they are."""
  return np.broadcast_to(np.arange(count).reshape(-1, 1, 1, 1), (count, *shape)).astype(np.uint8)


def rows_of(x):
  return np.rint(x.numpy()[..., 0, 0, 0] * 255).astype(int)


def test_a_task_has_different_clusters_of_one_partition_and_different_images():
  labels = np.random.default_rng(0).integers(0, 6, (3, 120)).astype(np.int32)
  labels[0, :10] = -1
  distribution = tasks.over_clusters(numbered(120), labels, ways=4, shots=2, queries=3)
  batch = distribution.sample(randomness.make_seed(0), 50)
  drawn = np.concatenate([rows_of(batch.support_x).reshape(50, 4, 2), rows_of(batch.query_x).reshape(50, 4, 3)], axis=2)
  found = set()
  for task in drawn:
    assert len(np.unique(task)) == 20
    ways = [p for p in range(3) if all(len(np.unique(labels[p][row])) == 1 for row in task)]
    assert len(ways) == 1, "the images of a class are of one cluster, and all classes of one partition"
    assert len(np.unique(labels[ways[0]][task[:, 0]])) == 4 and (labels[ways[0]][task] >= 0).all()
    found.add(ways[0])
  assert found == {0, 1, 2}
  np.testing.assert_array_equal(batch.query_y[0], np.repeat(np.arange(4), 3))


def test_small_clusters_are_left_out_and_too_few_refused():
  labels = np.repeat([0, 1, 2, 3], [30, 30, 30, 2])[np.newaxis]
  batch = tasks.over_clusters(numbered(92), labels, 3, 1, 2).sample(randomness.make_seed(0), 30)
  assert rows_of(batch.support_x).max() < 90
  with pytest.raises(UserError, match=r"^ways=4: partition 0 has only 3 clusters of 3 images"):
    tasks.over_clusters(numbered(92), labels, 4, 1, 2)


@pytest.fixture(scope="module")
def drawn():
  distribution = tasks.UMTRA(numbered(9, (3, 3, 1)), ways=7, shots=2, queries=3, shift=0)
  return distribution, distribution.sample(randomness.make_seed(1), 400)


def test_every_image_is_a_class_of_its_own(drawn):
  distribution, batch = drawn
  own = rows_of(batch.support_x).reshape(400, 7, 2)[..., 0]
  assert all(len(set(task)) == 7 for task in own)
  # Each of nine images is in seven of nine tasks.
  np.testing.assert_allclose(np.bincount(own.ravel(), minlength=9) / 400, 7 / 9, atol=0.09)
  copies = batch.query_x.numpy().reshape(400, 7, 3, 9) * 255
  left = np.rint(copies) != 0
  assert (np.rint(copies)[left] == np.broadcast_to(own[..., None, None], copies.shape)[left]).all()
  assert 1 - left[own > 0].mean() == pytest.approx(tasks.DROPPED, abs=0.01)
  specs = distribution.specs()
  assert specs.query_x.shape == (21, 3, 3, 1) and specs.support_y.shape == (14,)


def test_tasks_are_the_same_in_a_graph(drawn):
  distribution, batch = drawn
  sample = tf.function(lambda: distribution.sample(randomness.make_seed(1), 400))
  for eager, graph in zip(batch[:4], sample()[:4], strict=True):
    np.testing.assert_allclose(eager, graph, rtol=1e-6)


def test_shifts_move_pixels_and_bring_in_nothing():
  x = np.random.default_rng(0).uniform(size=(5, 4, 6, 1)).astype(np.float32)
  by = np.array([-4, -1, 0, 2, 3])
  for axis in (1, 2):
    moved = tasks.shifted(tf.constant(x), tf.constant(by, tf.int32), axis).numpy()
    for image, result, step in zip(x, moved, by, strict=True):
      expected = np.roll(image, step, axis - 1)
      index = [slice(None)] * 3
      index[axis - 1] = slice(0, step) if step >= 0 else slice(step, None)
      expected[tuple(index)] = 0
      np.testing.assert_array_equal(result, expected)


def test_colour_images_are_mirrored_and_recoloured():
  images = np.random.default_rng(0).integers(50, 150, (4, 5, 6, 3)).astype(np.uint8)
  batch = tasks.UMTRA(images, 2, 1, 8, shift=0).sample(randomness.make_seed(0), 3)
  support, query = batch.support_x.numpy(), batch.query_x.numpy().reshape(3, 2, 8, 5, 6, 3)
  seen = set()
  for task, way, copy in np.ndindex(3, 2, 8):
    original, changed = support[task, way], query[task, way, copy]
    for flipped in (False, True):
      ratio = changed / (original[:, ::-1] if flipped else original)
      if np.allclose(ratio, ratio[0, 0], atol=1e-4):
        seen.add(flipped)
        assert 0.59 < ratio.min() < ratio.max() < 1.41
  assert seen == {False, True}
  with pytest.raises(UserError, match=r"^ways=5: there are only 4 images"):
    tasks.UMTRA(images, 5, 1, 1)
