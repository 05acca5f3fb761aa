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


def mean_over_steps(values, mask):
  """Mean over the steps of each task that count: [T, R, H] -> [T]; 0 where none does."""
  return tf.math.divide_no_nan(tf.reduce_sum(values * mask, [1, 2]), tf.reduce_sum(mask, [1, 2]))
