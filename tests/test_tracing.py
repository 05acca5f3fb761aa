"""Sums in what is traced: the order in which they are written, whichever buffers happen to be free."""

import numpy as np
import pytest
import tensorflow as tf

from maml_tf import tracing

# From left to right 1, and from the right, or from the last to the first, 0: float32 has no 1e8 + 1.
BIG, SMALL = 1e8, 1.0


def adjoints(x):
  """Three uses of x, of which the adjoints are BIG, -BIG and SMALL."""
  with tf.GradientTape() as tape:
    tape.watch(x)
    # The tape goes backwards: the last use is the first adjoint.
    y = tf.reduce_sum(x * SMALL) + tf.reduce_sum(x * -BIG) + tf.reduce_sum(x * BIG)
  return tape.gradient(y, x)


def parts(x):
  return x * BIG, x * -BIG, tf.sqrt(x) * SMALL


def add_n(x):
  a, b, c = parts(x)
  return tf.add_n([a, b, c]), a, b  # a and b are needed further on, so only c's buffer is free for the sum


def plus(x):
  a, b, c = parts(x)
  return a + b + c, a, b  # Grappler makes an AddN of this


def plus_through_functions(x):
  a, b, c = parts(x)
  return tracing.function(lambda a, b: a + b)(a, b) + c, a, b


@pytest.mark.parametrize("sums", [add_n, plus, plus_through_functions])
@pytest.mark.parametrize("jit_compile", [False, True])
def test_sums_begin_with_the_first_whichever_buffer_is_free(sums, jit_compile):
  total = tracing.function(sums, jit_compile=jit_compile)(tf.ones([1000]))[0]
  np.testing.assert_array_equal(total, np.full(1000, SMALL))


def test_plain_tensorflow_does_not_which_is_why():
  """Where this fails, TensorFlow has mended it: `tracing` can do without its substitutes."""
  totals = [tf.function(sums)(tf.ones([1000]))[0].numpy()[0] for sums in (add_n, plus)]
  assert totals == [0.0, 0.0]


def test_adjoints_are_added_in_the_order_in_which_they_are_found():
  x = tf.ones([1000])
  once = tracing.function(adjoints)(x)

  def again(x):
    return tf.while_loop(lambda i, _: i < 2, lambda i, _: (i + 1, adjoints(x)), (0, x))[1]

  inside = tracing.function(again)(x)
  np.testing.assert_array_equal(once, inside)
  concrete = tracing.function(adjoints).get_concrete_function(x)
  assert max(len(op.inputs) for op in concrete.graph.get_operations() if op.type in ("AddN", "AddV2")) == 2


def test_integers_mixed_types_and_eager_sums_are_as_they_were():
  @tracing.function
  def sums(x):
    return tf.add_n([x, x, x]), x + 1, tf.cast(x, tf.float64) + 0.5

  x = tf.constant([1, 2])
  for value, expected in zip(sums(x), ([3, 6], [2, 3], [1.5, 2.5]), strict=True):
    np.testing.assert_array_equal(value, expected)
  with tracing.sums_in_a_fixed_order():
    assert float(tf.add_n([tf.constant(1.0)] * 3) + 1.0) == 4.0


def test_the_substitutes_are_gone_after_tracing_even_after_an_error():
  @tracing.function
  def fails(x):
    raise KeyError(x + x)

  with pytest.raises(KeyError):
    fails(tf.constant(1.0))

  graph = tf.function(lambda a: tf.add_n([a, a, a])).get_concrete_function(tf.constant(1.0)).graph
  assert [len(op.inputs) for op in graph.get_operations() if op.type == "AddN"] == [3]


def test_methods_and_signatures():
  class Module(tf.Module):
    @tracing.function(input_signature=[tf.TensorSpec([], tf.float32)])
    def twice(self, x):
      """Doubles."""
      return x + x

  assert float(Module().twice(3.0)) == 6.0
  assert Module.twice.__doc__ == "Doubles."
