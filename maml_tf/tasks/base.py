"""What a task is: a support set to adapt on and a query set to be judged by."""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from maml_tf import tracing


class TaskBatch(NamedTuple):
  """A batch of tasks; every field is [T, n, ...], the masks [T, n] (true where an example counts; None: all do).

  For a model of several inputs or outputs, x or y are dicts, lists or tuples of such arrays.

  What a mask leaves out may be any finite number: through an infinite input, gradients would be NaN all the same.
  """

  support_x: Any
  support_y: Any
  query_x: Any
  query_y: Any
  support_mask: Any = None
  query_mask: Any = None


def as_tensors(batch):
  """A `TaskBatch`, or one of its fields, of tensors.

  Dicts are nests of arrays, and so are tuples of arrays; lists are data, as NumPy has it.
  """
  if batch is None or tf.is_tensor(batch):
    return batch
  if isinstance(batch, dict):
    return {name: as_tensors(part) for name, part in batch.items()}
  if isinstance(batch, TaskBatch):
    return TaskBatch(*map(as_tensors, batch))
  if isinstance(batch, tuple) and any(isinstance(part, np.ndarray | dict) or tf.is_tensor(part) for part in batch):
    return tuple(map(as_tensors, batch))
  return tf.convert_to_tensor(batch)


def check_batch(batch: TaskBatch) -> None:
  """An error where the fields of a batch do not belong together.

  Args:
    batch: `TaskBatch` of arrays, or of nested ones.

  Raises:
    ValueError: names the field, with the shapes found.
  """
  fields = {name: as_tensors(field) for name, field in batch._asdict().items() if field is not None}
  shapes = {name: [tuple(leaf.shape) for leaf in tf.nest.flatten(field)] for name, field in fields.items()}
  for name, found in shapes.items():
    which = name.partition("_")[0]
    (num_tasks,), (num_examples,) = shapes["support_x"][0][:1] or (None,), shapes[f"{which}_x"][0][1:2] or (None,)
    for shape in found:
      if len(shape) < 2 or shape[:2] != (num_tasks, num_examples) or (name.endswith("mask") and len(shape) != 2):
        rest = "" if name.endswith("mask") else ", ..."
        raise ValueError(
          f"{name}: it has shape {shape}, expected [{num_tasks}, {num_examples}{rest}], tasks and examples, as "
          f"support_x {shapes['support_x'][0]} and {which}_x {shapes[f'{which}_x'][0]} have them"
        )


class TaskDistribution:
  """A distribution of tasks. Subclass it and implement `sample` with TensorFlow operations.

  Attributes:
    compiles: whether `sample` can be compiled by XLA.
  """

  compiles: bool = True

  def sample(self, seed: tf.Tensor, num_tasks: int | tf.Tensor) -> TaskBatch:
    """Draws tasks.

    Args:
      seed: int32 or int64 tensor [2]; the same seed gives the same tasks.
      num_tasks: integer or scalar tensor.

    Returns:
      `TaskBatch`.
    """
    raise NotImplementedError(f"{type(self).__name__} must implement sample(seed, num_tasks)")

  def specs(self) -> TaskBatch:
    """`TaskBatch` of `tf.TensorSpec` without the task axis: shapes [n, ...] and dtypes of one task."""
    traced = tracing.function(lambda seed: self.sample(seed, 1)).get_concrete_function(tf.TensorSpec([2], tf.int32))

    def spec(tensor):
      return None if tensor is None else tf.TensorSpec(tensor.shape[1:], tensor.dtype)

    return TaskBatch(*(tf.nest.map_structure(spec, field) for field in traced.structured_outputs))


def from_generator(python_generator: Callable[[np.random.Generator], Iterable[tuple]]) -> TaskDistribution:
  """Tasks from Python.

  Args:
    python_generator: a function of one `numpy.random.Generator` that yields tasks without end, each a tuple of arrays
      (support_x, support_y, query_x, query_y), [n, ...] each, the same shapes and dtypes every time. All its
      randomness must come from its argument: that makes a run reproducible from its seed.

  Returns:
    A `TaskDistribution`. It runs Python once per sampled batch, so it is slower than sampling in the graph and
    cannot be compiled by XLA.
  """
  return _GeneratorTasks(python_generator)


def _refuse_parts(task):
  parts = [name for name, field in zip(TaskBatch._fields, task, strict=False) if isinstance(field, dict | tuple)]
  if parts:
    raise ValueError(
      f"from_generator: {parts[0]} has several parts, expected one array; subclass TaskDistribution for a model of "
      "several inputs or outputs, whose sample may return dicts and tuples"
    )


class _GeneratorTasks(TaskDistribution):
  compiles = False

  def __init__(self, python_generator):
    if not callable(python_generator):
      raise ValueError(
        f"from_generator: expected a function of a numpy.random.Generator that yields tasks, got {python_generator!r} "
        "(pass the function itself, not what it returns)"
      )
    self._generator = python_generator
    for task in python_generator(np.random.default_rng(0)):
      _refuse_parts(task)
      break
    first = self._draw(np.zeros(2, np.int64), 1)
    if len(first) != 4:
      raise ValueError(
        f"from_generator: a task is (support_x, support_y, query_x, query_y), the generator yields {len(first)} arrays"
      )
    self._specs = [tf.TensorSpec([None, *a.shape[1:]], a.dtype) for a in first]

  def sample(self, seed, num_tasks):
    arrays = tf.numpy_function(
      self._draw,
      [tf.cast(seed, tf.int64), num_tasks],
      [s.dtype for s in self._specs],
      stateful=False,
    )
    return TaskBatch(*(tf.ensure_shape(a, s.shape) for a, s in zip(arrays, self._specs, strict=True)))

  def _draw(self, seed, num_tasks):
    # SeedSequence wants non-negative words; a folded seed may have its sign bit set.
    rng = np.random.default_rng(np.asarray(seed, np.int64) & 0xFFFFFFFF)
    tasks = []
    for task in self._generator(rng):
      tasks.append(task)
      if len(tasks) == num_tasks:
        break
    if len(tasks) < num_tasks:
      raise ValueError(
        f"from_generator: the generator stopped after {len(tasks)} of {num_tasks} tasks; it must not end"
      )
    return [np.stack(arrays) for arrays in zip(*tasks, strict=True)]
