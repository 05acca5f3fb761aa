"""While a model is traced: exact stand-ins for what TensorFlow differentiates once and no more.

Some functions of TensorFlow have a first derivative whose own derivative is missing or wrong, so that a meta-gradient
through them is wrong without a word (`tf.nn.moments`, `tf.image.resize`), impossible (`tf.nn.softsign`) or zero
(`tf.recompute_grad`). There is no public switch, so they are replaced where Keras and layers of one's own look them up,
while a model is traced and for the thread that traces it. What is not replaced, `derivatives` finds and refuses.
"""

import contextlib
import functools
import inspect
import threading
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from maml_tf.models import layers

HALF = (tf.float16, tf.bfloat16)

_patch_lock = threading.RLock()


@contextlib.contextmanager
def replaced(replacements):
  """Within this scope and in this thread, attributes are others.

  Args:
    replacements: list of (owner, name, function of the original that returns its replacement).
  """
  thread = threading.get_ident()

  def for_this_thread(original, replacement):
    @functools.wraps(original)
    def chosen(*args, **kwargs):
      return (replacement if threading.get_ident() == thread else original)(*args, **kwargs)

    return chosen

  with _patch_lock:
    originals = [(owner, name, getattr(owner, name)) for owner, name, _ in replacements]
    try:
      for (owner, name, original), (_, _, make) in zip(originals, replacements, strict=True):
        setattr(owner, name, for_this_thread(original, make(original)))
      yield
    finally:
      for owner, name, original in reversed(originals):
        setattr(owner, name, original)


def exact_derivatives():
  """Within this scope, functions of TensorFlow and Keras have exact derivatives of every order."""
  nn, image = tf.compat.v1.nn, tf.compat.v1.image
  return replaced(
    [
      (keras.src.backend.nn, "moments", lambda _: _keras_moments),
      (tf.nn, "moments", lambda _: _moments),
      (nn, "moments", lambda _: _moments_v1),
      (nn, "fused_batch_norm", lambda _: _fused_batch_norm),
      *((tf.raw_ops, f"FusedBatchNorm{version}", lambda _: _fused_batch_norm_op) for version in ("", "V2", "V3")),
      *((owner, "softsign", lambda _: _softsign) for owner in (tf.nn, tf.math, nn)),
      (tf.raw_ops, "Softsign", lambda _: _softsign),
      (tf, "recompute_grad", lambda _: _as_it_is),
      (keras.src.backend.core, "remat", lambda _: _as_it_is),
      (tf.image, "resize", _by_matrices),
      *((image, name, _by_matrices) for name in ("resize", "resize_images")),
      *((image, f"resize_{method}", _by_matrices) for method in ("bilinear", "bicubic", "nearest_neighbor")),
      *((tf.raw_ops, f"Resize{method}", _by_matrices) for method in ("Bilinear", "Bicubic", "NearestNeighbor")),
    ]
  )


@contextlib.contextmanager
def exact_normalisation(batch_statistics, derivatives=True):
  """Within this scope, models have exact derivatives, and batch normalisation the statistics that it is told.

  Args:
    batch_statistics: whether batch normalisation uses the batch at hand, and leaves its plain mean and variance in
      the moving ones, although the model runs with training=False. (A layer frozen with `trainable = False` uses its
      moving statistics, as in Keras.)
    derivatives: False: of the first order alone, which TensorFlow's own functions have, in less memory.
  """

  def told(original):
    def call(self, inputs, training=None, mask=None):
      momentum, self.momentum = self.momentum, 0.0
      try:
        return original(self, inputs, training=batch_statistics, mask=mask)
      finally:
        self.momentum = momentum

    return call

  with (
    exact_derivatives() if derivatives else contextlib.nullcontext(),
    replaced([(keras.layers.BatchNormalization, "call", told)]),
  ):
    yield


def _as_it_is(function, *_, **__):
  # To recompute is to have no gradient around an inner tape; `checkpoint_inner_steps` saves that memory instead.
  return function


def _softsign(features, name=None):
  features = tf.convert_to_tensor(features)
  return tf.divide(features, 1 + tf.abs(features), name=name)


def _moments(x, axes, shift=None, keepdims=False, name=None):
  """`tf.nn.moments`, which stops the gradient through the mean."""
  x = tf.convert_to_tensor(x)
  with tf.name_scope(name or "moments"):
    mean, variance = layers.moments(tf.cast(x, tf.float32) if x.dtype in HALF else x, axes)
    if not keepdims:
      mean, variance = tf.squeeze(mean, axes), tf.squeeze(variance, axes)
    return tf.cast(mean, x.dtype), tf.cast(variance, x.dtype)


def _moments_v1(x, axes, shift=None, name=None, keep_dims=None, keepdims=None):
  return _moments(x, axes, keepdims=bool(keep_dims or keepdims), name=name)


def _keras_moments(x, axes, keepdims=False, synchronized=False):
  # Never synchronised: the statistics are a task's own, and a task is on one replica.
  return _moments(x, axes, keepdims=keepdims)


def _fused_batch_norm(
  x, scale, offset, mean=None, variance=None, epsilon=0.001, data_format="NHWC", is_training=True, name=None,
  exponential_avg_factor=1.0,
):  # fmt: skip
  """`tf.compat.v1.nn.fused_batch_norm`: the kernel's second derivative stops the gradient through the mean."""
  x = tf.convert_to_tensor(x)
  wide = tf.cast(x, tf.float32) if x.dtype in HALF else x
  channel = 1 if _text(data_format).startswith("NC") else x.shape.rank - 1
  axes = [axis for axis in range(x.shape.rank) if axis != channel]

  def spread(vector):
    return tf.reshape(vector, [-1 if axis == channel else 1 for axis in range(x.shape.rank)])

  with tf.name_scope(name or "fused_batch_norm"):
    running = mean, variance
    if is_training:
      mean, variance = (tf.squeeze(value, axes) for value in layers.moments(wide, axes))
      count = tf.cast(tf.size(wide) // tf.shape(wide)[channel], wide.dtype)
      running = _moved(running, (mean, variance * count / tf.maximum(count - 1, 1)), exponential_avg_factor)
    normalised = (wide - spread(mean)) * tf.math.rsqrt(spread(variance) + epsilon)
    return tf.cast(normalised * spread(scale) + spread(offset), x.dtype), *running


def _moved(running, new, factor):
  if factor == 1:
    return new
  return tuple((1 - factor) * old + factor * value for old, value in zip(running, new, strict=True))


class _FusedOutputs(NamedTuple):
  """As the operations return them; the last three are what their kernels keep for their own gradient."""

  y: Any
  batch_mean: Any
  batch_variance: Any
  reserve_space_1: Any
  reserve_space_2: Any
  reserve_space_3: Any = None


def _fused_batch_norm_op(
  x, scale, offset, mean, variance, epsilon=0.0001, exponential_avg_factor=1.0, data_format="NHWC", is_training=True,
  name=None,
):  # fmt: skip
  y, mean, variance = _fused_batch_norm(
    x, scale, offset, mean, variance, epsilon, data_format, is_training, name, exponential_avg_factor
  )
  return _FusedOutputs(y, mean, variance, mean, variance)


def _text(value):
  return value.decode() if isinstance(value, bytes) else value


def _by_matrices(original):
  """A resizing function as two products with constant matrices, which it shows us by resizing unit vectors.

  Every method of TensorFlow is linear in the image and does rows and columns apart. The result has the dtype that
  TensorFlow gives, but for float64, which stays (its kernels round to float32).
  """
  signature = inspect.signature(original)

  @functools.wraps(original)
  def resize(*args, **kwargs):
    settings = signature.bind(*args, **kwargs).arguments
    images, size, name = tf.convert_to_tensor(settings.pop("images")), settings.pop("size"), settings.pop("name", None)
    if not images.dtype.is_floating or images.shape.rank not in (3, 4) or settings.get("preserve_aspect_ratio", False):
      return original(images=images, size=size, name=name, **settings)
    method = functools.partial(original, **settings)
    dtype = images.dtype
    if dtype != tf.float64:
      dtype = method(images=tf.zeros([1, 1, 1, 1], dtype), size=[1, 1]).dtype
    sizes = tf.get_static_value(size) if tf.is_tensor(size) else size
    new_height, new_width = (size[0], size[1]) if sizes is None else sizes
    with tf.name_scope(name or "resize"):
      rows = tf.cast(_resizing_matrix(method, images, -3, new_height), dtype)
      columns = tf.cast(_resizing_matrix(method, images, -2, new_width), dtype)
      resized = tf.einsum("...hwc,Hh->...Hwc", tf.cast(images, dtype), rows)
      return tf.einsum("...hwc,Ww->...hWc", resized, columns)

  return resize


def _resizing_matrix(method, images, axis, new):
  """[new, old]: what resizing does to a line of pixels. A constant where the sizes are known when tracing."""

  def of_units(old, new):
    units = tf.reshape(tf.eye(old), [1, old, 1, old])
    return tf.reshape(method(images=units, size=[new, 1]), [new, old])

  old, known = images.shape[axis], tf.get_static_value(new)
  if old is None or known is None:
    return of_units(tf.shape(images)[axis], new)
  with tf.init_scope():  # as a constant: XLA has no kernel for some of the methods
    values = of_units(old, int(known)).numpy()
  return tf.constant(values)
