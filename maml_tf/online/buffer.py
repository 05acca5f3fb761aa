"""The buffer of tasks (Finn et al. 2019, algorithm 1): what has arrived, to be sampled from inside the graph.

The data itself is the stream's, in memory once; what has arrived of it follows from the round. So the buffer is no part
of the state, and checkpoints do not grow.
"""

import numpy as np
import tensorflow as tf

from maml_tf import randomness
from maml_tf.tasks.base import TaskBatch
from maml_tf.tasks.sequences import FIELDS, as_inputs


class Buffer:
  """The data of a stream.

  Args:
    sequence: `tasks.TaskSequence`.
    dtype: of the inputs, and of labels that are no classes.
  """

  def __init__(self, sequence, dtype):
    self.num_examples, self.dtype = sequence.num_examples, tf.as_dtype(dtype)
    # Tasks and examples are one axis: a gather of tasks first would copy all examples of each.
    self._x, self._y, self._test_x, self._test_y = (tf.convert_to_tensor(sequence.flat(name)) for name in FIELDS)
    self._starts = tf.constant(_starts(sequence.x), tf.int32)
    self._test_starts = tf.constant(_starts(sequence.test_x), tf.int32)
    self._num_held_out = len(sequence.test_x[0]) if sequence.is_even else None

  def sample(self, seed, chosen, arrived, num_support, num_query):
    """Two independent minibatches of each chosen task, without balancing classes (algorithm 2, line 4).

    Args:
      seed: int32 tensor [2].
      chosen: numbers of the tasks, int32 [T].
      arrived: examples of every task that are there, int32 [tasks].
      num_support: examples of a support set, all different.
      num_query: of a query set.

    Returns:
      `TaskBatch`.
    """
    there = tf.gather(arrived, chosen)
    support = self._rows(randomness.fold(seed, "support"), chosen, there, num_support)
    query = self._rows(randomness.fold(seed, "query"), chosen, there, num_query)
    return TaskBatch(*self._examples(support), *self._examples(query))

  def all_of(self, first, count):
    """All examples of `count` tasks from the task `first` on, for support and query set alike: `TaskBatch`.

    All tasks have as many examples.
    """
    rows = (first + tf.range(count))[:, tf.newaxis] * self.num_examples + tf.range(self.num_examples)
    x, y = self._examples(rows)
    return TaskBatch(x, y, x, y)

  def current(self, moment):
    """All examples of the current task so far to adapt on, and its held-out ones: `TaskBatch` of one task."""
    rows = tf.gather(self._starts, moment.task) + tf.range(moment.amount)
    first, end = (tf.gather(self._test_starts, moment.task + next_one) for next_one in (0, 1))
    test_rows = tf.ensure_shape(tf.range(first, end), [self._num_held_out])[tf.newaxis]
    test_x, test_y = (tf.gather(held_out, test_rows) for held_out in (self._test_x, self._test_y))
    return TaskBatch(*self._examples(rows[tf.newaxis]), as_inputs(test_x, self.dtype), self._labels(test_y))

  def _rows(self, seed, chosen, there, count):
    """Rows [T, count] of different examples. The largest of random keys are a uniform draw."""
    shape = [tf.shape(chosen)[0], self.num_examples]
    keys = tf.random.stateless_uniform(shape, seed, None, None, tf.int32, alg=randomness.ALGORITHM)
    keys = tf.bitwise.bitwise_and(keys, 0x7FFFFFFF)
    keys = tf.where(tf.range(self.num_examples) < there[:, tf.newaxis], keys, -1)
    rows = tf.gather(self._starts, chosen)[:, tf.newaxis] + tf.math.top_k(keys, count).indices
    return tf.ensure_shape(rows, [chosen.shape[0], count])

  def _examples(self, rows):
    return as_inputs(tf.gather(self._x, rows), self.dtype), self._labels(tf.gather(self._y, rows))

  def _labels(self, y):
    return y if y.dtype.is_integer else tf.cast(y, self.dtype)


def _starts(of_tasks):
  """Where each task begins among the examples of all, and where the last one ends."""
  return np.cumsum([0, *map(len, of_tasks)])
