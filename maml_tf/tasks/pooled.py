"""Images of all classes with the labels of their classes: what a plain classifier is trained on."""

import tensorflow as tf

from maml_tf import randomness
from maml_tf.tasks.base import TaskBatch, TaskDistribution
from maml_tf.tasks.episodes import Episodes


class Pooled(TaskDistribution):
  """Each "task" is a batch of images, of classes drawn with replacement; a label is the class's place in the bank.

  Support and query set are the same images: nothing is adapted.

  Args:
    bank: as of `Episodes`.
    size: images of a batch.
    **settings: as of `Episodes`, beside its sizes.

  Attributes:
    num_classes: of the bank.
  """

  def __init__(self, bank, size, **settings):
    self._episodes, self.size = Episodes(bank, ways=1, shots=1, queries=1, **settings), size
    self.num_classes = len(bank.sizes)

  def sample(self, seed, num_tasks):
    count = num_tasks * self.size
    labels = randomness.integers(randomness.fold(seed, "classes"), [count], self.num_classes)
    x = self._episodes.images_of(seed, labels)
    x = tf.reshape(x, [num_tasks, self.size, *x.shape[1:]])
    y = tf.reshape(labels, [num_tasks, self.size])
    return TaskBatch(x, y, x, y)
