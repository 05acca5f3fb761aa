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


@pytest.mark.parametrize("size", [(8, 8), (7, 5), (21, 21)])
def test_max_pool(size):
  x = normal(3, 2, *size, 4)
  out = layers.max_pool(x)
  for task in range(3):
    np.testing.assert_array_equal(out[task], tf.nn.max_pool2d(x[task], 2, 2, "VALID"))


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
