"""Episodes: what a task holds, whichever way it is sampled."""

import numpy as np
import pytest
import tensorflow as tf

from maml_tf import randomness
from maml_tf.datasets import ImageBank
from maml_tf.errors import UserError
from maml_tf.tasks import Episodes

SEED = randomness.make_seed(3)


def make_bank(sizes=(6, 8, 7, 9, 6, 10), height=4, width=4):
  """Pixel (0, 0) of an image is its class, (0, 1) its number within the class; the rest is 200."""
  images = np.full((sum(sizes), height, width, 1), 200, np.uint8)
  images[:, 0, 0, 0] = np.repeat(np.arange(len(sizes)), sizes)
  images[:, 0, 1, 0] = np.concatenate([np.arange(size) for size in sizes])
  names = tuple(f"class_{i}" for i in range(len(sizes)))
  return ImageBank(images, names, np.concatenate([[0], np.cumsum(sizes)]))


def read_back(x):
  """(class, number) of images [..., H, W, 1] in [0, 1]."""
  bytes_ = np.rint(np.asarray(x) * 255).astype(int)
  return bytes_[..., 0, 0, 0], bytes_[..., 0, 1, 0]


def test_no_class_and_no_image_twice_and_labels_follow_classes():
  batch = Episodes(make_bank(), ways=4, shots=2, queries=4).sample(SEED, 200)
  assert batch.support_x.shape == (200, 8, 4, 4, 1) and batch.query_y.shape == (200, 16)
  support_class, support_number = read_back(batch.support_x)
  query_class, query_number = read_back(batch.query_x)
  for task in range(200):
    class_of_label = {}
    images = set()
    for classes, numbers, labels in (
      (support_class[task], support_number[task], batch.support_y[task].numpy()),
      (query_class[task], query_number[task], batch.query_y[task].numpy()),
    ):
      for c, n, label in zip(classes, numbers, labels, strict=True):
        assert class_of_label.setdefault(label, c) == c
        images.add((c, n))
    assert sorted(class_of_label) == [0, 1, 2, 3] and len(set(class_of_label.values())) == 4
    assert len(images) == 24
    assert all(np.sum(batch.support_y[task] == label) == 2 for label in range(4))


def test_every_class_label_and_image_is_equally_likely():
  from scipy import stats

  bank = make_bank()
  batch = Episodes(bank, ways=3, shots=1, queries=1).sample(SEED, 6000)
  classes, numbers = read_back(batch.support_x)
  assert stats.chisquare(np.bincount(classes.ravel(), minlength=6)).pvalue > 1e-3
  for label in range(3):  # a class is no likelier under one label than under another
    assert stats.chisquare(np.bincount(classes[:, label], minlength=6)).pvalue > 1e-3
  for c, size in enumerate(bank.sizes):
    counts = np.bincount(numbers[classes == c], minlength=size)
    assert len(counts) == size and stats.chisquare(counts).pvalue > 1e-3


def test_same_seed_same_tasks_in_a_graph_and_compiled():
  episodes = Episodes(make_bank(), ways=3, shots=1, queries=2, rotations=True, invert=True)
  eager = episodes.sample(SEED, 5)
  for jit_compile in (False, True):
    traced = tf.function(lambda seed: episodes.sample(seed, 5), jit_compile=jit_compile)(SEED)
    for a, b in zip(eager[:4], traced[:4], strict=True):
      np.testing.assert_allclose(a, b, atol=1e-6)
  other = episodes.sample(randomness.make_seed(4), 5)
  assert not np.allclose(eager.query_x, other.query_x)


def test_a_seed_means_the_same_tasks_for_ever():
  """Golden: results that name a seed are about these tasks."""
  batch = Episodes(make_bank(), ways=3, shots=1, queries=2).sample(SEED, 2)
  (support_class, support_number), (_, query_number) = read_back(batch.support_x), read_back(batch.query_x)
  assert support_class.tolist() == [[0, 4, 5], [4, 3, 2]]
  assert support_number.tolist() == [[4, 3, 2], [0, 7, 1]]
  assert query_number.tolist() == [[5, 0, 0, 4, 7, 5], [2, 3, 1, 3, 6, 4]]


def test_rotations_turn_whole_classes_by_quarter_turns():
  bank = make_bank(height=5, width=5)
  plain = Episodes(bank, 3, 2, 2).sample(SEED, 60)
  turned = Episodes(bank, 3, 2, 2, rotations=True).sample(SEED, 60)
  seen = set()
  for task in range(60):
    for label in range(3):
      pairs = [
        (before, after)
        for x, y in ((plain.support_x, turned.support_x), (plain.query_x, turned.query_x))
        for before, after in zip(
          x[task][plain.support_y[task] == label].numpy(), y[task][plain.support_y[task] == label].numpy(), strict=True
        )
      ]
      turns = [k for k in range(4) if all(np.array_equal(np.rot90(b, k), a) for b, a in pairs)]
      assert len(turns) == 1
      seen.add(turns[0])
  assert seen == {0, 1, 2, 3}


def test_inverted_pixels():
  bank = make_bank()
  plain, inverted = (Episodes(bank, 2, 1, 1, invert=i).sample(SEED, 3).support_x for i in (False, True))
  np.testing.assert_allclose(plain + inverted, tf.ones_like(plain), atol=1e-6)


def test_too_little_data_is_named():
  with pytest.raises(UserError, match=r"Episodes\(ways=7\): the data set has only 6 classes"):
    Episodes(make_bank(), 7, 1, 1)
  with pytest.raises(
    UserError, match=r"Episodes\(shots=2\): class class_0 has 6 images, but 2 shots and 5 queries need 7"
  ):
    Episodes(make_bank(), 2, 2, 5)
