"""N-way K-shot classification tasks, sampled inside the graph from an image bank in memory."""

import tensorflow as tf

from maml_tf import randomness
from maml_tf.errors import UserError
from maml_tf.tasks.base import TaskBatch, TaskDistribution


class Episodes(TaskDistribution):
  """Tasks of `ways` classes, relabelled 0 to ways - 1 in random order, with different images in support and query set.

  Source: Finn et al. 2017, section 5.2; cbfinn/maml, data_generator.py. There, tasks are drawn once as lists of file
  names and repeat; here every task is drawn afresh.

  Args:
    bank: `datasets.ImageBank`.
    ways: N, classes per task.
    shots: K, support images per class.
    queries: query images per class.
    rotations: turn all images of a class by the same random multiple of 90 degrees in each task (published for
      Omniglot; a task never has the same character twice).
    invert: 1 - x, so that ink is 1 (published for Omniglot).
    dtype: of the images; pixel values are in [0, 1].

  Raises:
    UserError: too few classes, or a class with too few images.
  """

  def __init__(self, bank, ways, shots, queries, rotations=False, invert=False, dtype=tf.float32):
    if ways > len(bank.names):
      raise UserError(f"Episodes(ways={ways}): the data set has only {len(bank.names)} classes in this split")
    smallest = int(bank.sizes.argmin())
    if bank.sizes[smallest] < shots + queries:
      raise UserError(
        f"Episodes(shots={shots}): class {bank.names[smallest]} has {bank.sizes[smallest]} images, but {shots} shots "
        f"and {queries} queries need {shots + queries}; lower shots, or give the class more images"
      )
    self.ways, self.shots, self.queries = ways, shots, queries
    self.rotations, self.invert, self.dtype = rotations, invert, tf.as_dtype(dtype)
    self._images = tf.constant(bank.images)
    self._first = tf.constant(bank.offsets[:-1], tf.int32)
    self._sizes = tf.constant(bank.sizes, tf.int32)
    self._largest = int(bank.sizes.max())

  def sample(self, seed, num_tasks):
    classes = self._choose_classes(randomness.fold(seed, "classes"), num_tasks)
    chosen = self._choose_images(randomness.fold(seed, "images"), num_tasks, classes)
    x = tf.cast(tf.gather(self._images, chosen), self.dtype)  # [T, N, K + Q, H, W, C], 0 to 255
    if self.rotations:
      x = self._rotate(randomness.fold(seed, "rotations"), num_tasks, x)
    x = 1.0 - x / 255.0 if self.invert else x / 255.0
    support_x, support_y = self._arrange(x[:, :, : self.shots], num_tasks)
    query_x, query_y = self._arrange(x[:, :, self.shots :], num_tasks)
    return TaskBatch(support_x, support_y, query_x, query_y)

  def _choose_classes(self, seed, num_tasks):
    """Different classes in random order: [T, N]. The N largest of random keys are a uniform draw."""
    keys = _random_keys(seed, [num_tasks, self._sizes.shape[0]])
    return tf.math.top_k(keys, self.ways).indices

  def _choose_images(self, seed, num_tasks, classes):
    """Different images of each class, as rows of the bank: [T, N, K + Q]."""
    keys = _random_keys(seed, [num_tasks, self.ways, self._largest])
    exists = tf.range(self._largest) < tf.gather(self._sizes, classes)[..., tf.newaxis]
    keys = tf.where(exists, keys, -1)
    chosen = tf.math.top_k(keys, self.shots + self.queries).indices
    return tf.gather(self._first, classes)[..., tf.newaxis] + chosen

  def _rotate(self, seed, num_tasks, x):
    """Turns the images of each class [T, N, S, H, W, C] by its own number of quarter turns."""
    turns = randomness.integers(seed, [num_tasks, self.ways, 1, 1, 1, 1], 4)
    transposed = tf.transpose(x, [0, 1, 2, 4, 3, 5])
    turned = [x, tf.reverse(transposed, [3]), tf.reverse(x, [3, 4]), tf.reverse(transposed, [4])]
    for k in (1, 2, 3):
      x = tf.where(tf.equal(turns, k), turned[k], x)
    return x

  def _arrange(self, x, num_tasks):
    """[T, N, k, H, W, C] as examples [T, N * k, H, W, C] with their labels, int32 [T, N * k]."""
    k = x.shape[2]
    labels = tf.repeat(tf.range(self.ways), k)
    labels = tf.broadcast_to(labels, [num_tasks, self.ways * k])
    return tf.reshape(x, [num_tasks, self.ways * k, *x.shape[3:]]), labels


def _random_keys(seed, shape):
  """Non-negative random int32 keys. Integers: they are the same in a graph and under XLA."""
  words = tf.random.stateless_uniform(shape, seed, None, None, tf.int32, alg=randomness.ALGORITHM)
  return tf.bitwise.bitwise_and(words, 0x7FFFFFFF)
