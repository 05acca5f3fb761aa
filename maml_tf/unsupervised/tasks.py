"""Distributions of tasks over images without labels."""

import tensorflow as tf

from maml_tf import randomness
from maml_tf.errors import UserError
from maml_tf.tasks import Episodes, IndexTable, TaskBatch, TaskDistribution

DROPPED = 0.1  # share of the pixels of a grey image that an augmentation leaves out
BRIGHTNESS = 0.4  # how far it goes from 1, either way, in each colour


def over_clusters(images, labels, ways, shots, queries, **of_episodes):
  """Tasks whose classes are clusters of one partition, all equally likely (Hsu et al. 2019, algorithm 1).

  Args:
    images: uint8 [M, H, W, C]; a tensor is not copied.
    labels: int32 [P, M], of `partitions`.
    ways: N, different clusters of a task.
    shots: K.
    queries: per class; K + queries different images of each cluster.
    **of_episodes: `invert`, `dtype` of `tasks.Episodes`.

  Raises:
    UserError: a partition has fewer clusters than `ways` that are large enough.
  """
  table = IndexTable.from_labels(labels, smallest=shots + queries)
  fewest = int(table.num_classes.argmin())
  if table.num_classes[fewest] < ways:
    raise UserError(
      f"ways={ways}: partition {fewest} has only {table.num_classes[fewest]} clusters of {shots + queries} images or "
      "more; make more clusters, or fewer ways, shots or queries"
    )
  return Episodes.from_table(images, table, ways, shots, queries, **of_episodes)


class UMTRA(TaskDistribution):
  """Tasks of N images, each a class of its own; its query images are augmented copies of it.

  Of many images, N at random are of N classes with a high probability. Source: Khodadadeh, Boloni and Shah 2019,
  algorithm 1. Grey images are shifted and lose pixels, as published for Omniglot; colour images are shifted, mirrored
  and change colour.

  Args:
    images: uint8 [M, H, W, C].
    ways: N.
    shots: K; beyond the first, support images are augmented copies too.
    queries: augmented copies of each image.
    shift: most pixels of a shift, in either direction.
    invert: 1 - x, so that ink is 1 (`tasks.Episodes`).
    dtype: of the images.

  Raises:
    UserError: fewer images than ways.
  """

  def __init__(self, images, ways, shots, queries, shift=6, invert=False, dtype=tf.float32):
    if ways > len(images):
      raise UserError(f"ways={ways}: there are only {len(images)} images")
    self.ways, self.shots, self.queries, self.shift, self.invert = ways, shots, queries, shift, invert
    self.dtype = tf.as_dtype(dtype)
    self._images = tf.convert_to_tensor(images)

  def sample(self, seed, num_tasks):
    rows = self._choose(seed, num_tasks)
    x = tf.cast(tf.gather(self._images, rows), self.dtype) / 255.0
    x = 1.0 - x if self.invert else x
    copies = self._augment(randomness.fold(seed, "augment"), self._repeat(x, self.shots - 1 + self.queries))
    support = tf.concat([x[:, :, tf.newaxis], copies[:, :, : self.shots - 1]], axis=2)
    return TaskBatch(*self._arrange(support), *self._arrange(copies[:, :, self.shots - 1 :]))

  def _choose(self, seed, num_tasks):
    """N different images of each task, [T, N]: each a place among those that are left."""
    chosen = []
    for taken in range(self.ways):
      seed_of = randomness.fold(seed, "images", taken)
      place = randomness.integers(seed_of, [num_tasks, 1], len(self._images) - taken)
      for before in tf.split(tf.sort(tf.concat(chosen, 1), axis=1), taken, axis=1) if taken else ():
        place += tf.cast(place >= before, place.dtype)
      chosen.append(place)
    return tf.concat(chosen, axis=1)

  def _repeat(self, x, copies):
    return tf.repeat(x[:, :, tf.newaxis], copies, axis=2)

  def _augment(self, seed, x):
    """Images [T, N, k, H, W, C], each in a way of its own."""
    shape = tf.shape(x)
    flat = tf.reshape(x, [-1, *x.shape[3:]])
    shifts = (
      randomness.integers(randomness.fold(seed, "shift"), [tf.shape(flat)[0], 2], 2 * self.shift + 1) - self.shift
    )
    grey = flat.shape[-1] == 1
    flat = self._drop(seed, flat) if grey else self._recolour(seed, self._mirror(seed, flat))
    return tf.reshape(shifted(shifted(flat, shifts[:, 0], axis=1), shifts[:, 1], axis=2), shape)

  def _drop(self, seed, x):
    kept = randomness.uniform(randomness.fold(seed, "drop"), tf.shape(x), 0.0, 1.0, tf.float32) >= DROPPED
    return tf.where(kept, x, tf.zeros([], x.dtype))

  def _mirror(self, seed, x):
    mirrored = randomness.integers(randomness.fold(seed, "mirror"), [tf.shape(x)[0], 1, 1, 1], 2) == 1
    return tf.where(mirrored, tf.reverse(x, [2]), x)

  def _recolour(self, seed, x):
    shape = [tf.shape(x)[0], 1, 1, x.shape[-1]]
    low, high = 1 - BRIGHTNESS, 1 + BRIGHTNESS
    factor = randomness.uniform(randomness.fold(seed, "colour"), shape, low, high, tf.float32)
    return tf.clip_by_value(x * tf.cast(factor, x.dtype), 0, 1)

  def _arrange(self, x):
    """[T, N, k, H, W, C] as examples [T, N * k, H, W, C] with their labels, int32 [T, N * k]."""
    tasks, k = tf.shape(x)[0], x.shape[2]
    labels = tf.broadcast_to(tf.repeat(tf.range(self.ways), k), [tasks, self.ways * k])
    return tf.reshape(x, [tasks, self.ways * k, *x.shape[3:]]), labels


def shifted(x, by, axis):
  """Images [B, H, W, C] moved along axis 1 or 2 by whole pixels, int32 [B]; zero where nothing moves in."""
  length = x.shape[axis]
  source = tf.range(length) - by[:, tf.newaxis]
  there = tf.logical_and(source >= 0, source < length)
  moved = tf.gather(x, tf.clip_by_value(source, 0, length - 1), axis=axis, batch_dims=1)
  there = there[:, :, tf.newaxis, tf.newaxis] if axis == 1 else there[:, tf.newaxis, :, tf.newaxis]
  return tf.where(there, moved, tf.zeros([], x.dtype))
