"""A classifier of all training classes, then fine-tuning, or the nearest neighbour on its features.

The baselines of Finn et al. 2017, table 1, after Ravi and Larochelle 2017: neither is trained on tasks.
"""

from typing import ClassVar

import tensorflow as tf

from maml_tf import losses, over_tasks, tracing
from maml_tf.algorithms.base import Algorithm
from maml_tf.algorithms.maml import MAML
from maml_tf.algorithms.metric import Metric, members
from maml_tf.algorithms.prototypical import negative_distances

CLASSIFIER = "training/classifier"
HEAD = ("head/kernel", "head/bias")  # of a task


class OfAllClasses:
  """Trains features by a linear layer on them that tells all training classes apart; tasks do not see that layer."""

  trains_on_classes: ClassVar[bool] = True
  needs_head: ClassVar[bool] = False
  kinds: ClassVar[tuple] = ("classification",)

  def initial_weights(self, seed=0):
    """The network's, and the linear layer's: Glorot's uniform weights, as Keras' layers have them."""
    weights = super().initial_weights(seed)
    width = self._width(weights)
    limit = (6.0 / (width + self.training_classes)) ** 0.5
    drawn = tf.random.stateless_uniform([width, self.training_classes], [seed & 0x7FFFFFFF, 7], -limit, limit)
    dtype = next(iter(weights.values())).dtype
    return weights | {
      f"{CLASSIFIER}/kernel": tf.cast(drawn, dtype), f"{CLASSIFIER}/bias": tf.zeros([self.training_classes], dtype)
    }  # fmt: skip

  def _width(self, weights):
    """Number of features."""
    example = tf.zeros([1, *self.model.example_shape], next(iter(weights.values())).dtype)
    return self.model.apply({n: weights[n] for n in self.model.weight_shapes}, example).shape[-1]

  @tracing.as_it_stands
  def meta_loss(self, weights, batch, seed=None):
    """The cross-entropy of all training classes; the labels are those of the classes, not of a task."""
    del seed
    batch = over_tasks.as_tensors(batch)
    features = self.model.apply({n: weights[n] for n in self.model.weight_shapes}, batch.support_x)
    logits = tf.matmul(features, weights[f"{CLASSIFIER}/kernel"]) + weights[f"{CLASSIFIER}/bias"]
    loss = tf.reduce_mean(losses.crossentropy(batch.support_y, logits))
    accuracy = tf.reduce_mean(losses.accuracy(batch.support_y, logits, None))
    return loss, {"classes_loss": loss, "classes_accuracy": accuracy}, {}


class FineTuning(OfAllClasses, MAML):
  """At test time all weights take gradient steps, with a layer for the classes of the task that starts at 0.

  Args:
    model: an `ExplicitModel` without a head.
    loss: "crossentropy".
    inner_lr: of the fine-tuning.
    ways: classes of a task.
    training_classes: classes to train on.
    **settings: as of `MAML`.
  """

  of_data: ClassVar[tuple] = ("ways", "training_classes")

  def __init__(self, model, loss="crossentropy", inner_lr=0.01, *, ways, training_classes, **settings):
    super().__init__(model, loss, inner_lr, **settings)
    self.ways, self.training_classes = ways, training_classes
    self.inner_lr = dict.fromkeys((*model.adapted_names, *HEAD), inner_lr)

  def check_batch(self, batch):
    """Labels are of the training classes or, in a task, of its own."""
    Algorithm.check_batch(self, batch)
    for name in ("support", "query"):
      labels, mask = (getattr(batch, f"{name}_{field}") for field in ("y", "mask"))
      losses.check_labels(labels, max(self.ways, self.training_classes), mask, f"{name}_y")

  def ready_tasks(self, weights):
    del weights
    return []  # before adapting there is no layer for the classes of a task

  @tracing.as_it_stands
  def outputs_of(self, weights, x, statistics=None):
    features, used, penalty = super().outputs_of(weights, x, statistics)
    kernel, bias = (weights[name] for name in HEAD)
    return tf.matmul(features, kernel) + bias[..., tf.newaxis, :], used, penalty

  def _start(self, weights, support_x):
    width = weights[f"{CLASSIFIER}/kernel"].shape[0]
    dtype = tf.convert_to_tensor(weights[f"{CLASSIFIER}/kernel"]).dtype
    fresh = {HEAD[0]: tf.zeros([width, self.ways], dtype), HEAD[1]: tf.zeros([self.ways], dtype)}
    return super()._start({**weights, **fresh}, support_x)


class NearestNeighbour(OfAllClasses, Metric):
  """A query has the class of the support example whose features are nearest: logits are -|f - s|^2 of the nearest.

  What it keeps of a support set are the features, [T, n, D], and of which class each is, [T, n, N].

  Args:
    model: an `ExplicitModel` without a head.
    loss: "crossentropy".
    bn_mode: as of `Metric`.
    training_classes: classes to train on.
  """

  of_data: ClassVar[tuple] = ("training_classes",)
  learned: ClassVar[tuple] = ("support_features", "support_members")

  def __init__(self, model, loss="crossentropy", bn_mode="transductive", *, training_classes):
    super().__init__(model, loss, bn_mode)
    self.training_classes = training_classes

  def learn(self, weights, features, labels, mask):
    del weights
    return {"support_features": features, "support_members": members(labels, features.dtype, mask)}

  def compare(self, weights, learned, features):
    del weights
    near = negative_distances(features, learned["support_features"])[..., tf.newaxis]  # [T, n, S, 1]
    member = learned["support_members"][:, tf.newaxis] > 0  # [T, 1, S, N]
    return tf.reduce_max(tf.where(member, near, near.dtype.min), axis=2)
