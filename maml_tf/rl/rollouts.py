"""Rollouts of all tasks together: at each time step one call of the policy and one of the environment."""

import tensorflow as tf

from maml_tf import randomness
from maml_tf.rl.types import FIRST, LAST, MID, Trajectory


def collect(policy, weights, environment, goals, seed):
  """Runs the policy in its tasks.

  Args:
    policy: of `rl.policies`.
    weights: dict of name -> tensor, plain or with a task axis.
    environment: an `Environment`.
    goals: [T, R, G], the goal of each rollout.
    seed: int32 tensor [2].

  Returns:
    (`Trajectory`, number of simulations that diverged).
  """
  state, observation = environment.reset(randomness.fold(seed, "reset"), goals)
  actions_seed, horizon = randomness.fold(seed, "actions"), environment.horizon
  is_integer = policy.num_actions is not None
  dtypes = {
    "observation": observation.dtype, "action": tf.int32 if is_integer else observation.dtype,
    "reward": tf.float32, "before": tf.bool, "after": tf.bool,
    **{f"info/{name}": observation.dtype for name in (["logits"] if is_integer else ["mean", "log_std"])},
  }  # fmt: skip
  arrays = {name: tf.TensorArray(dtype, horizon) for name, dtype in dtypes.items()}

  def body(time, state, observation, ended, arrays):
    distribution = policy.distribution(weights, observation)
    action = distribution.sample(randomness.fold(actions_seed, time))
    state, after, reward, terminated = environment.step(state, action)
    written = {"observation": observation, "action": action, "reward": reward, "before": ended, "after": terminated}
    written |= {f"info/{name}": value for name, value in distribution._asdict().items()}
    arrays = {name: array.write(time, written[name]) for name, array in arrays.items()}
    return time + 1, state, after, ended | terminated, arrays

  ended = tf.zeros(tf.shape(goals)[:2], tf.bool)
  ended.set_shape(goals.shape[:2])
  # One step after the other: a simulator outside of the graph has one state.
  _, state, _, _, arrays = tf.while_loop(
    lambda time, *_: time < horizon, body, (0, state, observation, ended, arrays), parallel_iterations=1
  )
  stacked = {name: _time_last(array.stack(), goals.shape[:2], horizon) for name, array in arrays.items()}
  return _as_trajectory(stacked, horizon), _count_diverged(state)


def _time_last(values, sizes, horizon):
  """[H, T, R, ...] -> [T, R, H, ...]."""
  values = tf.transpose(values, [1, 2, 0, *range(3, values.shape.rank)])
  return tf.ensure_shape(values, [*sizes, horizon, *values.shape[3:]])


def _as_trajectory(stacked, horizon):
  is_last = tf.range(horizon) == horizon - 1
  ended = stacked["before"]
  began = tf.where(tf.range(horizon) == 0, FIRST, MID)
  step_type = tf.where(ended, LAST, began)
  next_type = tf.where(stacked["after"] | is_last, LAST, MID)
  alive = tf.cast(~ended, tf.float32)
  return Trajectory(
    step_type=step_type,
    observation=stacked["observation"],
    action=stacked["action"],
    policy_info={name.removeprefix("info/"): value for name, value in stacked.items() if name.startswith("info/")},
    next_step_type=tf.where(ended, FIRST, next_type),
    reward=stacked["reward"] * alive,
    discount=tf.where(stacked["after"] & ~ended, 0.0, 1.0),
  )


def _count_diverged(state):
  while "inner" in state:
    state = state["inner"]
  return tf.reduce_sum(tf.cast(state["diverged"], tf.int32)) if "diverged" in state else tf.constant(0)
