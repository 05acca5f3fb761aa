"""Prototypical networks (Snell, Swersky and Zemel 2017): a class is the mean of its support examples' features."""

import tensorflow as tf

from maml_tf import losses, over_tasks, tracing
from maml_tf.algorithms.base import Algorithm
from maml_tf.algorithms.maml import MetaParameters, with_bn_mode
from maml_tf.errors import UserError


class Prototypical(Algorithm):
  """Classifies by the squared Euclidean distance of features to the prototypes (Snell et al. 2017, eq. 1 and 2).

  What adapting gives is a dict: the network's weights, the prototypes [T, N, D] under "prototypes", and the support
  set's normalisation statistics where `bn_mode` is "support".

  Args:
    model: an `ExplicitModel` without a head.
    loss: "crossentropy".
    bn_mode: whose statistics normalise the query examples: "transductive" (their own) or "support" (the support set's).

  Raises:
    UserError: a loss of regression, or another mode.
  """

  has_steps = False
  needs_head = False
  kinds = ("classification",)
  compiles = False  # the number of classes is that of the labels

  def __init__(self, model, loss="crossentropy", bn_mode="transductive"):
    if losses.get(loss) is not losses.crossentropy:
      raise UserError(f"loss={loss}: prototypes are of classes; expected crossentropy")
    if bn_mode not in ("transductive", "support"):
      raise UserError(f"bn_mode={bn_mode}: expected transductive or support; prototypes keep no running averages")
    self.model, self.bn_mode = model, bn_mode

  @property
  def fixed_variables(self):
    return self.model.fixed_variables

  def initial_weights(self, seed=0):
    return self.model.starting_weights(seed)

  def exported(self, bn_mode):
    return with_bn_mode(self, bn_mode)

  def shares_statistics(self):
    return self.bn_mode == "transductive" and self.model.has_statistics

  @tracing.as_it_stands
  def meta_loss(self, weights, batch, seed=None):
    del seed
    measured = self._measure(weights, over_tasks.as_tensors(batch))
    means = {f"query_{name}/adapted": tf.reduce_mean(values) for name, values in measured.items()}
    return tf.reduce_mean(measured["loss"]), means, {}

  @tracing.as_it_stands
  def adapt(self, weights, support_x, support_y, num_updates=0, seed=None):
    del num_updates, seed
    support_x = tf.convert_to_tensor(support_x)
    own, statistics = self._learn(weights, support_x, support_y)
    task = MetaParameters(over_tasks.for_each_task(weights, support_x), {}, statistics).flat()
    return task | {"prototypes": own}

  @tracing.as_it_stands
  def predict(self, task, x):
    given = MetaParameters.of({name: value for name, value in task.items() if name != "prototypes"})
    return negative_distances(self.model.apply(given.model, x, given.statistics or None), task["prototypes"])

  @tracing.as_it_stands
  def evaluate(self, weights, batch, num_updates=0, seed=None):
    """{"loss": [1, T], "accuracy": [1, T]}; the network is shared by the tasks."""
    del num_updates, seed
    return {n: values[tf.newaxis] for n, values in self._measure(weights, over_tasks.as_tensors(batch)).items()}

  def _measure(self, weights, batch):
    own, statistics = self._learn(weights, batch.support_x, batch.support_y, batch.support_mask)
    features = self.model.apply(weights, batch.query_x, statistics or None)
    return self.measure(negative_distances(features, own), batch)

  def _learn(self, weights, x, y, mask=None):
    """(prototypes [T, N, D], the statistics to normalise queries by)."""
    features, used = self.model.apply_with_statistics(weights, x)
    return prototypes(features, y, mask), used if self.bn_mode == "support" else {}


def prototypes(features, labels, mask=None):
  """Means of the features of each class (eq. 1).

  Args:
    features: [T, n, D].
    labels: integers [T, n], 0 to N - 1.
    mask: [T, n], true where an example counts; None: all do.

  Returns:
    [T, N, D].
  """
  labels = tf.cast(labels, tf.int32)
  member = tf.one_hot(labels, tf.reduce_max(labels) + 1, dtype=features.dtype)
  if mask is not None:
    member *= tf.cast(mask, features.dtype)[..., tf.newaxis]
  sums = tf.einsum("tnc,tnd->tcd", member, features)
  return tf.math.divide_no_nan(sums, tf.reduce_sum(member, axis=1)[..., tf.newaxis])


def negative_distances(features, centres):
  """-|f - c|^2, the logits of eq. 2: features [T, n, D], centres [T, N, D] -> [T, n, N]."""
  cross = tf.einsum("tnd,tcd->tnc", features, centres)
  norms = tf.reduce_sum(features**2, -1)[..., tf.newaxis] + tf.reduce_sum(centres**2, -1)[:, tf.newaxis]
  return 2.0 * cross - norms
