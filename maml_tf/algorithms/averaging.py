"""Averaged parameters of separate regressors, then fine-tuning (Finn et al. 2017, appendix C.1)."""

import tensorflow as tf

from maml_tf import over_tasks, tracing
from maml_tf.algorithms.maml import MAML, MetaParameters
from maml_tf.errors import UserError

REGULARISERS = ("none", "l2", "mean")
SOLVED = 0.02  # of the appendix: the error that each regressor is trained to


class Averaging(MAML):
  """One network for each of a fixed set of tasks, all trained at once along the task axis; their mean is fine-tuned.

  Every meta-batch holds the same tasks in the same order: the regressor of each is among the weights, as
  `training/regressors/NAME` [R, ...]. The model's own weights are the mean of the regressors, as they were before the
  last step. It adapts at test time as MAML does.

  Args:
    model: an `ExplicitModel`.
    loss: as of `MAML`.
    inner_lr: as of `MAML`, of fine-tuning.
    num_regressors: R, tasks of a meta-batch.
    regulariser: "none"; "l2", the squared length of each regressor's weights; or "mean", that of their distance to the
      mean of the regressors before it. The paper trains them one after another, towards "the mean parameter vector
      thus far": here all move at once, and come to rest where they would one by one, since none depends on later ones.
    regulariser_strength: what it is multiplied by; in the paper "as high as possible without significantly deterring
      performance".
    **settings: as of `MAML`.

  Raises:
    UserError: another regulariser.
  """

  def __init__(
    self,
    model,
    loss="mse",
    inner_lr=0.01,
    num_regressors=500,
    regulariser="none",
    regulariser_strength=0.001,
    **settings,
  ):
    super().__init__(model, loss, inner_lr, **settings)
    if regulariser not in REGULARISERS:
      raise UserError(f"regulariser={regulariser}: expected one of {', '.join(REGULARISERS)}")
    self.num_regressors, self.regulariser = num_regressors, regulariser
    self.regulariser_strength = regulariser_strength

  def initial_weights(self, seed=0):
    """Every regressor starts from weights of its own."""
    drawn = [self.model.initial_weights(seed * self.num_regressors + r) for r in range(self.num_regressors)]
    regressors = {name: tf.stack([weights[name] for weights in drawn]) for name in self.model.weight_shapes}
    return MetaParameters(_mean(regressors), {}, {}, {f"regressors/{n}": w for n, w in regressors.items()}).flat()

  @tracing.as_it_stands
  def meta_loss(self, weights, batch, seed=None):
    """The mean of the regressors' losses; its gradient is each regressor's own, not a share of the mean."""
    del seed
    batch = over_tasks.as_tensors(batch)
    num_tasks = batch.support_x.shape[0]
    if num_tasks != self.num_regressors:
      raise ValueError(f"batch: it has {num_tasks} tasks, expected {self.num_regressors}, one for each regressor")
    given = MetaParameters.of(weights).training
    regressors = {name: given[f"regressors/{name}"] for name in self.model.weight_shapes}
    outputs, _, penalty = self.outputs_of(regressors, batch.support_x)
    support = batch.support_x, batch.support_mask
    errors = self.task_losses(batch.support_y, outputs, batch.support_mask, support, penalty)
    total = tf.reduce_sum(errors) + self._regularisation(regressors)
    mean, solved = tf.reduce_mean(errors), tf.reduce_mean(tf.cast(errors < SOLVED, errors.dtype))
    metrics = {"support_loss/regressors": mean, f"support_loss/share_below_{SOLVED:g}": solved}
    return total + tf.stop_gradient(mean - total), metrics, _mean(regressors)

  def _regularisation(self, regressors):
    if self.regulariser == "none":
      return 0.0
    away = regressors
    if self.regulariser == "mean":
      away = {name: weight[1:] - _mean_thus_far(weight) for name, weight in regressors.items()}
    return self.regulariser_strength * tf.add_n([tf.reduce_sum(weight**2) for weight in away.values()])


def _mean_thus_far(weight):
  """Of [R, ...], for each but the first the mean of those before it, [R - 1, ...]; it does not move for their sake."""
  counts = tf.range(1, weight.shape[0], dtype=weight.dtype)
  sums = tf.cumsum(weight)[:-1]
  return tf.stop_gradient(sums / tf.reshape(counts, [-1] + [1] * (weight.shape.rank - 1)))


def _mean(regressors):
  return {name: tf.reduce_mean(weight, axis=0) for name, weight in regressors.items()}
