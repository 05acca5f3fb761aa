"""MAML++ (Antoniou, Edwards and Storkey 2019, "how to train your MAML")."""

import tensorflow as tf

from maml_tf import maml as inner_loop
from maml_tf import over_tasks, tracing
from maml_tf.algorithms import checks
from maml_tf.algorithms.maml import MAML, MetaParameters
from maml_tf.maml import LearnedStepSizes

LEAST_SHARE = 0.03  # AntreasAntoniou/HowToTrainYourMAMLPytorch, get_per_step_loss_importance_vector


class MAMLPlusPlus(MAML):
  """MAML with step sizes of every weight and step, a loss of several steps at first, and first order at first.

  How far training has come is a count among the weights, `training/step`, which no gradient moves. With both numbers of
  iterations 0, loss and gradients are MAML's, and step sizes are learned beside them. The cosine schedule of section 4
  is the meta-optimiser's. Batch normalisation is MAML's: query and support set have their own statistics at every step,
  as in the published code, whose running averages are never read; a shift for every step is not here.

  Args:
    model: an `ExplicitModel`.
    loss: as of `MAML`.
    inner_lr: a float, what the step sizes start from.
    num_updates: inner steps in training; later steps repeat the last one's step sizes.
    multi_step_iterations: meta-iterations over which the query losses after earlier steps fade out of the loss; from
      then on, and with 0, the loss is that after the last step.
    first_order_iterations: meta-iterations before second derivatives are taken.
    **settings: as of `MAML`, but for `first_order` and `checkpoint_inner_steps`, which keeps no earlier steps.
  """

  def __init__(
    self,
    model,
    loss="mse",
    inner_lr=0.01,
    num_updates=5,
    multi_step_iterations=0,
    first_order_iterations=0,
    **settings,
  ):
    super().__init__(model, loss, LearnedStepSizes(inner_lr, num_steps=num_updates), num_updates, **settings)
    self.multi_step_iterations, self.first_order_iterations = multi_step_iterations, first_order_iterations
    self.compiles = not (multi_step_iterations or first_order_iterations)  # XLA refuses gradients through a branch

  def initial_weights(self, seed=0):
    weights = super().initial_weights(seed)
    return weights | MetaParameters({}, {}, {}, {"step": tf.zeros([], next(iter(weights.values())).dtype)}).flat()

  @tracing.as_it_stands
  def meta_loss(self, weights, batch, seed=None):
    """As `MAML.meta_loss`; the logged query loss is that after the last step, whatever the loss is made of."""
    del seed
    batch = over_tasks.as_tensors(batch)
    step = tf.stop_gradient(MetaParameters.of(weights).training["step"])
    start, rates = self._start(weights, batch.support_x)
    checks.refuse_dropped_derivatives(self, MetaParameters.of(weights).model, rates, batch)

    def of_order(first_order):
      return lambda: self._loss_of_steps(weights, batch, step, start, rates, first_order)

    if self.first_order_iterations:
      found = tf.cond(step < self.first_order_iterations, of_order(True), of_order(False))
    else:
      found = of_order(False)()
    loss, metrics, updates = found
    # Rounded: a mean over chunks of tasks, which adds shares, is a whole number but for rounding.
    return loss, metrics, updates | MetaParameters({}, {}, {}, {"step": tf.round(step) + 1.0}).flat()

  def _loss_of_steps(self, weights, batch, step, start, rates, first_order):
    support_loss = self._support_loss(start, batch.support_x, batch.support_y, batch.support_mask)
    steps, support_losses = inner_loop.unrolled(support_loss, start, rates, self.num_updates, first_order)
    loss, metrics, updates = self._loss_and_metrics(weights, steps[-1], support_losses, batch)
    if self.multi_step_iterations and self.num_updates > 1:
      share = share_of_earlier_steps(step, self.multi_step_iterations, self.num_updates)

      def with_earlier():
        earlier = [tf.reduce_mean(self._query_metrics(w, batch)["loss"]) for w in steps[1:-1]]
        return (1.0 - (self.num_updates - 1) * share) * loss + share * tf.add_n(earlier)

      loss = tf.cond(step < self.multi_step_iterations, with_earlier, lambda: loss)
    return loss, metrics, updates


def share_of_earlier_steps(step, iterations, num_updates):
  """The weight of the query loss after each step but the last; the last one has what is left of 1.

  Source: HowToTrainYourMAMLPytorch, few_shot_learning_system.py, get_per_step_loss_importance_vector, which counts
  epochs: all start equal, and the earlier ones sink to a least share.

  Args:
    step: meta-iterations done, a floating scalar.
    iterations: over which they sink.
    num_updates: S.

  Returns:
    A scalar, at most 1 / S.
  """
  return tf.maximum(1.0 - step / iterations, LEAST_SHARE) / num_updates
