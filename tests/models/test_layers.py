"""Each layer with a task axis equals the same layer of TensorFlow or NumPy, one task at a time."""

import numpy as np
import pytest
import tensorflow as tf

from maml_tf.models import layers

RNG = np.random.default_rng(0)


def normal(*shape):
  return tf.constant(RNG.normal(size=shape))


@pytest.mark.parametrize("shared", [True, False])
def test_dense(shared):
  x, kernel, bias = normal(3, 5, 4), normal(3, 4, 2), normal(3, 2)
  if shared:
    kernel, bias = kernel[0], bias[0]
  out = layers.dense(x, kernel, bias)
  for task in range(3):
    k, b = (kernel, bias) if shared else (kernel[task], bias[task])
    np.testing.assert_allclose(out[task], x[task].numpy() @ k.numpy() + b, rtol=1e-12)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [(8, 8), (7, 5), (4, 4), (2, 2), (1, 1)])
@pytest.mark.parametrize("shared", [True, False])
def test_conv2d(size, stride, shared):
  x, kernel, bias = normal(3, 2, *size, 2), normal(3, 3, 3, 2, 4), normal(3, 4)
  if shared:
    kernel, bias = kernel[0], bias[0]
  out = layers.conv2d(x, kernel, bias, stride)
  for task in range(3):
    k, b = (kernel, bias) if shared else (kernel[task], bias[task])
    np.testing.assert_allclose(out[task], tf.nn.conv2d(x[task], k, stride, "SAME") + b, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(("height", "width", "stride"), [(8, 8, 1), (7, 5, 2), (28, 28, 2), (2, 2, 2), (1, 3, 1)])
def test_patches_equal_those_of_tensorflow_and_fold_is_the_adjoint(height, width, stride):
  patches = layers.Patches(height, width, 3, 3, stride)
  x = normal(2, height, width, 4)
  extracted = patches.extract(tf.reshape(x, [2, height * width, 4]))
  expected = tf.image.extract_patches(x, [1, 3, 3, 1], [1, stride, stride, 1], [1, 1, 1, 1], "SAME")
  np.testing.assert_array_equal(tf.reshape(extracted, expected.shape), expected)
  other = normal(*extracted.shape)
  forward, backward = tf.reduce_sum(extracted * other), tf.reduce_sum(tf.reshape(x, [2, -1, 4]) * patches.fold(other))
  np.testing.assert_allclose(forward, backward, rtol=1e-12)


@pytest.mark.parametrize("stride", [1, 2])
def test_conv2d_has_the_derivatives_of_tensorflows_own_of_second_order_too(stride):
  x, kernel, bias, direction = normal(2, 3, 6, 5, 2), normal(2, 3, 3, 2, 4), normal(2, 4), normal(2, 3, 6, 5, 2)

  def second(convolve):
    with tf.GradientTape() as outer:
      outer.watch([x, kernel])
      with tf.GradientTape() as inner:
        inner.watch(x)
        out = tf.reduce_sum(tf.tanh(convolve()))
      slope = tf.reduce_sum(inner.gradient(out, x) * direction)
    return outer.gradient(slope, [x, kernel])

  ours = second(lambda: layers.conv2d(x, kernel, bias, stride))
  native = second(lambda: tf.stack([tf.nn.conv2d(x[t], kernel[t], stride, "SAME") + bias[t] for t in range(2)]))
  for a, b in zip(ours, native, strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-11)


FORMULATIONS = {"patches": layers._conv2d_per_task, "unstacked": layers._conv2d_unstacked}


def derivatives(convolve, x, kernel, direction):
  """[output, gradients of first and of second order, for x and for the kernel] of a function of the convolution."""
  with tf.GradientTape(persistent=True) as outer:
    outer.watch([x, kernel])
    with tf.GradientTape() as inner:
      inner.watch([x, kernel])
      out = convolve(x, kernel)
      value = tf.reduce_sum(tf.tanh(out))
    first = inner.gradient(value, [x, kernel])
    slope = tf.reduce_sum(first[0] * direction[0]) + tf.reduce_sum(first[1] * direction[1])
  return [out, *first, *outer.gradient(slope, [x, kernel])]


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [(6, 5), (1, 1)])
def test_both_formulations_of_the_convolution_agree_in_values_and_derivatives(size, stride):
  x, kernel = normal(2, 3, *size, 2), normal(2, 3, 3, 2, 4)
  direction = normal(2, 3, *size, 2), normal(2, 3, 3, 2, 4)
  both = [derivatives(lambda x, k, f=f: f(x, k, stride), x, kernel, direction) for f in FORMULATIONS.values()]
  for a, b in zip(*both, strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("name", FORMULATIONS)
def test_second_derivatives_of_the_convolution_are_finite_differences_of_the_first(name):
  x, kernel, direction = normal(2, 2, 5, 4, 2), normal(2, 3, 3, 2, 3), (normal(2, 2, 5, 4, 2), normal(2, 3, 3, 2, 3))

  def at(step):
    moved = x + step * direction[0], kernel + step * direction[1]
    return derivatives(lambda x, k: FORMULATIONS[name](x, k, 2), *moved, direction)

  for plus, minus, second in zip(at(1e-5)[1:3], at(-1e-5)[1:3], at(0.0)[3:], strict=True):
    np.testing.assert_allclose(second, (plus - minus) / 2e-5, rtol=1e-6, atol=1e-7)


def formulation(x_shape, kernel_shape, stride):
  """Operations that tracing the layer leaves in the graph."""

  @tf.function(input_signature=[tf.TensorSpec(x_shape), tf.TensorSpec(kernel_shape), tf.TensorSpec([None, 32])])
  def convolve(x, kernel, bias):
    return layers.conv2d(x, kernel, bias, stride)

  operations = {op.type for op in convolve.get_concrete_function().graph.get_operations()}
  assert len(operations & {"Conv2D", "BatchMatMulV2"}) == 1
  return "unstacked" if "Conv2D" in operations else "patches"


def test_the_formulation_follows_the_size_of_the_patches_of_one_task():
  assert formulation([32, 5, 14, 14, 32], [32, 3, 3, 32, 32], 2) == "patches"
  assert formulation([4, 75, 42, 42, 32], [4, 3, 3, 32, 32], 1) == "unstacked"
  assert formulation([4, 5, 10, 10, 32], [4, 3, 3, 32, 32], 1) == "patches"
  assert formulation([None, 75, 42, 42, 32], [None, 3, 3, 32, 32], 1) == "patches"
  assert formulation([4, None, 42, 42, 32], [4, 3, 3, 32, 32], 1) == "patches"


def test_large_patches_are_convolved_one_task_at_a_time_with_the_same_result(monkeypatch):
  x, kernel, bias = normal(3, 2, 8, 7, 2), normal(3, 3, 3, 2, 4), normal(3, 4)
  by_patches = layers.conv2d(x, kernel, bias)
  monkeypatch.setattr(layers, "MAX_PATCHES", 0)
  np.testing.assert_allclose(layers.conv2d(x, kernel, bias), by_patches, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("size", [(8, 8), (7, 5), (21, 21)])
def test_max_pool(size):
  x = normal(3, 2, *size, 4)
  out = layers.max_pool(x)
  for task in range(3):
    np.testing.assert_array_equal(out[task], tf.nn.max_pool2d(x[task], 2, 2, "VALID"))


def test_max_pool_gives_the_gradient_to_one_pixel_of_each_window_in_every_order():
  x, direction = normal(2, 3, 7, 6, 4), normal(2, 3, 7, 6, 4)

  def second(pool):
    with tf.GradientTape() as outer:
      outer.watch(x)
      with tf.GradientTape() as inner:
        inner.watch(x)
        value = tf.reduce_sum(pool(x) ** 3)
      slope = tf.reduce_sum(inner.gradient(value, x) * direction)
    return outer.gradient(slope, x)

  def native(x):
    return tf.stack([tf.nn.max_pool2d(images, 2, 2, "VALID") for images in tf.unstack(x)])

  np.testing.assert_allclose(second(layers.max_pool), second(native), rtol=1e-10)
  with tf.GradientTape() as tape:
    ties = tf.zeros([1, 1, 4, 4, 1])
    tape.watch(ties)
    out = layers.max_pool(ties)
  assert sorted(tape.gradient(out, ties).numpy().ravel()) == [0] * 12 + [1] * 4


@pytest.mark.parametrize("inner", [(), (5, 5)])
def test_batch_norm_uses_the_statistics_of_each_task_or_the_given_ones(inner):
  x, beta = normal(3, 6, *inner, 4), normal(3, 4)
  out, (mean, variance) = layers.batch_norm(x, beta)
  axes = tuple(range(len(inner) + 1))
  for task in range(3):
    values = x[task].numpy()
    expected = (values - values.mean(axes)) / np.sqrt(values.var(axes) + 1e-3) + beta[task].numpy()
    np.testing.assert_allclose(out[task], expected, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(mean[task], values.mean(axes), atol=1e-12)
    np.testing.assert_allclose(variance[task], values.var(axes), rtol=1e-10)
  again, _ = layers.batch_norm(x, beta, (mean, variance))
  np.testing.assert_allclose(again, out, rtol=1e-12)
  shared, _ = layers.batch_norm(x, beta[0], (mean[0], variance[0]))
  np.testing.assert_allclose(shared[0], out[0], rtol=1e-12)


@pytest.mark.parametrize("given", [False, True])
@pytest.mark.parametrize("shared", [False, True])
def test_batch_norm_with_a_bias_and_pooling_is_bias_then_norm_then_pooling(given, shared):
  x, beta, bias = normal(3, 2, 5, 4, 4), normal(3, 4), normal(3, 4)
  statistics = (normal(3, 4), tf.abs(normal(3, 4))) if given else None
  if shared:
    beta, bias = beta[0], bias[0]
  usual, expected = layers.batch_norm(layers.add_bias(x, bias), beta, statistics)
  out, used = layers.batch_norm(x, beta, statistics, bias, layers.max_pool)
  np.testing.assert_allclose(out, layers.max_pool(usual), rtol=1e-10, atol=1e-12)
  for ours, theirs in zip(used, expected, strict=True):
    np.testing.assert_allclose(ours, theirs, rtol=1e-10, atol=1e-12)


def plain_batch_norm(x, beta, statistics, bias, pool):
  """The textbook's order and TensorFlow's own derivatives."""
  x = x + tf.reshape(bias, [-1, 1, 1, 1, bias.shape[-1]])
  if statistics is None:
    mean = tf.reduce_mean(x, [1, 2, 3], keepdims=True)
    variance = tf.reduce_mean((x - mean) ** 2, [1, 2, 3], keepdims=True)
  else:
    mean, variance = (tf.reshape(value, [-1, 1, 1, 1, x.shape[-1]]) for value in statistics)
  out = pool((x - mean) / tf.sqrt(variance + 1e-3) + tf.reshape(beta, [-1, 1, 1, 1, beta.shape[-1]]))
  return out, (tf.reshape(mean, [-1, x.shape[-1]]), tf.reshape(variance, [-1, x.shape[-1]]))


def pool_natively(x):
  return tf.stack([tf.nn.max_pool2d(images, 2, 2, "VALID") for images in tf.unstack(x)])


@pytest.mark.parametrize("given", [False, True])
@pytest.mark.parametrize("shared", [False, True])
def test_batch_norm_has_the_derivatives_of_the_textbooks_formula_up_to_the_third(given, shared):
  """With respect to everything that it takes, and through the statistics that it returns as well as the outputs."""
  vector = (4,) if shared else (3, 4)
  arguments = [normal(3, 2, 5, 4, 4), normal(*vector), normal(*vector)]  # x, beta, bias
  arguments += [normal(3, 4), tf.abs(normal(3, 4)) + 0.5] if given else []
  direction = [normal(*a.shape) for a in arguments]
  readout = normal(3, 2, 2, 2, 4), normal(3, 4), normal(3, 4)

  def first_three(function, pool):
    def value(arguments):
      out, (mean, variance) = function(*arguments[:2], arguments[3:] or None, arguments[2], pool)
      terms = [out**3 * readout[0], mean**3 * readout[1], variance**2 * readout[2]]
      return sum(tf.reduce_sum(term) for term in terms)

    def slope(gradients):
      return sum(tf.reduce_sum(g * d) for g, d in zip(gradients, direction, strict=True))

    zero = tf.UnconnectedGradients.ZERO
    with tf.GradientTape() as third:
      third.watch(arguments)
      with tf.GradientTape() as second:
        second.watch(arguments)
        with tf.GradientTape() as first:
          first.watch(arguments)
          result = value(arguments)
        once = first.gradient(result, arguments, unconnected_gradients=zero)
        along = slope(once)
      twice = second.gradient(along, arguments, unconnected_gradients=zero)
      along = slope(twice)
    return once + twice + third.gradient(along, arguments, unconnected_gradients=zero)

  ours = first_three(layers.batch_norm, layers.max_pool)
  textbook = first_three(plain_batch_norm, pool_natively)
  for a, b in zip(ours, textbook, strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-8 * float(tf.reduce_max(tf.abs(b))))


def test_second_derivatives_of_odd_sizes_and_of_a_bias_without_effect_exist_under_xla_too():
  x, direction = tf.cast(normal(2, 3, 5, 5, 4), tf.float32), tf.cast(normal(2, 3, 5, 5, 4), tf.float32)
  beta, bias = tf.zeros([4]), tf.ones([2, 4])

  def derivatives():
    with tf.GradientTape() as outer:
      outer.watch(x)
      with tf.GradientTape() as inner:
        inner.watch([x, bias])
        out, _ = layers.batch_norm(x, beta, None, bias, layers.max_pool)
        value = tf.reduce_sum(out**3)
      to_x, to_bias = inner.gradient(value, [x, bias])
      slope = tf.reduce_sum(to_x * direction)
    return to_x, to_bias, outer.gradient(slope, x)

  plain, compiled = derivatives(), tf.function(derivatives, jit_compile=True)()
  np.testing.assert_array_equal(plain[1], np.zeros([2, 4]))
  for a, b in zip(plain, compiled, strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("rows", [75 * 84 * 84, 2 * 2027, 1])
def test_statistics_of_many_values_are_exact(rows):
  x = tf.cast(normal(2, rows, 4) + 3.0, tf.float32)
  _, (mean, variance) = layers.batch_norm(x, tf.zeros([4]))
  exact = x.numpy().astype(np.float64)
  np.testing.assert_allclose(mean, exact.mean(1), rtol=2e-6)
  np.testing.assert_allclose(variance, exact.var(1), rtol=5e-6, atol=1e-7)


def test_sums_go_by_blocks_where_the_number_of_rows_allows_it():
  sizes = [layers._block_size(rows) for rows in (75 * 84 * 84, 980, 20, 4054, None, 0)]
  assert sizes == [1008, 980, 20, None, None, None]


def test_layer_norm_normalises_each_example():
  x, gamma, beta = normal(3, 6, 5, 5, 4), normal(4), normal(4)
  out = layers.layer_norm(x, gamma, beta)
  values = x[1, 2].numpy()
  expected = (values - values.mean()) / np.sqrt(values.var() + 1e-12) * gamma.numpy() + beta.numpy()
  np.testing.assert_allclose(out[1, 2], expected, rtol=1e-10, atol=1e-12)


def test_tensorflow_moments_have_wrong_second_derivatives_and_ours_do_not():
  """Why `layers.moments` exists: d^T (d^2 var / dx^2) d against its closed form, 2 (mean(d^2) - mean(d)^2)."""
  x, direction = normal(1, 6, 1), normal(1, 6, 1)

  def second(moments):
    with tf.GradientTape() as outer:
      outer.watch(x)
      with tf.GradientTape() as inner:
        inner.watch(x)
        variance = tf.reduce_sum(moments(x, [1])[1])
      first = tf.reduce_sum(inner.gradient(variance, x) * direction)
    return float(tf.reduce_sum(outer.gradient(first, x) * direction))

  d = direction.numpy().ravel()
  expected = 2 * (np.mean(d**2) - np.mean(d) ** 2)
  assert second(layers.moments) == pytest.approx(expected, rel=1e-10)
  assert second(tf.nn.moments) != pytest.approx(expected, rel=1e-3)
