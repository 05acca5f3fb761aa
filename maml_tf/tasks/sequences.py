"""Tasks that arrive one after another, each with data that arrives in batches and data that is held out."""

import math

import numpy as np
import tensorflow as tf

from maml_tf.errors import UserError
from maml_tf.tasks.base import TaskBatch

FIELDS = ("x", "y", "test_x", "test_y")


class TaskSequence:
  """Tasks in the order of their arrival.

  All tasks have as many examples: what is sampled from them has a shape that is known when it is traced.

  Args:
    x: [tasks, n, ...], the examples of every task in the order in which they arrive. Bytes become floats in [0, 1].
    y: [tasks, n, ...], their labels: integers (classification) or floats (regression).
    test_x: [tasks, m, ...], held out: what a task is judged by.
    test_y: [tasks, m, ...].
    batch_size: examples that arrive at a time; the last batch of a task may be smaller.
    names: of the tasks; None: their numbers.

  Raises:
    UserError: no task, or arrays that do not belong together.
  """

  def __init__(self, x, y, test_x, test_y, batch_size, names=None):
    arrays = dict(zip(FIELDS, map(np.asarray, (x, y, test_x, test_y)), strict=True))
    _check(arrays, batch_size)
    self.x, self.y, self.test_x, self.test_y = arrays.values()
    self.batch_size = batch_size
    self.names = tuple(map(str, range(self.num_tasks))) if names is None else tuple(names)

  @classmethod
  def from_generator(cls, python_generator, batch_size, num_tasks=None, seed=0):
    """The tasks of a Python generator, drawn at once and kept in memory.

    Args:
      python_generator: a function of one `numpy.random.Generator` that yields tasks, each a tuple of arrays
        (x, y, test_x, test_y), [n, ...] each, the same shapes every time.
      batch_size: examples that arrive at a time.
      num_tasks: how many to take; None: all that it yields, so it has to end.
      seed: Python integer, of the `numpy.random.Generator`.

    Raises:
      UserError: too few tasks, or tasks of different shapes.
    """
    tasks = []
    for task in python_generator(np.random.default_rng(seed)):
      tasks.append([np.asarray(field) for field in _four(task, len(tasks))])
      _check_like_first(tasks)
      if len(tasks) == num_tasks:
        break
    if not tasks or (num_tasks is not None and len(tasks) < num_tasks):
      raise UserError(
        f"TaskSequence(num_tasks={num_tasks}): expected at least {num_tasks or 1} from the generator, which stopped "
        f"after {len(tasks)}; let it yield more"
      )
    return cls(*map(np.stack, zip(*tasks, strict=True)), batch_size)

  @property
  def num_tasks(self):
    return self.x.shape[0]

  @property
  def num_examples(self):
    """Examples of a task, without those held out."""
    return self.x.shape[1]

  @property
  def num_batches(self):
    """Batches in which the examples of a task arrive."""
    return math.ceil(self.num_examples / self.batch_size)

  @property
  def amounts(self):
    """Examples of a task that are there after each of its batches: int64 [batches]."""
    return np.minimum(self.batch_size * np.arange(1, self.num_batches + 1), self.num_examples)

  @property
  def classifies(self):
    """Whether labels are classes."""
    return self.y.dtype.kind in "iu"

  def shuffled(self, seed, num_tasks=None):
    """The first `num_tasks` (None: all) of these tasks in a random order, of a Python integer seed.

    Raises:
      UserError: there are not so many.
    """
    num_tasks = self.num_tasks if num_tasks is None else num_tasks
    if not 1 <= num_tasks <= self.num_tasks:
      raise UserError(f"TaskSequence(num_tasks={num_tasks}): expected 1 to {self.num_tasks}, the tasks that there are")
    order = np.random.default_rng(seed).permutation(self.num_tasks)[:num_tasks]
    arrays = (getattr(self, name)[order] for name in FIELDS)
    return TaskSequence(*arrays, self.batch_size, [self.names[k] for k in order])

  def specs(self):
    """`TaskBatch` of `tf.TensorSpec` of one task, as `TaskDistribution.specs`; the number of examples is left free."""
    x = tf.TensorSpec([None, *self.x.shape[2:]], tf.float32 if self.x.dtype == np.uint8 else self.x.dtype)
    y = tf.TensorSpec([None, *self.y.shape[2:]], self.y.dtype)
    return TaskBatch(x, y, x, y)


def as_inputs(x, dtype):
  """Examples as a model takes them: bytes as floats in [0, 1], others in that dtype."""
  return tf.cast(x, dtype) / 255 if x.dtype == tf.uint8 else tf.cast(x, dtype)


def _four(task, index):
  if not isinstance(task, (tuple, list)) or len(task) != len(FIELDS):
    raise UserError(f"TaskSequence(python_generator=...): task {index} is no tuple of {', '.join(FIELDS)}")
  return task


def _check_like_first(tasks):
  for name, found, first in zip(FIELDS, tasks[-1], tasks[0], strict=True):
    if (found.shape, found.dtype) != (first.shape, first.dtype):
      raise UserError(
        f"TaskSequence(python_generator=...): {name} of task {len(tasks) - 1} is {found.dtype} {list(found.shape)}, "
        f"that of task 0 {first.dtype} {list(first.shape)}; let all tasks have the same shapes and dtypes"
      )


def _check(arrays, batch_size):
  x = arrays["x"]
  for name, array in arrays.items():
    if array.ndim < 2 or 0 in array.shape[:2]:
      raise UserError(f"TaskSequence({name}=...): its shape is {list(array.shape)}, expected [tasks, examples, ...]")
    with_x = arrays["test_x" if name.startswith("test") else "x"]
    if len(array) != len(x) or array.shape[1] != with_x.shape[1]:
      expected = f"[{len(x)}, {with_x.shape[1]}, ...], as many tasks and examples as the inputs have"
      raise UserError(f"TaskSequence({name}=...): its shape is {list(array.shape)}, expected {expected}")
  for name in ("x", "y"):
    found, first = arrays[f"test_{name}"], arrays[name]
    if found.shape[2:] != first.shape[2:] or found.dtype != first.dtype:
      raise UserError(
        f"TaskSequence(test_{name}=...): an example is {found.dtype} {list(found.shape[2:])}, one of {name} "
        f"{first.dtype} {list(first.shape[2:])}; expected the same"
      )
  if not 1 <= batch_size <= x.shape[1]:
    raise UserError(f"TaskSequence(batch_size={batch_size}): expected 1 to {x.shape[1]}, the examples of a task")
