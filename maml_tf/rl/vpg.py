"""The vanilla policy gradient (REINFORCE, Williams 1992): the loss of the inner step, and of an outer one."""

from typing import NamedTuple

import tensorflow as tf

from maml_tf.rl.types import Trajectory


class Batch(NamedTuple):
  """Rollouts, and how much better than expected their actions were.

  Attributes:
    trajectory: `Trajectory`.
    advantages: [T, R, H], 0 where the mask is.
  """

  trajectory: Trajectory
  advantages: tf.Tensor


def loss(policy, batch):
  """The loss whose gradient is minus the policy gradient, a function of weights -> [T].

  -mean of log pi(a | s) A over all time steps of a task (Finn et al. 2017, eq. 5 and algorithm 3, lines 6 to 7).
  """

  def loss_fn(weights):
    distribution = policy.distribution(weights, batch.trajectory.observation)
    return -mean_over_steps(distribution.log_prob(batch.trajectory.action) * batch.advantages, batch.trajectory.mask)

  return loss_fn


def ratio_loss(policy, batch):
  """The same at the policy that acted, and so is its gradient; the Hessian is another one: weights -> [T].

  -mean of pi(a | s) / pi_old(a | s) A. The second derivative of log pi leaves out A (d log pi) (d log pi)^T, a part of
  the expected return's curvature that the meta-gradient needs (Rothfuss et al. 2019, section 5: "low variance
  curvature").
  """
  trajectory = batch.trajectory

  def loss_fn(weights):
    ratio = tf.exp(log_ratio(policy, trajectory, policy.distribution(weights, trajectory.observation)))
    return -mean_over_steps(ratio * batch.advantages, trajectory.mask)

  return loss_fn


INNER_LOSSES = {"log_likelihood": loss, "ratio": ratio_loss}


def log_ratio(policy, trajectory, distribution):
  """log pi'(a | s) - log pi_old(a | s), [T, R, H], with the old policy as it was when it acted."""
  old = policy.from_info(trajectory.policy_info)
  difference = distribution.log_prob(trajectory.action) - old.log_prob(trajectory.action)
  return difference * trajectory.mask  # what lies after the end of an episode must not overflow


def mean_over_steps(values, mask):
  """Mean over the steps of each task that count: [T, R, H] -> [T]; 0 where none does."""
  return tf.math.divide_no_nan(tf.reduce_sum(values * mask, [1, 2]), tf.reduce_sum(mask, [1, 2]))


def mean_over_tasks(values, counts):
  """Mean of values [T] over the tasks that have anything, where the counts [T] of their steps or episodes are above 0.

  The values of the others have to be 0. NaN where there is no task left. (Scaled, so that the bits are those of the
  plain mean where no task is lost.)
  """
  kept = tf.reduce_sum(tf.cast(counts > 0, values.dtype))
  return tf.reduce_mean(values) * (tf.cast(tf.size(counts), values.dtype) / kept)
