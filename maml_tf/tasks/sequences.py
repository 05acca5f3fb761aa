"""Tasks that arrive one after another, each with data that arrives in batches and data that is held out."""

import math

import numpy as np
import tensorflow as tf

from maml_tf.errors import UserError
from maml_tf.tasks.base import TaskBatch

FIELDS = ("x", "y", "test_x", "test_y")


class TaskSequence:
  """Tasks in the order of their arrival.

  Args:
    x: [tasks, n, ...], the examples of every task in the order in which they arrive; a list with an array for each task
      where they have different numbers of examples. Bytes become floats in [0, 1].
    y: [tasks, n, ...], their labels: integers (classification) or floats (regression).
    test_x: [tasks, m, ...], held out: what a task is judged by. Likewise a list, where m differs.
    test_y: [tasks, m, ...].
    batch_size: examples that arrive at a time; the last batch of a task may be smaller.
    names: of the tasks; None: their numbers.

  Raises:
    UserError: no task, or arrays that do not belong together.
  """

  def __init__(self, x, y, test_x, test_y, batch_size, names=None):
    arrays = {name: _of_tasks(name, given) for name, given in zip(FIELDS, (x, y, test_x, test_y), strict=True)}
    _check(arrays, batch_size)
    self.x, self.y, self.test_x, self.test_y = arrays.values()
    self.batch_size = batch_size
    self.names = tuple(map(str, range(self.num_tasks))) if names is None else tuple(names)

  @classmethod
  def from_generator(cls, python_generator, batch_size, num_tasks=None, seed=0):
    """The tasks of a Python generator, drawn at once and kept in memory.

    Args:
      python_generator: a function of one `numpy.random.Generator` that yields tasks, each a tuple of arrays
        (x, y, test_x, test_y), [n, ...] each; the number of examples may differ from task to task.
      batch_size: examples that arrive at a time.
      num_tasks: how many to take; None: all that it yields, so it has to end.
      seed: Python integer, of the `numpy.random.Generator`.

    Raises:
      UserError: too few tasks, or examples of different shapes.
    """
    tasks = []
    for task in python_generator(np.random.default_rng(seed)):
      tasks.append([np.asarray(field) for field in _four(task, len(tasks))])
      if len(tasks) == num_tasks:
        break
    if not tasks or (num_tasks is not None and len(tasks) < num_tasks):
      raise UserError(
        f"TaskSequence(num_tasks={num_tasks}): expected at least {num_tasks or 1} from the generator, which stopped "
        f"after {len(tasks)}; let it yield more"
      )
    return cls(*map(list, zip(*tasks, strict=True)), batch_size)

  @property
  def num_tasks(self):
    return len(self.x)

  @property
  def counts(self):
    """Examples of every task, without those held out: int64 [tasks]."""
    return np.array([len(x) for x in self.x])

  @property
  def is_even(self):
    """Whether all tasks have as many examples, and as many held out."""
    return isinstance(self.x, np.ndarray) and isinstance(self.test_x, np.ndarray)

  @property
  def num_examples(self):
    """Examples of a task, of the largest one where they differ, without those held out."""
    return int(self.counts.max())

  @property
  def num_batches(self):
    """Batches in which the examples of the largest task arrive."""
    return math.ceil(self.num_examples / self.batch_size)

  @property
  def amounts(self):
    """Examples that are there after each batch: int64 [batches], or [tasks, batches] where tasks differ.

    A task that has no such batch any more has all its examples.
    """
    whole = self.batch_size * np.arange(1, self.num_batches + 1)
    return np.minimum(whole, self.num_examples if self.is_even else self.counts[:, np.newaxis])

  @property
  def classifies(self):
    """Whether labels are classes."""
    return self.y[0].dtype.kind in "iu"

  def flat(self, name):
    """The examples, labels, ... of all tasks, one task after the other: [sum of n, ...]."""
    arrays = getattr(self, name)
    return arrays.reshape(-1, *arrays.shape[2:]) if isinstance(arrays, np.ndarray) else np.concatenate(arrays)

  def shuffled(self, seed, num_tasks=None):
    """The first `num_tasks` (None: all) of these tasks in a random order, of a Python integer seed.

    Raises:
      UserError: there are not so many.
    """
    num_tasks = self.num_tasks if num_tasks is None else num_tasks
    if not 1 <= num_tasks <= self.num_tasks:
      raise UserError(f"TaskSequence(num_tasks={num_tasks}): expected 1 to {self.num_tasks}, the tasks that there are")
    order = np.random.default_rng(seed).permutation(self.num_tasks)[:num_tasks]
    fields = (getattr(self, name) for name in FIELDS)
    arrays = (field[order] if isinstance(field, np.ndarray) else [field[k] for k in order] for field in fields)
    return TaskSequence(*arrays, self.batch_size, [self.names[k] for k in order])

  def specs(self):
    """`TaskBatch` of `tf.TensorSpec` of one task, as `TaskDistribution.specs`; the number of examples is left free."""
    x, y = self.x[0], self.y[0]
    x = tf.TensorSpec([None, *x.shape[1:]], tf.float32 if x.dtype == np.uint8 else x.dtype)
    y = tf.TensorSpec([None, *y.shape[1:]], y.dtype)
    return TaskBatch(x, y, x, y)


def as_inputs(x, dtype):
  """Examples as a model takes them: bytes as floats in [0, 1], others in that dtype."""
  return tf.cast(x, dtype) / 255 if x.dtype == tf.uint8 else tf.cast(x, dtype)


def _four(task, index):
  if not isinstance(task, (tuple, list)) or len(task) != len(FIELDS):
    raise UserError(f"TaskSequence(python_generator=...): task {index} is no tuple of {', '.join(FIELDS)}")
  return task


def _of_tasks(name, given):
  """An array [tasks, n, ...], or a list with an array [n, ...] for each task where n differs.

  Raises:
    UserError: examples of different shapes or dtypes.
  """
  if not isinstance(given, (list, tuple)) or not len(given):
    return np.asarray(given)
  arrays = [np.asarray(array) for array in given]
  first = arrays[0]
  for index, array in enumerate(arrays):
    if array.ndim == 0 or (array.shape[1:], array.dtype) != (first.shape[1:], first.dtype):
      raise UserError(
        f"TaskSequence({name}=...): {name} of task {index} is {array.dtype} {list(array.shape)}, that of task 0 "
        f"{first.dtype} {list(first.shape)}; let all examples have the same shape and dtype"
      )
  return np.stack(arrays) if len({len(array) for array in arrays}) == 1 else arrays


def _check(arrays, batch_size):
  x = arrays["x"]
  for name, of_tasks in arrays.items():
    with_x = arrays["test_x" if name.startswith("test") else "x"]
    shape = _shape(of_tasks)
    if len(of_tasks) == 0 or of_tasks[0].ndim < 1 or 0 in map(len, of_tasks):
      raise UserError(f"TaskSequence({name}=...): its shape is {shape}, expected [tasks, examples, ...]")
    if len(of_tasks) != len(x) or list(map(len, of_tasks)) != list(map(len, with_x)):
      sizes = ", ".join(map(str, _shape(with_x)[:2]))
      raise UserError(
        f"TaskSequence({name}=...): its shape is {shape}, expected [{sizes}, ...], as many tasks and examples as the "
        "inputs have"
      )
  for name in ("x", "y"):
    found, first = arrays[f"test_{name}"][0], arrays[name][0]
    if found.shape[1:] != first.shape[1:] or found.dtype != first.dtype:
      raise UserError(
        f"TaskSequence(test_{name}=...): an example is {found.dtype} {list(found.shape[1:])}, one of {name} "
        f"{first.dtype} {list(first.shape[1:])}; expected the same"
      )
  most = max(map(len, x))
  if not 1 <= batch_size <= most:
    raise UserError(f"TaskSequence(batch_size={batch_size}): expected 1 to {most}, the examples of a task")


def _shape(of_tasks):
  """Of an array; of a list the number of tasks, and the numbers of examples."""
  if isinstance(of_tasks, np.ndarray):
    return list(of_tasks.shape)
  return [len(of_tasks), f"{min(map(len, of_tasks))} to {max(map(len, of_tasks))}", *of_tasks[0].shape[1:]]
