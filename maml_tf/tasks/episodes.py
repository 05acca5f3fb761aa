"""N-way K-shot classification tasks, sampled inside the graph from images in memory."""

from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from maml_tf import randomness
from maml_tf.errors import UserError
from maml_tf.tasks.base import TaskBatch, TaskDistribution
from maml_tf.tasks.index_table import IndexTable


class Episodes(TaskDistribution):
  """Tasks of `ways` classes, relabelled 0 to ways - 1 in random order, with different images in support and query set.

  Source: Finn et al. 2017, section 5.2; cbfinn/maml, data_generator.py. There, tasks are drawn once as lists of file
  names and repeat; here every task is drawn afresh.

  Args:
    bank: `datasets.ImageBank`; `from_table` takes images and an `IndexTable` in its place.
    ways: N, classes per task.
    shots: K, support images per class.
    queries: query images per class.
    rotations: turn all images of a class by the same random multiple of 90 degrees in each task (published for
      Omniglot; a task never has the same character twice).
    invert: 1 - x, so that ink is 1 (published for Omniglot).
    dtype: of the images; pixel values are in [0, 1].

  Attributes:
    said: what errors call this, and an example.

  Raises:
    UserError: too few classes, or a class with too few images.
  """

  said = ("Episodes", "images")

  def __init__(
    self,
    bank: Any,
    ways: int,
    shots: int,
    queries: int,
    rotations: bool = False,
    invert: bool = False,
    dtype: tf.DType = tf.float32,
  ):
    side_by_side = not isinstance(bank, LabelledImages)
    table = IndexTable(np.arange(bank.offsets[-1]), bank.offsets, names=bank.names) if side_by_side else bank.table
    _check(self.said, table, ways, shots, queries)
    self.ways, self.shots, self.queries = ways, shots, queries
    self.rotations, self.invert, self.dtype = rotations, invert, tf.as_dtype(dtype)
    self._images = tf.convert_to_tensor(bank.images)
    self._members = None if side_by_side else tf.constant(table.members, tf.int32)
    self._first = tf.constant(table.offsets[:-1], tf.int32)
    self._sizes = tf.constant(table.sizes, tf.int32)
    self._largest = int(table.sizes.max())
    self._first_class = tf.constant(table.labellings[:-1], tf.int32)
    self._num_classes = tf.constant(table.num_classes, tf.int32)

  @classmethod
  def from_table(cls, images: Any, table: IndexTable, *args, **kwargs) -> "Episodes":
    """Episodes whose classes are those of a table.

    Args:
      images: uint8 [M, H, W, C]; a tensor is not copied.
      table: `IndexTable` of rows of `images`. Of several labellings each task draws one, all equally likely, and its
        classes from that one alone.
      *args, **kwargs: as of `Episodes`, after `bank`.

    Raises:
      UserError: a labelling with too few classes, or a class with too few images.
      ValueError: the table has a row that is no image.
    """
    if table.members.max() >= len(images):
      raise ValueError(f"Episodes.from_table: the table has row {table.members.max()}, there are {len(images)} images")
    return cls(LabelledImages(images, table), *args, **kwargs)

  def sample(self, seed, num_tasks):
    classes = self._choose_classes(seed, num_tasks)
    chosen = self._choose_images(randomness.fold(seed, "images"), num_tasks, classes)
    x = self._prepare(seed, num_tasks, tf.gather(self._images, chosen))
    support_x, support_y = self._arrange(x[:, :, : self.shots], num_tasks)
    query_x, query_y = self._arrange(x[:, :, self.shots :], num_tasks)
    return TaskBatch(support_x, support_y, query_x, query_y)

  def images_of(self, seed, classes):
    """A random image of each class [n], as the network sees it: [n, H, W, C]."""
    count = tf.shape(classes)[0] if classes.shape[0] is None else classes.shape[0]
    chosen = self._choose_images(randomness.fold(seed, "images"), count, classes[:, tf.newaxis])
    return self._prepare(seed, count, tf.gather(self._images, chosen[:, :, :1]))[:, 0, 0]

  def _prepare(self, seed, num_tasks, chosen):
    """Bytes [T, N, K + Q, H, W, C] as the floats that a network sees."""
    x = tf.cast(chosen, self.dtype)
    if self.rotations:
      x = self._rotate(randomness.fold(seed, "rotations"), num_tasks, x)
    return 1.0 - x / 255.0 if self.invert else x / 255.0

  def _choose_classes(self, seed, num_tasks):
    """Different classes of one labelling in random order: [T, N]. The N largest of random keys are a uniform draw."""
    most = max(self._num_classes.numpy())
    keys = _random_keys(randomness.fold(seed, "classes"), [num_tasks, most])
    num_labellings = self._num_classes.shape[0]
    if num_labellings == 1:
      return tf.math.top_k(keys, self.ways).indices
    labelling = randomness.integers(randomness.fold(seed, "labelling"), [num_tasks], num_labellings)
    exists = tf.range(most) < tf.gather(self._num_classes, labelling)[:, tf.newaxis]
    chosen = tf.math.top_k(tf.where(exists, keys, -1), self.ways).indices
    return tf.gather(self._first_class, labelling)[:, tf.newaxis] + chosen

  def _choose_images(self, seed, num_tasks, classes):
    """Different images of each class, as rows of the images: [T, N, K + Q]."""
    keys = _random_keys(seed, [num_tasks, self.ways, self._largest])
    exists = tf.range(self._largest) < tf.gather(self._sizes, classes)[..., tf.newaxis]
    keys = tf.where(exists, keys, -1)
    chosen = tf.math.top_k(keys, self.shots + self.queries).indices
    places = tf.gather(self._first, classes)[..., tf.newaxis] + chosen
    return places if self._members is None else tf.gather(self._members, places)

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


class LabelledImages(NamedTuple):
  """Stands where a bank does."""

  images: Any
  table: IndexTable


def _check(said, table, ways, shots, queries):
  """Refuses sizes of tasks that the classes cannot give."""
  who, examples = said
  for name, value in (("ways", ways), ("shots", shots), ("queries", queries)):
    if value < 1:
      raise UserError(f"{who}({name}={value}): expected 1 or more")
  if ways > table.num_classes.min():
    where = "the data set" if len(table.num_classes) == 1 else f"labelling {table.num_classes.argmin()} of the data set"
    raise UserError(f"{who}(ways={ways}): {where} has only {table.num_classes.min()} classes in this split")
  smallest = int(table.sizes.argmin())
  if table.sizes[smallest] < shots + queries:
    raise UserError(
      f"{who}(shots={shots}): class {table.names[smallest]} has {table.sizes[smallest]} {examples}, but {shots} shots "
      f"and {queries} queries need {shots + queries}; lower shots, or give the class more {examples}"
    )


def _random_keys(seed, shape):
  """Non-negative random int32 keys. Integers: they are the same in a graph and under XLA."""
  words = tf.random.stateless_uniform(shape, seed, None, None, tf.int32, alg=randomness.ALGORITHM)
  return tf.bitwise.bitwise_and(words, 0x7FFFFFFF)
