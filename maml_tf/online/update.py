"""The update procedure (Finn et al. 2019, algorithm 2, line 8): gradient steps on all data of the current task."""

import copy

import tensorflow as tf

from maml_tf.algorithms.base import Algorithm

REDUCTIONS = ("mean", "sum_over_k")


class UpdateProcedure(Algorithm):
  """An algorithm of the MAML family, with the steps that it takes when it is used.

  Args:
    algorithm: `MAML` or a relative, with fixed step sizes: the meta-update is its own `meta_loss`.
    steps: gradient steps on all data of the current task; 0: the weights are used as they are.
    reduction: "mean": the step descends the mean loss. "sum_over_k": the sum over the examples divided by
      `inner_batch`, as published: the step grows with the data, n / inner_batch times that of the mean.
    inner_batch: support examples in the meta-update, where the two are the same.
  """

  def __init__(self, algorithm, steps, reduction="mean", inner_batch=1):
    if reduction not in REDUCTIONS:
      raise ValueError(f"support_reduction: expected one of {', '.join(REDUCTIONS)}, got {reduction!r}")
    if steps < 0:
      raise ValueError(f"grad_steps: expected 0 or more, got {steps}")
    self.algorithm, self.steps = algorithm, steps
    self.reduction, self.inner_batch = reduction, inner_batch
    self.initial_weights, self.meta_loss = algorithm.initial_weights, algorithm.meta_loss
    self.predict, self.predict_one = algorithm.predict, algorithm.predict_one
    self.ready_tasks, self.optional_names = algorithm.ready_tasks, algorithm.optional_names
    self.check_batch = algorithm.check_batch

  @property
  def fixed_variables(self):
    return self.algorithm.fixed_variables

  def exported(self, bn_mode):
    return UpdateProcedure(self.algorithm.exported(bn_mode), self.steps, self.reduction, self.inner_batch)

  def shares_statistics(self):
    return self.algorithm.shares_statistics()

  def adapt(self, weights, support_x, support_y, num_updates=None, seed=None):
    """The weights after `num_updates` (None: `steps`) steps."""
    num_updates = self.steps if num_updates is None else num_updates
    return self._scaled(support_x, weights).adapt_final(weights, support_x, support_y, num_updates, seed)

  def every_step(self, weights, support_x, support_y):
    """The weights after 0, 1, ..., `steps` steps, a list."""
    return self._scaled(support_x, weights).adapt(weights, support_x, support_y, self.steps)

  def _scaled(self, support_x, weights):
    """The algorithm with the step size of so many examples."""
    if self.reduction == "mean":
      return self.algorithm
    dtype = next(iter(weights.values())).dtype
    scale = tf.cast(tf.shape(support_x)[1], dtype) / tf.cast(self.inner_batch, dtype)
    scaled = copy.copy(self.algorithm)
    scaled.inner_lr = tf.nest.map_structure(lambda rate: tf.cast(rate, dtype) * scale, self.algorithm.inner_lr)
    return scaled
