"""How much memory a graph needs, told from the shapes in it, and how many tasks at a time that allows."""

import tensorflow as tf

from maml_tf import tracing

# What all tasks at once may take, in bytes, where nobody says how many to compute at a time. A training changes its
# last digits with the chunk, so the limit is above what every preset takes; an evaluation is as fast in small ones.
TRAINING = 2**31
EVALUATION = 2**29

_VIEWS = {"Identity", "Reshape", "Squeeze", "ExpandDims", "StopGradient", "PreventGradient"}
_CALLED = {
  "PartitionedCall": ("f",), "StatefulPartitionedCall": ("f",), "While": ("body",), "StatelessWhile": ("body",),
  "If": ("then_branch", "else_branch"), "StatelessIf": ("then_branch", "else_branch"),
}  # fmt: skip


def all_or_fewer(compute, num_tasks, limit):
  """Computes all tasks at once where that fits, and else says how many do.

  Args:
    compute: function of no arguments, of all tasks.
    num_tasks: how many that are, a Python integer; None: it is not known.
    limit: bytes.

  Returns:
    (what `compute` returns, None); or (None, the largest number of tasks that fits and divides `num_tasks`, at least
    1). Outside of a graph nothing can be said beforehand: all at once.
  """
  if tf.executing_eagerly() or num_tasks is None:
    return compute(), None
  # A function of its own: where it is not called, nothing of it runs.
  traced = tracing.function(compute).get_concrete_function()
  needed = peak_bytes(traced.graph)
  if needed <= limit or num_tasks == 1:
    return traced(), None
  return None, largest_divisor(num_tasks, limit * num_tasks // needed)


def largest_divisor(number, most):
  """The largest divisor of a number up to `most`, at least 1."""
  return max(n for n in range(1, max(min(most, number), 1) + 1) if number % n == 0)


def peak_bytes(graph):
  """An estimate of what a traced function needs beside its arguments: the most bytes that are alive at once.

  Its operations are taken one after the other, as they were traced; a tensor lives from the operation that makes it to
  the last one that reads it. Sizes that are not known count as 1, and lists that loops keep as nothing.
  """
  operations = graph.get_operations()
  dying = _last_readers(operations)
  alive = peak = 0
  for index, op in enumerate(operations):
    alive += sum(_bytes_made(op))
    peak = max(peak, alive + _bytes_inside(op, graph))
    alive -= dying.get(index, 0)
  return peak


def _last_readers(operations):
  """Index of an operation -> bytes that nobody reads after it."""
  last, sizes, source = {}, {}, {}
  for index, op in enumerate(operations):
    for tensor in op.inputs:
      name = source.get(tensor.name, tensor.name)
      last[name] = index
    if op.type in _VIEWS:  # of the same bytes
      first = op.inputs[0].name
      source[op.outputs[0].name] = source.get(first, first)
      continue
    for tensor, size in zip(op.outputs, _bytes_made(op), strict=True):
      sizes[tensor.name] = size
      last[tensor.name] = index  # of those that nobody reads at all
  dying = {}
  for name, size in sizes.items():
    dying[last[name]] = dying.get(last[name], 0) + size
  return dying


def _bytes_made(op):
  """Bytes of each output that an operation makes; none of a view's, of what is passed in, or of a constant's."""
  if op.type in _VIEWS or op.type in ("Placeholder", "Const"):
    return [0] * len(op.outputs)
  return [_bytes_of(tensor) for tensor in op.outputs]


def _bytes_of(tensor):
  if tensor.shape.rank is None or tensor.dtype in (tf.variant, tf.resource, tf.string):
    return 0
  size = tensor.dtype.size
  for length in tensor.shape:
    size *= 1 if length is None else length
  return size


def _bytes_inside(op, graph):
  """What the functions need that an operation calls; of branches the larger."""
  names = [op.get_attr(name).name for name in _CALLED.get(op.type, ())]
  return max((peak_bytes(graph._get_function(name).graph) for name in names), default=0)
