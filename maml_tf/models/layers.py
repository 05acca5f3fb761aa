"""Layers as functions with a task axis: inputs are [T, n, ...], each weight is plain (shared) or has a leading T."""

import functools

import numpy as np
import tensorflow as tf

# Bytes of one task's patches above which each task gets a convolution of TensorFlow's own; `conv2d` says why.
MAX_PATCHES = 3_000_000


def dense(x, kernel, bias):
  """x [T, n, i], kernel [i, o] or [T, i, o], bias [o] or [T, o] -> [T, n, o]."""
  return add_bias(tf.matmul(x, kernel), bias)


def conv2d(x, kernel, bias=None, stride=1):
  """3 x 3-like convolution with SAME padding.

  TensorFlow has no convolution with a batch of filter banks, and the formulation follows the size of the patches:

  * up to `MAX_PATCHES` bytes for one task, or where sizes are not known when tracing: one batched product of all
    tasks' patches;
  * above: one convolution for each task, unrolled.

  Measured on two cores with AVX2 and oneDNN, one second-order step in graph mode: miniImageNet (4 tasks, 5 steps, 75
  query images of 84 x 84, 32 filters) took 1.8 s with four times this limit, 2.5 s unrolled throughout, 1.6 s by this
  rule; Omniglot (32 tasks, 5 images of 28 x 28, 64 filters) 0.24 s with patches and 0.37 s unrolled, before its
  normalisation was made faster. Omniglot on 20 ways is even. XLA prefers patches by far: it compiles unrolled tasks for
  minutes.

  Args:
    x: images [T, n, H, W, C].
    kernel: [h, w, C, F], or [T, h, w, C, F] for one filter bank per task.
    bias: [F] or [T, F]; None: no bias.
    stride: the same in both directions.

  Returns:
    [T, n, ceil(H / stride), ceil(W / stride), F].
  """
  if kernel.shape.rank == 4:
    out = _merge_tasks(x, lambda images: tf.nn.conv2d(images, kernel, stride, "SAME"))
  elif _prefers_unstacked(x, kernel, stride):
    out = _conv2d_unstacked(x, kernel, stride)
  else:
    out = _conv2d_per_task(x, kernel, stride)
  return out if bias is None else add_bias(out, bias)


def add_bias(x, bias):
  """x [T, n, ..., C], bias [C] or [T, C]."""
  return x + _over_examples(bias, x.shape.rank)


def _conv2d_per_task(x, kernel, stride):
  """One matrix product for all tasks, on patches."""
  num_tasks, num_examples, height, width, channels = _shape(x)
  _, k_height, k_width, _, filters = _shape(kernel)
  geometry = Patches(height, width, k_height, k_width, stride)
  pixels = tf.reshape(x, [num_tasks * num_examples, height * width, channels])
  patches = tf.reshape(geometry.extract(pixels), [num_tasks, -1, k_height * k_width * channels])
  out = tf.matmul(patches, tf.reshape(kernel, [num_tasks, k_height * k_width * channels, filters]))
  return tf.reshape(out, [num_tasks, num_examples, *geometry.out_size, filters])


def _conv2d_unstacked(x, kernel, stride):
  """One convolution of TensorFlow's own for each task: the package's one loop over tasks, unrolled in the graph."""
  tasks = zip(tf.unstack(x), tf.unstack(kernel, x.shape[0]), strict=True)
  return tf.stack([tf.nn.conv2d(images, filters, stride, "SAME") for images, filters in tasks])


def _prefers_unstacked(x, kernel, stride):
  """Whether the patches of one task are too large; False where the sizes are not known when tracing.

  A single task, as in an exported model, has nothing to batch: without constant indices its graph is a tenth as large.
  """
  if x.shape[0] == 1:
    return True
  if x.shape[0] is None or not (x.shape[1:].is_fully_defined() and kernel.shape[1:].is_fully_defined()):
    return False
  _, num_examples, height, width, _ = x.shape
  patch = kernel.shape[1] * kernel.shape[2] * kernel.shape[3]
  positions = -(-height // stride) * -(-width // stride)
  return num_examples * positions * patch * x.dtype.size > MAX_PATCHES


class Patches:
  """The patches that a convolution with SAME padding sees, and the adjoint, both as gathers with constant indices.

  Each is the other's gradient, so derivatives of any order are gathers too. (`tf.image.extract_patches` has a sparse
  product as its gradient, and slices with a concatenation a chain of paddings: several times slower.)

  Args:
    height: of the image.
    width: of the image.
    k_height: of the kernel.
    k_width: of the kernel.
    stride: in both directions.
  """

  def __init__(self, height, width, k_height, k_width, stride):
    (top, _), out_height = _same_padding(height, k_height, stride)
    (left, _), out_width = _same_padding(width, k_width, stride)
    self.out_size = (out_height, out_width)
    self.window = k_height * k_width
    self.num_pixels = height * width
    rows = np.arange(out_height)[:, None] * stride + np.arange(k_height) - top
    columns = np.arange(out_width)[:, None] * stride + np.arange(k_width) - left
    rows, columns = rows[:, None, :, None], columns[None, :, None, :]
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    # Whatever lies outside of the image reads one more pixel, behind the last, which is zero.
    self._pixel_of_slot = np.where(inside, rows * width + columns, self.num_pixels).astype(np.int32).ravel()
    self._slots_of_pixel = self._invert(self._pixel_of_slot)

  def extract(self, pixels):
    """Pixels [B, H * W, C] -> patches [B, out * window, C]."""

    @tf.custom_gradient
    def extract(pixels):
      return tf.gather(_with_zero(pixels), self._pixel_of_slot, axis=1), self.fold

    return extract(pixels)

  def fold(self, patches):
    """The adjoint: adds every patch entry to the pixel that it was read from, [B, out * window, C] -> [B, H * W, C]."""

    @tf.custom_gradient
    def fold(patches):
      fan = self._slots_of_pixel.shape[1]
      gathered = tf.gather(_with_zero(patches), self._slots_of_pixel.ravel(), axis=1)
      channels = _shape(patches)[2]
      return tf.reduce_sum(tf.reshape(gathered, [-1, self.num_pixels, fan, channels]), axis=2), self.extract

    return fold(patches)

  def _invert(self, pixel_of_slot):
    """[pixels, fan]: the slots that read each pixel, filled up with the slot behind the last, which is zero."""
    slots = [np.flatnonzero(pixel_of_slot == pixel) for pixel in range(self.num_pixels)]
    fan = max(len(found) for found in slots)
    table = np.full((self.num_pixels, fan), len(pixel_of_slot), np.int32)
    for pixel, found in enumerate(slots):
      table[pixel, : len(found)] = found
    return table


def _with_zero(x):
  """[B, m, C] -> [B, m + 1, C], the last entry zero."""
  return tf.pad(x, [[0, 0], [0, 1], [0, 0]])


def max_pool(x):
  """2 x 2 max-pooling, stride 2, VALID: [T, n, H, W, C] -> [T, n, H // 2, W // 2, C].

  The larger of two rows, then of two columns: elementwise, hence with cheap derivatives of any order. (A step of
  second order through a maximum over axes takes three times as long, through `tf.nn.max_pool2d` twice.)
  """
  num_tasks, num_examples, height, width, channels = _shape(x)
  if height % 2 or width % 2:
    x = _crop(x, height % 2, width % 2)
  height, width = height // 2, width // 2
  x = _larger(*tf.unstack(tf.reshape(x, [-1, 2, 2 * width * channels]), axis=1))
  x = _larger(*tf.unstack(tf.reshape(x, [-1, 2, channels]), axis=1))
  return tf.reshape(x, [num_tasks, num_examples, height, width, channels])


def _derivative_by_hand(function):
  """`tf.custom_gradient` where the sizes of an example, and the number of examples, are known when tracing.

  Where they are not, as in an exported model, TensorFlow's own derivative: the same, slower, but a file keeps every
  custom gradient as functions, which would make it half as large again.
  """
  by_hand = tf.custom_gradient(function)

  @functools.wraps(function)
  def run(*arguments):
    if arguments[0].shape[1:].is_fully_defined():
      return by_hand(*arguments)
    return function(*arguments)[0]

  return run


def _crop(x, rows, columns):
  """Without the last rows and columns of [T, n, H, W, C]. Its derivative pads, and that of padding crops.

  (That of `x[:, :, ...]` is many times slower than padding, and under XLA that of `tf.slice` has none of its own.)
  """
  num_tasks, num_examples, height, width, channels = _shape(x)

  @_derivative_by_hand
  def crop(x):
    return tf.slice(x, [0] * 5, [num_tasks, num_examples, height - rows, width - columns, channels]), pad

  @_derivative_by_hand
  def pad(x):
    return tf.pad(x, [[0, 0], [0, 0], [0, rows], [0, columns], [0, 0]]), crop

  return crop(x)


@_derivative_by_hand
def _larger(a, b):
  """`tf.maximum`, with a derivative that takes half the time: TensorFlow selects twice, from values and zeros."""
  difference = a - b

  def gradient(upstream):
    to_a = tf.raw_ops.ReluGrad(gradients=upstream, features=difference)
    return to_a, upstream - to_a

  return tf.maximum(a, b), gradient


def moments(x, axes):
  """Mean and variance with exact derivatives of every order.

  `tf.nn.moments` stops the gradient through the mean inside the variance. Its first derivative is right by an
  identity that does not survive differentiating again, so a meta-gradient through it is wrong.
  """
  mean, variance, _ = _moments_and_centred(x, axes)
  return mean, variance


def _moments_and_centred(x, axes):
  """As `moments`, and x - mean, which normalising needs again: one tensor to differentiate instead of two."""
  mean = tf.reduce_mean(x, axes, keepdims=True)
  centred = x - mean
  return mean, tf.reduce_mean(tf.square(centred), axes, keepdims=True), centred


def batch_norm(x, beta, statistics=None, bias=None, pool=None, epsilon=1e-3):
  """Batch normalisation with a shift and no scale, over all axes but the task's and the last.

  The published networks have no gamma and always use the statistics of the batch at hand, at test time too
  (cbfinn/maml: `tf.contrib.layers.batch_norm`, is_training=True, scale=False, epsilon 0.001).

  On large images a pass over the activations takes as long as their convolution, so passes are saved: the bias of the
  layer before never meets the activations, and pooling comes before scale and shift (both as if in the usual order: a
  maximum stays the maximum under an increasing function).

  Args:
    x: [T, n, ..., C].
    beta: [C] or [T, C].
    statistics: None, or (mean, variance), each [C] or [T, C], to be used instead of the batch's own.
    bias: None, or what is to be added to x first, [C] or [T, C]. The batch's own mean takes it away again.
    pool: None, or a function of [T, n, ..., C] to be applied to the result, `max_pool` or another that does not mind
      whether scale and shift come before or after it.
    epsilon: added to the variance.

  Returns:
    The normalised x, and the (mean, variance) used, each [T, C] or as given.
  """
  # With three axes TensorFlow reduces and broadcasts faster than with five.
  flat = _flat(x)
  if statistics is None:
    # The mean for its own sake: `_centre` has a derivative that need not go through it.
    mean, centred = _mean(flat), _centre(flat)
    variance = _mean_square(centred)
    statistics = (mean[:, 0] if bias is None else mean[:, 0] + bias, variance[:, 0])
    if bias is not None:
      beta = _unaffected_by(bias, beta)
  else:
    mean, variance = (_over_examples(value, 3) for value in statistics)
    centred = _add(flat, -mean if bias is None else _over_examples(bias, 3) - mean)
  out = tf.reshape(centred, _shape(x))
  if pool is not None:
    out = pool(out)
  normalised = _add(_scale(_flat(out), tf.math.rsqrt(variance + epsilon)), _over_examples(beta, 3))
  return tf.reshape(normalised, _shape(out)), statistics


def _flat(x):
  """[T, n, ..., C] -> [T, N, C]."""
  return tf.reshape(x, [_shape(x)[0], -1, x.shape[-1]])


@tf.custom_gradient
def _unaffected_by(bias, value):
  """The value. The gradient of the bias is zero rather than none, for tapes of one's own."""
  return tf.identity(value), lambda upstream: (tf.zeros_like(bias), upstream)


# The arithmetic of batch normalisation on x [T, N, C] and vectors v [T, 1, C], with derivatives made of one another, so
# that those of any order are as cheap. A vector that tasks share, [1, 1, C] or [C], takes their summed
# gradient.

MAX_BLOCK = 1024
MIN_BLOCK = 32


@_derivative_by_hand
def _sum(x):
  """Sum over N -> [T, 1, C].

  On a CPU by matrix products with ones, a block of rows each, and the sum of those: on half a million rows four times
  as fast as `tf.reduce_sum`, and thirty times as exact, for the few roundings. (A GPU would round x to TF32 for them.)
  """
  num_tasks, num_rows, channels = _shape(x)
  block = _block_size(x.shape[1])
  if block is None:
    total = tf.reduce_sum(x, 1, keepdims=True)
  else:
    blocks = tf.matmul(tf.ones([1, 1, block], x.dtype), tf.reshape(x, [-1, block, channels]))
    total = tf.reduce_sum(tf.reshape(blocks, [num_tasks, num_rows // block, channels]), 1, keepdims=True)
  return total, lambda upstream: tf.broadcast_to(upstream, tf.shape(x))


def _block_size(num_rows):
  """The largest divisor up to `MAX_BLOCK`; None where it is small or the number is not known, or with a GPU."""
  if not num_rows or tf.config.list_physical_devices("GPU"):
    return None
  block = next(size for size in range(min(num_rows, MAX_BLOCK), 0, -1) if num_rows % size == 0)
  return block if block >= min(num_rows, MIN_BLOCK) else None


def _mean(x):
  """Mean over N -> [T, 1, C]."""
  return _sum(x) / tf.cast(_shape(x)[1], x.dtype)


@_derivative_by_hand
def _centre(x):
  """x less its mean over N: a projection, hence its own adjoint."""
  return x - _mean(x), _centre


@_derivative_by_hand
def _mean_square(x):
  """Mean of the squares over N -> [T, 1, C]."""
  return _mean(tf.square(x)), lambda upstream: _scale(x, upstream * (2 / tf.cast(_shape(x)[1], x.dtype)))


@_derivative_by_hand
def _scale(x, v):
  """x v."""
  return x * v, lambda upstream: (_scale(upstream, v), _like(_inner(upstream, x), v))


@_derivative_by_hand
def _inner(x, y):
  """Sum over N of x y -> [T, 1, C]."""
  return _sum(x * y), lambda upstream: (_scale(y, upstream), _scale(x, upstream))


@_derivative_by_hand
def _add(x, v):
  """x + v."""
  return x + v, lambda upstream: (upstream, _like(_sum(upstream), v))


def _like(total, v):
  """A gradient [T, 1, C] of the vector v: summed over the tasks where they share it."""
  if v.shape.rank == 1:
    return tf.reduce_sum(total, [0, 1])
  return total if v.shape[0] != 1 else tf.reduce_sum(total, 0, keepdims=True)


def layer_norm(x, gamma, beta, epsilon=1e-12):
  """Layer normalisation over all axes but the task's and the example's (as `tf.contrib.layers.layer_norm`)."""
  rank = x.shape.rank
  _, variance, centred = _moments_and_centred(x, list(range(2, rank)))
  scale, shift = _over_examples(gamma, rank), _over_examples(beta, rank)
  return centred * tf.math.rsqrt(variance + epsilon) * scale + shift


def _over_examples(weight, rank):
  """Makes a vector per task, [T, C], or a shared one, [C], broadcast against activations of that rank."""
  if weight.shape.rank == 1:
    return weight
  return tf.reshape(weight, [-1] + [1] * (rank - 2) + [weight.shape[-1]])


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
