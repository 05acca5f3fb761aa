"""MAML++ (Antoniou, Edwards and Storkey 2019, "how to train your MAML")."""

import tensorflow as tf

from maml_tf import maml as inner_loop
from maml_tf import over_tasks, tracing
from maml_tf.algorithms import checks
from maml_tf.algorithms.maml import MAML, MetaParameters
from maml_tf.maml import LearnedStepSizes

PER_STEP = "per_step/"  # what the names of each step's normalisation begin with
INNER_STEP = PER_STEP + "at"
LEAST_SHARE = 0.03  # AntreasAntoniou/HowToTrainYourMAMLPytorch, get_per_step_loss_importance_vector


class MAMLPlusPlus(MAML):
  """MAML with step sizes of every weight and step, a loss of several steps at first, and first order at first.

  How far training has come is a count among the weights, `training/step`, which no gradient moves. With both numbers of
  iterations 0, loss and gradients are MAML's, and step sizes are learned beside them. The cosine schedule of section 4
  is the meta-optimiser's. Batch normalisation is MAML's: query and support set have their own statistics at every step,
  as in the published code, whose running averages are never read.

  Args:
    model: an `ExplicitModel`.
    loss: as of `MAML`.
    inner_lr: a float, what the step sizes start from.
    num_updates: inner steps in training; later steps repeat the last one's step sizes.
    multi_step_iterations: meta-iterations over which the query losses after earlier steps fade out of the loss; from
      then on, and with 0, the loss is that after the last step.
    first_order_iterations: meta-iterations before second derivatives are taken.
    per_step_norm: a set of the normalisation's weights for every step; the query set has those of the step before, and
      later steps repeat the last one's.
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
    per_step_norm=False,
    **settings,
  ):
    super().__init__(model, loss, LearnedStepSizes(inner_lr, num_steps=num_updates), num_updates, **settings)
    self.multi_step_iterations, self.first_order_iterations = multi_step_iterations, first_order_iterations
    self.per_step_norm = per_step_norm
    self.compiles = not (multi_step_iterations or first_order_iterations)  # XLA refuses gradients through a branch

  def initial_weights(self, seed=0):
    weights = super().initial_weights(seed)
    zero = tf.zeros([], next(iter(weights.values())).dtype)
    if self.per_step_norm:
      rows = {PER_STEP + n: tf.stack([weights[n]] * self.num_updates) for n in self._norm_names()}
      weights = weights | rows | {INNER_STEP: zero}
    return weights | MetaParameters({}, {}, {}, {"step": zero}).flat()

  @tracing.as_it_stands
  def outputs_of(self, weights, x, statistics=None):
    """As of `MAML`, of weights on their way with the normalisation of the step before."""
    return super().outputs_of(self._at_step(weights, -1), x, statistics)

  def _norm_names(self):
    adapted = self.model.adapted_names
    return [name for name in self.model.weight_shapes if name not in adapted]

  def _at_step(self, weights, offset):
    """Weights with the normalisation of the inner step that they have come to, plus `offset`."""
    if INNER_STEP not in weights:
      return weights
    step = tf.cast(tf.round(tf.reshape(weights[INNER_STEP], [-1])[0]), tf.int32) + offset
    row = tf.clip_by_value(step, 0, self.num_updates - 1)
    others = {name: weight for name, weight in weights.items() if not name.startswith(PER_STEP)}
    return others | {name: tf.gather(weights[PER_STEP + name], row) for name in self._norm_names()}

  def _rates(self, given):
    rates = super()._rates(given)
    return [rate | {INNER_STEP: 1.0} for rate in rates] if self.per_step_norm else rates

  def _support_loss(self, start, x, y, mask=None):
    data_loss = super()._support_loss(start, x, y, mask)
    if not self.per_step_norm:
      return data_loss

    def loss_fn(weights):
      # Nothing, whose gradient is -1: a step of 1 counts the steps, among what the inner loop carries.
      count = tf.stop_gradient(weights[INNER_STEP]) - weights[INNER_STEP]
      return data_loss(self._at_step(weights, 0)) + count

    return loss_fn

  def _give_task_axis(self, weights, support_x):
    return super()._give_task_axis(self._at_step(weights, -1), support_x)

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
