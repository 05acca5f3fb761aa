"""Tasks from one's own arrays: what is drawn, for any kind of data and label, and what is refused."""

import numpy as np
import pytest
import tensorflow as tf

from maml_tf import randomness, tasks
from maml_tf.errors import UserError

SEED = randomness.make_seed(0)


def rows(num_classes=6, size=5, width=3):
  """(x, y): the first number of an example is its class, the second its place in it; in no order."""
  x = np.stack(np.meshgrid(np.arange(num_classes), np.arange(size), indexing="ij"), -1).reshape(-1, 2)
  x = np.concatenate([x, np.zeros([len(x), width - 2], int)], axis=1)
  x = np.random.default_rng(0).permutation(x)
  return x, x[:, 0]


LABELS = {
  "integers": lambda y: y * 7 - 10,
  "strings": lambda y: np.array(["ant", "bee", "cat", "dog", "eel", "fox"])[y],
  "objects": lambda y: np.array(["ant", "bee", "cat", "dog", "eel", "fox"], object)[y],
  "list": lambda y: [f"class {number}" for number in y],
  "column": lambda y: y[:, None],
  "floats": lambda y: y / 4,
  "dates": lambda y: np.datetime64("2020-01-01") + y,
}


@pytest.mark.parametrize("labels", LABELS.values(), ids=LABELS)
def test_a_task_has_different_examples_of_ways_classes(labels):
  x, y = rows()
  batch = tasks.from_arrays(x, labels(y), ways=3, shots=2, queries=3).sample(SEED, 20)
  assert (batch.support_x.shape, batch.query_x.shape) == ((20, 6, 3), (20, 9, 3))
  for task in range(20):
    support, query = batch.support_x[task].numpy(), batch.query_x[task].numpy()
    classes = [set(support[batch.support_y[task] == label, 0]) for label in range(3)]
    assert [len(of_one) for of_one in classes] == [1, 1, 1]  # one class behind each label
    assert len(set.union(*classes)) == 3
    assert classes == [set(query[batch.query_y[task] == label, 0]) for label in range(3)]
    assert len({tuple(example) for example in np.concatenate([support, query])}) == 15  # none twice


def test_all_classes_and_examples_are_drawn():
  x, y = rows()
  batch = tasks.from_arrays(x, y, ways=3, shots=2, queries=1).sample(SEED, 200)
  assert len({tuple(row) for row in batch.support_x.numpy().reshape(-1, 3)}) == 30


@pytest.mark.parametrize(("given", "expected"), [
  (np.float64, tf.float32), (np.float32, tf.float32), (np.int64, tf.int64), (np.uint8, tf.uint8),
])  # fmt: skip
def test_values_are_as_they_were_given(given, expected):
  x = np.arange(12).reshape(6, 2).astype(given)
  batch = tasks.from_arrays(x, list("aabbcc"), ways=3, shots=1, queries=1).sample(SEED, 1)
  assert batch.support_x.dtype == expected
  both = np.concatenate([batch.support_x[0], batch.query_x[0]])
  np.testing.assert_array_equal(sorted(map(tuple, both)), x)


@pytest.mark.parametrize("shape", [(), (4,), (4, 5), (8, 8, 3)], ids=["scalars", "table", "series", "images"])
def test_examples_of_any_shape(shape):
  x = np.random.default_rng(0).random((9, *shape))
  distribution = tasks.from_arrays(x, [0, 1, 2] * 3, ways=2, shots=1, queries=2)
  assert distribution.sample(SEED, 5).query_x.shape == (5, 4, *shape)
  assert distribution.specs().support_x.shape == (2, *shape)


def test_the_same_tasks_in_a_graph_and_under_xla():
  x, y = rows()
  distribution = tasks.from_arrays(x, y, ways=3, shots=1, queries=2)
  eager = distribution.sample(SEED, 4)
  for compiled in (False, True):
    graph = tf.function(lambda: distribution.sample(SEED, 4)[:4], jit_compile=compiled)()
    tf.nest.map_structure(np.testing.assert_array_equal, list(graph), list(eager[:4]))


def test_classes_that_are_kept_apart():
  x, y = rows()
  names = np.array(["ant", "bee", "cat", "dog", "eel", "fox"])
  distribution = tasks.from_arrays(x, names[y], 2, 1, 1, classes=["bee", "dog", "fox"])
  assert distribution.classes == ("bee", "dog", "fox")
  assert set(distribution.sample(SEED, 50).query_x[..., 0].numpy().ravel()) == {1, 3, 5}


@pytest.mark.parametrize(("change", "message"), [
  ({"y": [0] * 29}, "x has 30 examples and y has 29 labels"),
  ({"y": np.eye(6)[rows()[1]]}, r"y has shape (30, 6), expected one label for each example, [M] (of one-hot rows"),
  ({"y": [np.nan] + [1.0] * 29}, "y[0] is no label but infinite or NaN"),
  ({"y": ["a"] * 15 + [1.5, None] + ["b"] * 13}, "the labels cannot be sorted"),
  ({"x": [[1, 2], [3]] * 15}, "x is no array: its examples differ in shape"),
  ({"x": [["a"]] * 30}, "x holds <U1, expected numbers [M, ...]; turn texts into ids first"),
  ({"x": 3.0}, "x has shape (), expected examples [M, ...]"),
  ({"x": [[0.0]] * 7 + [[np.inf]] + [[0.0]] * 22}, "x[7] is infinite or NaN"),
  ({"ways": 7}, "from_arrays(ways=7): the data set has only 6 classes"),
  ({"ways": 2.0}, "from_arrays(ways=2.0): expected a whole number"),
  ({"shots": 0}, "from_arrays(shots=0): expected 1 or more"),
  ({"shots": 3, "queries": 3}, "from_arrays(shots=3): class 0 has 5 examples, but 3 shots and 3 queries need 6"),
  ({"classes": [0, 1, 9]}, "from_arrays(classes=...): no example has the label 9; there are 0, 1, 2, 3, 4, ... (6 cla"),
  ({"classes": []}, "from_arrays(classes=...): it is empty"),
])  # fmt: skip
def test_what_does_not_fit_is_refused_in_one_line(change, message):
  x, y = rows()
  with pytest.raises(UserError) as raised:
    tasks.from_arrays(**{"x": x, "y": y, "ways": 3, "shots": 1, "queries": 1} | change)
  assert message in str(raised.value)
  assert "\n" not in str(raised.value)
