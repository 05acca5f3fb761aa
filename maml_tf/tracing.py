"""`tf.function` as this package uses it: without AutoGraph, and with sums in a fixed order.

AutoGraph rewrites Python's `if` and `for` on tensors. The package has TensorFlow's own control flow (`tf.cond`,
`tf.while_loop`, `tf.map_fn`), so there is nothing to rewrite. To find that out, AutoGraph takes seconds when it first
meets the code, and makes later tracing up to twice as long. Keras 3 traces its training and its exports in the same
way. A function of the user's (a task's `sample`, a loss) that branches on a tensor in Python is decorated with
`@tf.function`, and so rewritten by itself.

Sums: where three or more adjoints meet, TensorFlow adds them with one `AddN`, which begins with whichever of its inputs
may be overwritten at that moment. With several threads that is a matter of timing, and so is the rounding of the sum.
Grappler, which optimises graphs, also turns a sum of sums (x + y + z) into `AddN`. In what is traced here every sum is
of two tensors, and a sum of sums is marked so that it stays as it is. Others are not: what is marked stays even where
nothing needs it, which costs time where a step is recomputed.
"""

import contextlib
import functools
import threading

import tensorflow as tf
from tensorflow.python.ops import gen_math_ops  # no public name: what every sum and every gradient is made with

# For what users call in a `tf.function` of their own: nothing below it is rewritten but what is decorated itself.
as_it_stands = tf.autograph.experimental.do_not_convert

_SUMS = ("AddV2", "Add", "AddN", "Sub", "Placeholder", "IdentityN", "PartitionedCall", "StatefulPartitionedCall")
_PASSING_ON = ("Identity", "StopGradient", "PreventGradient")

_lock = threading.Lock()
_depth = 0
_add_n, _add_v2 = gen_math_ops.add_n, gen_math_ops.add_v2


def function(python_function=None, **options):
  """`tf.function(python_function, **options)`, also as a decorator; see above."""
  if python_function is None:
    return functools.partial(function, **options)

  @functools.wraps(python_function)
  def traced(*arguments, **named):
    with sums_in_a_fixed_order():
      return python_function(*arguments, **named)

  return tf.function(traced, autograph=False, **options)


@contextlib.contextmanager
def sums_in_a_fixed_order():
  """What is traced inside adds in a fixed order, whatever the threads do: the same bits in every execution.

  The substitute is there for the whole process while a function is traced. That is no harm: it computes the same sums.
  """
  _enter(1)
  try:
    yield
  finally:
    _enter(-1)


def _enter(change):
  global _depth
  with _lock:  # replicas of a `tf.distribute` strategy are traced in threads
    _depth += change
    gen_math_ops.add_n, gen_math_ops.add_v2 = (_sum, _add) if _depth else (_add_n, _add_v2)


def _sum(inputs, name=None):
  """`AddN`, one after the other."""
  if not _rounds(inputs[0]):
    return _add_n(inputs, name=name)
  if len(inputs) < 3:
    return _keep(_add_n(inputs, name=name))
  return functools.reduce(_add, inputs)


def _add(x, y, name=None):
  return _keep(_add_v2(x, y, name=name))


def _keep(total):
  """Keeps Grappler from making one sum of several."""
  if _rounds(total) and any(_may_be_a_sum(term.op) for term in total.op.inputs):
    total.op._set_attr("_grappler_do_not_remove", tf.compat.v1.AttrValue(b=True))
  return total


def _may_be_a_sum(op):
  """Whether this is a sum, or what comes from outside of the function, where it may be one."""
  while op.type in _PASSING_ON:
    op = op.inputs[0].op
  return op.type in _SUMS


def _rounds(x):
  """Whether `x` is a tensor in a graph of which a sum depends on the order."""
  return isinstance(x, tf.Tensor) and not hasattr(x, "numpy") and (x.dtype.is_floating or x.dtype.is_complex)
