"""What learners without gradient steps have in common: features, and what is kept of those of a support set."""

from typing import ClassVar

import numpy as np
import tensorflow as tf

from maml_tf import losses, over_tasks, tracing
from maml_tf.algorithms.base import Algorithm
from maml_tf.algorithms.maml import MetaParameters, with_bn_mode
from maml_tf.errors import UserError


class FeatureLearner(Algorithm):
  """Keeps something of a support set's features, and answers queries by their features. A subclass says what and how.

  What adapting gives is a dict: the weights, what `learn` returns, and the support set's normalisation statistics where
  `bn_mode` is "support".

  Args:
    model: an `ExplicitModel` without a head.
    loss: "mse" or "crossentropy".
    bn_mode: whose statistics normalise the query examples: "transductive" (their own) or "support" (the support set's).

  Attributes:
    learned: names of what `learn` returns.

  Raises:
    UserError: a loss that does not go with its kinds of domains, or another mode.
  """

  has_steps = False
  needs_head = False
  compiles = False  # loops and numbers of classes are those of the data
  learned: ClassVar[tuple] = ()

  def __init__(self, model, loss="mse", bn_mode="transductive"):
    self.loss = losses.get(loss)
    if self.loss is not losses.crossentropy and "regression" not in self.kinds:
      raise UserError(f"loss={loss}: {type(self).__name__} is for classes; expected crossentropy")
    if self.loss not in losses.LOSSES.values():
      raise UserError(f"loss={loss}: expected one of {', '.join(losses.LOSSES)}, with {type(self).__name__}")
    if bn_mode not in ("transductive", "support"):
      raise UserError(f"bn_mode={bn_mode}: expected transductive or support; {type(self).__name__} keeps no averages")
    self.model, self.bn_mode = model, bn_mode

  @property
  def fixed_variables(self):
    return self.model.fixed_variables

  def initial_weights(self, seed=0):
    return self.model.starting_weights(seed)

  def exported(self, bn_mode):
    return with_bn_mode(self, bn_mode)

  def check_batch(self, batch):
    super().check_batch(batch)
    for name in ("support_x", "query_x"):
      if isinstance(getattr(batch, name), dict | tuple):
        raise ValueError(f"{name}: it has several parts; {type(self).__name__} takes the features of one input")
    if self.loss is losses.crossentropy:
      self._check_labels(batch)
    self.model.apply(self.model.initial_weights(None), tf.convert_to_tensor(batch.query_x)[:1, :2])

  def _check_labels(self, batch):
    support_y, support_mask = np.asarray(batch.support_y), batch.support_mask
    for name, labels in (("support_y", support_y), ("query_y", np.asarray(batch.query_y))):
      if labels.ndim != 2 or labels.dtype.kind not in "iu":
        raise ValueError(
          f"{name}: it has shape {labels.shape} and type {labels.dtype}; {type(self).__name__} expects integers [T, n]"
        )
    classes = support_y if support_mask is None else np.where(np.asarray(support_mask, bool), support_y, 0)
    because, count = "the support set has {} classes", int(classes.max(initial=0)) + 1
    losses.check_labels(support_y, count, support_mask, "support_y", because)
    losses.check_labels(batch.query_y, count, batch.query_mask, "query_y", because)

  def shares_statistics(self):
    return self.bn_mode == "transductive" and self.model.has_statistics

  def learn(self, weights, features, labels, mask):
    """What is kept of support sets.

    Args:
      weights: dict of name -> plain tensor.
      features: [T, n, D].
      labels: integers [T, n], 0 to N - 1; targets [T, n, d] in a regression.
      mask: [T, n], true where an example counts; None: all do.

    Returns:
      Dict of name -> tensor [T, ...], by the names in `learned`.
    """
    raise NotImplementedError(f"{type(self).__name__} must implement learn(weights, features, labels, mask)")

  def compare(self, weights, learned, features):
    """Outputs [T, n, N] at query features [T, n, D]; weights are plain, or the same for every task, [T, ...]."""
    raise NotImplementedError(f"{type(self).__name__} must implement compare(weights, learned, features)")

  def loss_of(self, weights, learned, batch, features):
    """(what training minimises [T], outputs [T, n, N]); here the loss of the outputs."""
    outputs = self.compare(weights, learned, features)
    return self.measure(outputs, batch)["loss"], outputs

  @tracing.as_it_stands
  def meta_loss(self, weights, batch, seed=None):
    del seed
    batch = over_tasks.as_tensors(batch)
    learned, features = self._both_sets(weights, batch)
    loss, outputs = self.loss_of(weights, learned, batch, features)
    measured = self.measure(outputs, batch)
    return tf.reduce_mean(loss), {f"query_{n}/adapted": tf.reduce_mean(v) for n, v in measured.items()}, {}

  @tracing.as_it_stands
  def adapt(self, weights, support_x, support_y, num_updates=0, seed=None):
    del num_updates, seed
    support_x = tf.convert_to_tensor(support_x)
    learned, statistics = self._learn(weights, support_x, support_y)
    return MetaParameters(over_tasks.for_each_task(weights, support_x), {}, statistics).flat() | learned

  @tracing.as_it_stands
  def predict(self, task, x):
    given = MetaParameters.of({name: value for name, value in task.items() if name not in self.learned})
    features = self.model.apply(given.model, x, given.statistics or None)
    return self.compare(given.model, {name: task[name] for name in self.learned}, features)

  @tracing.as_it_stands
  def evaluate(self, weights, batch, num_updates=0, seed=None):
    """{"loss": [1, T]}, and for classes {"accuracy": [1, T]}; the network is shared by the tasks."""
    del num_updates, seed
    batch = over_tasks.as_tensors(batch)
    measured = self.measure(self.compare(weights, *self._both_sets(weights, batch)), batch)
    return {name: values[tf.newaxis] for name, values in measured.items()}

  def _both_sets(self, weights, batch):
    """(what is learned from the support sets, features of the queries)."""
    learned, statistics = self._learn(weights, batch.support_x, batch.support_y, batch.support_mask)
    return learned, self.model.apply(weights, batch.query_x, statistics or None)

  def _learn(self, weights, x, y, mask=None):
    """(what is learned, the statistics to normalise queries by)."""
    features, used = self.model.apply_with_statistics(weights, x)
    return self.learn(weights, features, y, mask), used if self.bn_mode == "support" else {}


def shared(weight, rank):
  """A plain weight, of one that is plain or the same for every task, [T, ...]."""
  return weight if weight.shape.rank == rank else weight[0]


def features_of(model):
  """D, the number of features that a model without a head gives.

  Raises:
    UserError: it is not known before data is.
  """
  weights = {name: tf.TensorSpec(shape) for name, shape in model.weight_shapes.items()}
  inputs = tf.TensorSpec([1, *model.example_shape])
  size = tf.function(model.apply, autograph=False).get_concrete_function(weights, inputs).output_shapes[-1]
  if size is None:
    raise UserError(f"{model.name}: the number of its features is not known; end it in a layer of fixed width")
  return size
