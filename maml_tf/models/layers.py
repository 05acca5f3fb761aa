"""Layers as functions with a task axis: inputs are [T, n, ...], each weight is plain (shared) or has a leading T."""

import tensorflow as tf


def dense(x, kernel, bias):
  """x [T, n, i], kernel [i, o] or [T, i, o], bias [o] or [T, o] -> [T, n, o]."""
  return tf.matmul(x, kernel) + _over_examples(bias, x.shape.rank)


def conv2d(x, kernel, bias, stride=1):
  """3 x 3-like convolution with SAME padding.

  Args:
    x: images [T, n, H, W, C].
    kernel: [h, w, C, F], or [T, h, w, C, F] for one filter bank per task.
    bias: [F] or [T, F].
    stride: the same in both directions.

  Returns:
    [T, n, ceil(H / stride), ceil(W / stride), F].
  """
  if kernel.shape.rank == 4:
    out = _merge_tasks(x, lambda images: tf.nn.conv2d(images, kernel, stride, "SAME"))
  else:
    out = _conv2d_per_task(x, kernel, stride)
  return out + _over_examples(bias, out.shape.rank)


def _conv2d_per_task(x, kernel, stride):
  """One matrix product for all tasks, on patches.

  TensorFlow has no convolution with a batch of filter banks; a grouped convolution was several times slower,
  and derivatives of `extract_patches` are slow, so the h * w shifted views are sliced and concatenated.
  """
  num_tasks, num_examples, height, width, channels = _shape(x)
  _, k_height, k_width, _, filters = _shape(kernel)
  pad_y, out_height = _same_padding(height, k_height, stride)
  pad_x, out_width = _same_padding(width, k_width, stride)
  padded = tf.pad(x, [[0, 0], [0, 0], pad_y, pad_x, [0, 0]])
  views = [
    padded[:, :, i : i + stride * (out_height - 1) + 1 : stride][:, :, :, j : j + stride * (out_width - 1) + 1 : stride]
    for i in range(k_height)
    for j in range(k_width)
  ]
  patch_size = k_height * k_width * channels
  patches = tf.reshape(tf.concat(views, axis=-1), [num_tasks, -1, patch_size])
  out = tf.matmul(patches, tf.reshape(kernel, [num_tasks, patch_size, filters]))
  return tf.reshape(out, [num_tasks, num_examples, out_height, out_width, filters])


def max_pool(x):
  """2 x 2 max-pooling, stride 2, VALID: [T, n, H, W, C] -> [T, n, H // 2, W // 2, C]."""
  num_tasks, num_examples, height, width, channels = _shape(x)
  height, width = height // 2, width // 2
  x = x[:, :, : 2 * height, : 2 * width]
  windows = tf.reshape(x, [num_tasks, num_examples, height, 2, width, 2, channels])
  return tf.reduce_max(windows, axis=[3, 5])


def moments(x, axes):
  """Mean and variance with exact derivatives of every order.

  `tf.nn.moments` stops the gradient through the mean inside the variance. Its first derivative is right by an
  identity that does not survive differentiating again, so a meta-gradient through it is wrong.
  """
  mean = tf.reduce_mean(x, axes, keepdims=True)
  variance = tf.reduce_mean(tf.math.squared_difference(x, mean), axes, keepdims=True)
  return mean, variance


def batch_norm(x, beta, statistics=None, epsilon=1e-3):
  """Batch normalisation with a shift and no scale, over all axes but the task's and the last.

  The published networks have no gamma and always use the statistics of the batch at hand, at test time too
  (cbfinn/maml: `tf.contrib.layers.batch_norm`, is_training=True, scale=False, epsilon 0.001).

  Args:
    x: [T, n, ..., C].
    beta: [C] or [T, C].
    statistics: None, or (mean, variance), each [C] or [T, C], to be used instead of the batch's own.

  Returns:
    The normalised x, and the (mean, variance) used, each [T, C] or as given.
  """
  rank = x.shape.rank
  if statistics is None:
    mean, variance = moments(x, list(range(1, rank - 1)))
    statistics = (_drop_inner_axes(mean), _drop_inner_axes(variance))
  else:
    mean, variance = (_over_examples(value, rank) for value in statistics)
  return (x - mean) * tf.math.rsqrt(variance + epsilon) + _over_examples(beta, rank), statistics


def layer_norm(x, gamma, beta, epsilon=1e-12):
  """Layer normalisation over all axes but the task's and the example's (as `tf.contrib.layers.layer_norm`)."""
  rank = x.shape.rank
  mean, variance = moments(x, list(range(2, rank)))
  scale, shift = _over_examples(gamma, rank), _over_examples(beta, rank)
  return (x - mean) * tf.math.rsqrt(variance + epsilon) * scale + shift


def _over_examples(weight, rank):
  """Makes a vector per task, [T, C], or a shared one, [C], broadcast against activations of that rank."""
  if weight.shape.rank == 1:
    return weight
  return tf.reshape(weight, [-1] + [1] * (rank - 2) + [weight.shape[-1]])


def _drop_inner_axes(x):
  return tf.squeeze(x, list(range(1, x.shape.rank - 1)))


def _merge_tasks(x, function):
  """Applies a function of [batch, ...] to [T, n, ...]."""
  num_tasks, num_examples = _shape(x)[:2]
  out = function(tf.reshape(x, [num_tasks * num_examples, *_shape(x)[2:]]))
  return tf.reshape(out, [num_tasks, num_examples, *_shape(out)[1:]])


def _same_padding(size, kernel, stride):
  """TensorFlow's SAME rule: (before, after) and the output size, for static sizes."""
  out = -(-size // stride)
  total = max((out - 1) * stride + kernel - size, 0)
  return [total // 2, total - total // 2], out


def _shape(x):
  """Sizes as Python integers where they are known, as scalar tensors where not."""
  dynamic = tf.shape(x)
  return [dynamic[i] if size is None else size for i, size in enumerate(x.shape)]
