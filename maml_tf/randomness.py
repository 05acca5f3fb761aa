"""Stateless randomness: a seed is an int32 tensor of shape [2], and every stream is a fold of the run's seed.

The same seed has to give the same tasks in a graph and under XLA. So the generator is named (`philox`; the default
differs between the two), and floats are made here from random integers: the integers agree, but the two turn them into
floats in different ways (seen with TensorFlow 2.21).
"""

import math
import zlib

import tensorflow as tf

ALGORITHM = "philox"


def name_to_int(name):
  """A non-negative 31-bit integer for a name, the same in every process (Python's `hash` is not)."""
  return zlib.crc32(name.encode()) & 0x7FFFFFFF


def make_seed(seed):
  """The seed tensor, int32 [2], of a non-negative Python integer below 2**62."""
  return tf.constant([seed & 0x7FFFFFFF, (seed >> 31) & 0x7FFFFFFF], tf.int32)


def fold(seed, *path):
  """The seed of a stream: folds each name (str) or index (integer or scalar tensor) of `path` into `seed`."""
  for part in path:
    index = name_to_int(part) if isinstance(part, str) else part
    seed = tf.random.fold_in(tf.cast(seed, tf.int32), tf.cast(index, tf.int32), alg=ALGORITHM)
  return seed


def uniform(seed, shape, low, high, dtype):
  """Uniform floats in [low, high), of dtype tf.float32 (24 random bits) or tf.float64 (53)."""
  dtype = tf.as_dtype(dtype)
  word, bits = {tf.float32: (tf.uint32, 24), tf.float64: (tf.uint64, 53)}[dtype]
  words = tf.random.stateless_uniform(shape, seed, None, None, word, alg=ALGORITHM)
  words = tf.bitwise.right_shift(words, tf.constant(8 * word.size - bits, word))
  return low + (high - low) * (tf.cast(words, dtype) * tf.constant(2.0**-bits, dtype))


def integers(seed, shape, limit):
  """Uniform int32 integers in [0, limit)."""
  return tf.random.stateless_uniform(shape, seed, 0, limit, tf.int32, alg=ALGORITHM)


def per_task(seed, num_tasks):
  """A seed for each task, int32 [T, 2]: it depends on the task's place in the meta-batch alone."""
  places = tf.range(num_tasks, dtype=tf.int32)
  return tf.stack([tf.fill([num_tasks], seed[0]), seed[1] + places], axis=1)


def normal(seed, shape, dtype):
  """Standard normal floats, of dtype tf.float32 or tf.float64, from `uniform` by Box and Muller's transform."""
  first, second = (uniform(fold(seed, part), shape, 0.0, 1.0, dtype) for part in ("radius", "angle"))
  return tf.sqrt(-2.0 * tf.math.log1p(-first)) * tf.cos(2.0 * math.pi * second)
