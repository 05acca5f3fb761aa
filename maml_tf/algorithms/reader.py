"""What learners that read their support set in order have in common: examples with labels, and questions without."""

import tensorflow as tf

from maml_tf import losses, over_tasks, randomness, tracing
from maml_tf.algorithms.features import FeatureLearner, features_of
from maml_tf.errors import UserError


class Reader(FeatureLearner):
  """Reads the features and labels of a support set as a sequence, then answers each query by itself.

  Queries never see each other: each one is the next item after the support set, in a sequence of its own. The support
  set is put in random order in every meta-iteration; adapting reads it in the order that is given.

  Args:
    model: as of `FeatureLearner`.
    loss: "mse" or "crossentropy".
    bn_mode: as of `FeatureLearner`.
    num_outputs: classes, or dimensions of a target. None: as many as the model's head would have.

  Raises:
    UserError: as of `FeatureLearner`; or a number of outputs that neither the model nor the caller says.
  """

  def __init__(self, model, loss="mse", bn_mode="transductive", num_outputs=None):
    super().__init__(model, loss, bn_mode)
    self.num_outputs = model.num_outputs if num_outputs is None else num_outputs
    if self.num_outputs is None:
      raise UserError(f"num_outputs=None: {model.name} does not say how many classes or targets there are; name them")
    self.size = features_of(model)

  def check_batch(self, batch):
    super().check_batch(batch)
    if self.loss is losses.crossentropy:
      losses.check_labels(batch.support_y, self.num_outputs, None, "support_y")

  def read(self, weights, items):
    """What is kept of sequences of items [T, n, `item_size`]: dict by the names in `learned`."""
    raise NotImplementedError(f"{type(self).__name__} must implement read(weights, items)")

  def answer(self, weights, learned, questions):
    """Outputs [T, q, `num_outputs`] for questions [T, q, `item_size`], each the next item by itself."""
    raise NotImplementedError(f"{type(self).__name__} must implement answer(weights, learned, questions)")

  @property
  def item_size(self):
    """Entries of an item: features, a label, and 1 where the label is known."""
    return self.size + self.num_outputs + 1

  def labels_of(self, labels, dtype):
    """One-hot classes, or targets: [T, n, num_outputs]."""
    if self.loss is losses.crossentropy:
      return tf.one_hot(tf.cast(labels, tf.int32), self.num_outputs, dtype=dtype)
    return tf.cast(labels, dtype)

  def learn(self, weights, features, labels, mask):
    if mask is not None:
      raise ValueError(f"support_mask: {type(self).__name__} reads whole sets; give every task as many examples")
    return self.read(weights, items(features, self.labels_of(labels, features.dtype)))

  def compare(self, weights, learned, features):
    shape = tf.concat([tf.shape(features)[:2], [self.num_outputs + 1]], 0)
    return self.answer(weights, learned, tf.concat([features, tf.zeros(shape, features.dtype)], axis=-1))

  @tracing.as_it_stands
  def meta_loss(self, weights, batch, seed=None):
    batch = over_tasks.as_tensors(batch)
    return super().meta_loss(weights, batch if seed is None else shuffled(batch, seed), seed)


def items(features, labels):
  """Features [T, n, D] and labels [T, n, L] as items with a known label, [T, n, D + L + 1]."""
  return tf.concat([features, labels, tf.ones_like(labels[..., :1])], axis=-1)


def shuffled(batch, seed):
  """A `TaskBatch` with the support examples of each task in an order of its own, drawn from the seed."""
  num_tasks, n = over_tasks.num_tasks_of(batch.support_x), tf.shape(batch.support_y)[1]

  def order(task_seed):
    return tf.argsort(randomness.integers(randomness.fold(task_seed, "order"), [n], 2**31 - 1))

  seeds = randomness.per_task(seed, num_tasks)
  order = tf.map_fn(order, seeds, fn_output_signature=tf.TensorSpec([batch.support_y.shape[1]], tf.int32))
  return batch._replace(
    support_x=tf.gather(batch.support_x, order, axis=1, batch_dims=1),
    support_y=tf.gather(batch.support_y, order, axis=1, batch_dims=1),
  )
