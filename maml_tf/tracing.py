"""`tf.function` as this package uses it: without AutoGraph, and with sums in a fixed order.

AutoGraph rewrites Python's `if` and `for` on tensors. The package has TensorFlow's own control flow (`tf.cond`,
`tf.while_loop`, `tf.map_fn`), so there is nothing to rewrite. To find that out, AutoGraph takes seconds when it first
meets the code, and makes later tracing up to twice as long. Keras 3 traces its training and its exports in the same
way. A function of the user's (a task's `sample`, a loss) that branches on a tensor in Python is decorated with
`@tf.function`, and so rewritten by itself.

Sums: where three or more adjoints meet, TensorFlow adds them with one `AddN`, which begins with whichever of its inputs
may be overwritten at that moment. With several threads that is a matter of timing, and so is the rounding of the sum.
Grappler, which optimises graphs, also turns a sum of sums (x + y + z) into `AddN`. In what is traced here every sum is
of two tensors, and a sum within a sum is put behind an `EnsureShape`, which copies nothing and which Grappler leaves
alone. (Marking sums as not to be removed keeps what nothing needs: 5 % of a step that is computed anew.)
"""

import contextlib
import functools
import threading

import tensorflow as tf

# No public names: what every sum and every gradient is made with.
from tensorflow.python.ops import gen_array_ops, gen_math_ops

# For what users call in a `tf.function` of their own: nothing below it is rewritten but what is decorated itself.
as_it_stands = tf.autograph.experimental.do_not_convert

_SUMS = ("AddV2", "Add", "AddN", "Placeholder", "PartitionedCall", "StatefulPartitionedCall")
_PASSING_ON = ("Identity", "IdentityN", "StopGradient", "PreventGradient")

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
  if not _rounds(inputs[0]) or len(inputs) < 2:
    return _add_n(inputs, name=name)
  if len(inputs) == 2:
    return _add_n([_apart(term, inputs[0]) for term in inputs], name=name)
  return functools.reduce(_add, inputs)


def _add(x, y, name=None):
  if _rounds(x) and _rounds(y):
    x, y = _apart(x, y), _apart(y, x)
  return _add_v2(x, y, name=name)


def _apart(term, other):
  """The term, where Grappler would make one sum of it and the one it is in behind what Grappler leaves as it is."""
  return gen_array_ops.ensure_shape(term, term.shape) if _may_be_summed_with(other, term) else term


def _may_be_summed_with(other, term):
  """Whether a term of this shape is a sum itself, or comes from outside of the function, where it may be one."""
  if not term.shape.is_compatible_with(other.shape):  # a bias: `AddN` is of one shape
    return False
  while term.op.type in _PASSING_ON:
    term = term.op.inputs[term.value_index]
  return term.op.type in _SUMS


def _rounds(x):
  """Whether `x` is a tensor in a graph of which a sum depends on the order."""
  return isinstance(x, tf.Tensor) and not hasattr(x, "numpy") and (x.dtype.is_floating or x.dtype.is_complex)
