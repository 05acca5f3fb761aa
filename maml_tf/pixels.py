"""Pictures as a network's inputs, inside a graph: so an exported artefact takes pictures of any size."""

import tensorflow as tf

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, as Pillow makes grey of colours


def prepare(pictures, size, channels, value_range, inverted):
  """Inputs of pictures of any size.

  Args:
    pictures: [n, h, w, C] with C = 1 or 3, uint8, or floats in [0, 1].
    size: (height, width) to resize to, with Lanczos filtering as `datasets.image_bank.decode` does.
    channels: 1 or 3, of the inputs.
    value_range: (value of black, value of white).
    inverted: whether dark pixels get the high values.

  Returns:
    float32 [n, height, width, channels].
  """
  x = tf.cast(pictures, tf.float32)
  x = x / 255.0 if pictures.dtype.is_integer else x
  if channels == 1 and x.shape[-1] == 3:
    x = tf.tensordot(x, tf.constant(LUMA), 1)[..., tf.newaxis]
  x = tf.image.resize(x, size, tf.image.ResizeMethod.LANCZOS3, antialias=True)
  x = tf.clip_by_value(x, 0.0, 1.0)  # the filter overshoots at edges; bytes cannot
  if channels == 3 and x.shape[-1] == 1:
    x = tf.repeat(x, 3, axis=-1)
  return to_range(x, value_range, inverted)


def to_range(x, value_range, inverted):
  """Values in [0, 1] as a network has them: an array or tensor."""
  low, high = value_range
  x = 1.0 - x if inverted else x
  return x if (low, high) == (0.0, 1.0) else low + (high - low) * x
