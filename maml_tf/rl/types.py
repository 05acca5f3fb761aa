"""What a rollout is made of. The names and meanings are those of tf-agents; `tf_agents_bridge` makes its classes."""

from typing import NamedTuple

import tensorflow as tf

FIRST, MID, LAST = 0, 1, 2  # of `step_type`, as in tf-agents' `StepType`


class TimeStep(NamedTuple):
  """What an environment shows before an action.

  Attributes:
    step_type: int32 [...]: FIRST, MID or LAST.
    reward: float [...], of the action before; 0 at the first step.
    discount: float [...]: 0 where the episode ended by itself, 1 elsewhere, a time limit included.
    observation: float [..., O].
  """

  step_type: tf.Tensor
  reward: tf.Tensor
  discount: tf.Tensor
  observation: tf.Tensor


class Trajectory(NamedTuple):
  """Rollouts of a batch of tasks: every field is [T, R, H, ...] for T tasks, R rollouts of each, H time steps.

  A rollout is one episode, or several one after the other where the environment begins anew within it.

  Attributes:
    step_type: int32, of the time step that `observation` belongs to. LAST marks what is of no complete episode: the
      rest of a rollout after the end of the last one. It counts for nothing (`mask`).
    observation: float [T, R, H, O].
    action: [T, R, H, A], or integers [T, R, H] of a categorical policy, as the policy drew it, before any clipping.
    policy_info: dict of the parameters of the distribution that it was drawn from, each [T, R, H, ...].
    next_step_type: int32; LAST where the episode ends with this action.
    reward: float, of this action.
    discount: float, after this action: 0 where it ended the episode, 1 elsewhere, the time limit included.
  """

  step_type: tf.Tensor
  observation: tf.Tensor
  action: tf.Tensor
  policy_info: dict
  next_step_type: tf.Tensor
  reward: tf.Tensor
  discount: tf.Tensor

  @property
  def mask(self):
    """1 for the steps of an episode, 0 for what comes after its end: [T, R, H], in the dtype of the rewards."""
    return tf.cast(tf.not_equal(self.step_type, LAST), self.reward.dtype)

  @property
  def mean_return(self):
    """Undiscounted return of an episode, mean over those of each task, [T]; 0 where none counts."""
    total = tf.reduce_sum(self.reward * self.mask, axis=[1, 2])
    return tf.math.divide_no_nan(total, self.num_episodes)

  @property
  def num_episodes(self):
    """Episodes of each task that count, [T], in the dtype of the rewards."""
    return tf.reduce_sum(self.mask * self.ends, axis=[1, 2])

  @property
  def ends(self):
    """1 at the last step of each episode: [T, R, H], in the dtype of the rewards."""
    return tf.cast(tf.equal(self.next_step_type, LAST), self.reward.dtype)

  @property
  def age(self):
    """Steps since the beginning of the episode, int32 [T, R, H]."""
    time = tf.range(tf.shape(self.step_type)[-1])
    begins = tf.where(tf.equal(self.step_type, FIRST), time, 0)
    return time - running_maximum(begins)


def running_maximum(values):
  """The largest of non-negative integers so far, along the last axis."""
  size, reach = values.shape[-1], 1
  if size is None:
    size = tf.shape(values)[-1]
    earlier = tf.range(size)[:, tf.newaxis] >= tf.range(size)[tf.newaxis]  # [now, then]
    return tf.reduce_max(tf.where(earlier, values[..., tf.newaxis, :], 0), axis=-1)
  while reach < size:  # each pass looks twice as far back
    shifted = tf.concat([tf.zeros_like(values[..., :reach]), values[..., :-reach]], axis=-1)
    values, reach = tf.maximum(values, shifted), 2 * reach
  return values
