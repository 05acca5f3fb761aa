"""Index tables: many labellings of the same images, as ordinary episodes."""

import numpy as np
import pytest
import tensorflow as tf

from maml_tf import randomness
from maml_tf.datasets import ImageBank
from maml_tf.errors import UserError
from maml_tf.tasks import Episodes, IndexTable

SEED = randomness.make_seed(3)
NUM_IMAGES = 60


def numbered_images():
  """Image i is i everywhere."""
  return np.broadcast_to(np.arange(NUM_IMAGES, dtype=np.uint8)[:, None, None, None], [NUM_IMAGES, 2, 2, 1]).copy()


def rows(x):
  return np.rint(np.asarray(x)[..., 0, 0, 0] * 255).astype(int)


def test_labels_become_classes():
  table = IndexTable.from_labels(np.array([7, 3, 7, -1, 3, 7, 0]), smallest=2)
  assert table.members.tolist() == [1, 4, 0, 2, 5] and table.offsets.tolist() == [0, 2, 5]
  assert table.names == ((0, 3), (0, 7)) and table.labellings.tolist() == [0, 2]
  two = IndexTable.from_labels(np.array([[0, 0, 1, 1], [5, -1, 5, 5]]))
  assert two.members.tolist() == [0, 1, 2, 3, 0, 2, 3] and two.offsets.tolist() == [0, 2, 4, 7]
  assert two.labellings.tolist() == [0, 2, 3] and two.sizes.tolist() == [2, 2, 3] and two.num_classes.tolist() == [2, 1]


def test_a_bank_and_its_table_give_the_same_tasks():
  images, offsets = numbered_images(), np.array([0, 10, 24, 30, 45, 60])
  bank = ImageBank(images, tuple("abcde"), offsets)
  shuffled = np.random.default_rng(0).permutation(NUM_IMAGES)
  place = np.argsort(shuffled)  # of each image after the shuffling
  expected = Episodes(bank, 3, 2, 3, rotations=True).sample(SEED, 8)
  got = Episodes.from_table(images[shuffled], IndexTable(place, offsets), 3, 2, 3, rotations=True).sample(SEED, 8)
  for a, b in zip(expected[:4], got[:4], strict=True):
    np.testing.assert_array_equal(a, b)


def test_each_task_has_distinct_classes_of_one_labelling_and_distinct_images():
  rng = np.random.default_rng(1)
  labels = np.stack([rng.permutation(np.repeat(np.arange(classes), NUM_IMAGES // classes)) for classes in (4, 6, 10)])
  episodes = Episodes.from_table(numbered_images(), IndexTable.from_labels(labels), ways=4, shots=1, queries=3)
  batch = episodes.sample(SEED, 600)
  seen = np.zeros(3, int)
  pairs = [np.zeros([classes, 4], int) for classes in (4, 6, 10)]
  for support, query, query_y in zip(rows(batch.support_x), rows(batch.query_x), batch.query_y.numpy(), strict=True):
    assert len({*support, *query}) == 16
    fits = [
      p
      for p in range(3)
      if len(set(labels[p][support])) == 4 and (labels[p][query] == labels[p][support][query_y]).all()
    ]
    assert len(fits) >= 1
    if len(fits) == 1:  # by chance a task may fit two labellings
      seen[fits[0]] += 1
      pairs[fits[0]][labels[fits[0]][support], range(4)] += 1
  from scipy import stats

  assert seen.sum() > 590 and stats.chisquare(seen).pvalue > 1e-3
  assert all(stats.chisquare(counts.ravel()).pvalue > 1e-3 for counts in pairs)


def test_the_same_tasks_in_a_graph_and_compiled():
  labels = np.arange(NUM_IMAGES) % np.array([[5], [7]])
  episodes = Episodes.from_table(numbered_images(), IndexTable.from_labels(labels), 3, 1, 2, invert=True)
  eager = episodes.sample(SEED, 5)
  for jit_compile in (False, True):
    traced = tf.function(lambda seed: episodes.sample(seed, 5), jit_compile=jit_compile)(SEED)
    for a, b in zip(eager[:4], traced[:4], strict=True):
      np.testing.assert_allclose(a, b, atol=1e-6)


def test_images_that_are_a_tensor_are_not_copied():
  images = tf.constant(numbered_images())
  table = IndexTable.from_labels(np.arange(NUM_IMAGES) % 5)
  one, other = (Episodes.from_table(images, table, 3, 1, 1) for _ in range(2))
  assert one._images is images and other._images is images


def test_labellings_that_are_too_small_are_named():
  labels = np.stack([np.arange(NUM_IMAGES) % 6, np.arange(NUM_IMAGES) % 4])
  table = IndexTable.from_labels(labels)
  with pytest.raises(UserError, match=r"Episodes\(ways=5\): labelling 1 of the data set has only 4 classes"):
    Episodes.from_table(numbered_images(), table, 5, 1, 1)
  with pytest.raises(UserError, match=r"Episodes\(shots=5\): class \(0, 0\) has 10 images, but 5 shots and 6 queries"):
    Episodes.from_table(numbered_images(), table, 3, 5, 6)
  with pytest.raises(UserError, match="labels: no class of labelling 1 has 12 images; use larger classes"):
    IndexTable.from_labels(np.stack([np.zeros(NUM_IMAGES, int), labels[0]]), smallest=12)
  with pytest.raises(ValueError, match="the table has row 59, there are 10 images"):
    Episodes.from_table(numbered_images()[:10], table, 3, 1, 1)


@pytest.mark.parametrize(("given", "message"), [
  ({"members": [0, 1, 2, 2]}, "an image is in two places of labelling 0; it can be in one class only"),
  ({"members": [0.0, 1.0, 2.0, 3.0]}, r"members is float64 \[4\], expected integers"),
  ({"members": [[0, 1, 2, 3]]}, r"members is int64 \[1, 4\], expected integers"),
  ({"members": [-1, 1, 2, 3]}, "members holds -1, expected rows of the images"),
  ({"offsets": [0, 3]}, "offsets must rise from 0 to the number of members, 4"),
  ({"offsets": [0, 2, 2, 4]}, "offsets must rise from 0"),
  ({"offsets": [1, 4]}, "offsets must rise from 0"),
  ({"labellings": [0, 1]}, "labellings must rise from 0 to the number of classes, 2"),
  ({"labellings": [0, 0, 2]}, "labellings must rise from 0"),
  ({"names": ("a",)}, "1 names for 2 classes"),
])  # fmt: skip
def test_what_is_no_table_is_refused(given, message):
  with pytest.raises(ValueError, match=f"IndexTable: {message}"):
    IndexTable(**{"members": [0, 1, 2, 3], "offsets": [0, 2, 4]} | given)


@pytest.mark.parametrize("labels", [np.zeros([3]), np.zeros([1, 2, 3], int), np.array(5)])
def test_labels_of_another_form_are_refused(labels):
  with pytest.raises(ValueError, match=r"labels: expected integers \[M\] or \[P, M\], got"):
    IndexTable.from_labels(labels)


@pytest.mark.parametrize("name", ["ways", "shots", "queries"])
def test_sizes_of_a_task_are_at_least_one(name):
  sizes = {"ways": 3, "shots": 1, "queries": 1} | {name: 0}
  table = IndexTable.from_labels(np.arange(NUM_IMAGES) % 5)
  with pytest.raises(UserError, match=rf"Episodes\({name}=0\): expected 1 or more"):
    Episodes.from_table(numbered_images(), table, **sizes)
