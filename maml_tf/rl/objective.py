"""What an outer step improves: the surrogate of the policies after adaptation, its bound and its curvature."""

import dataclasses

import numpy as np
import tensorflow as tf

from maml_tf import maml, over_tasks
from maml_tf.rl import vpg
from maml_tf.rl.settings import Curvature, InnerLoop


@dataclasses.dataclass(frozen=True)
class MetaObjective:
  """The surrogate of the policies after adaptation, as a function of the weights before it.

  Args:
    policy: of `rl.policies`.
    inner_batches: list of `vpg.Batch`, the rollouts before each inner step.
    outer_batch: `vpg.Batch`, the rollouts after the last.
    inner: `InnerLoop`, with as many steps as there are inner batches.
    curvature: `Curvature`.
  """

  policy: object
  inner_batches: list
  outer_batch: vpg.Batch
  inner: InnerLoop = dataclasses.field(default_factory=InnerLoop)
  curvature: Curvature = dataclasses.field(default_factory=Curvature)

  def adapted(self, weights):
    """The weights of each task after the inner steps."""
    start = over_tasks.for_each_task(weights, self.outer_batch.advantages)
    losses = [self.inner.inner_loss(self.policy, batch) for batch in self.inner_batches]
    return maml.adapt(losses, start, self.inner.inner_lr, len(losses), self.inner.first_order)[-1]

  def distribution(self, weights):
    """The adapted policies' distributions of actions at every step of the outer batch."""
    return self.policy.distribution(self.adapted(weights), self.outer_batch.trajectory.observation)

  def surrogate(self, distribution):
    """-mean of ratio * advantage over the steps of each task, mean over tasks (cbfinn/maml_rl, maml_npo.py)."""
    ratio = tf.exp(self.log_ratio(distribution))
    return -self._mean(ratio * self.outer_batch.advantages)

  def clipped_surrogate(self, distribution, clip):
    """PPO's (Schulman et al. 2017, eq. 7), of the policies after adaptation (Rothfuss et al. 2019, eq. 11)."""
    ratio, gain = tf.exp(self.log_ratio(distribution)), self.outer_batch.advantages
    lower = tf.minimum(ratio * gain, tf.clip_by_value(ratio, 1.0 - clip, 1.0 + clip) * gain)
    return -self._mean(lower)

  def log_ratio(self, distribution):
    """As `vpg.log_ratio`, on the outer batch."""
    return vpg.log_ratio(self.policy, self.outer_batch.trajectory, distribution)

  def kl(self, distribution):
    """KL(old || new), mean over all steps of all tasks."""
    return tf.reduce_sum(self._old.kl(distribution) * self._mask) / tf.reduce_sum(self._mask)

  def fisher(self, distribution, tangent):
    """The Hessian of `kl` by the distribution's parameters, times a change of them."""
    share = (self._mask / tf.reduce_sum(self._mask))[..., tf.newaxis]
    moved = distribution.fisher(tangent)
    return type(moved)(*(share * values for values in moved))

  def curvature_sample(self):
    """The objective on the share of the data that the curvature is computed on; itself where that is all of it."""
    axis = {"tasks": 0, "steps": 2}[self.curvature.hvp_sample]
    total = self.outer_batch.advantages.shape[axis]
    size = max(1, round(self.curvature.hvp_subsample * total))
    if size == total:
      return self
    which = np.arange(size) if axis == 0 else np.arange(size) * total // size

    def part(batch):
      return tf.nest.map_structure(lambda values: tf.gather(values, which, axis=axis), batch)

    inner = [part(batch) for batch in self.inner_batches]
    return dataclasses.replace(self, inner_batches=inner, outer_batch=part(self.outer_batch), curvature=Curvature())

  def _mean(self, values):
    """Mean over the steps of each task, then over the tasks that have some."""
    return vpg.mean_over_tasks(vpg.mean_over_steps(values, self._mask), tf.reduce_sum(self._mask, [1, 2]))

  @property
  def _old(self):
    return self.policy.from_info(self.outer_batch.trajectory.policy_info)

  @property
  def _mask(self):
    return self.outer_batch.trajectory.mask
