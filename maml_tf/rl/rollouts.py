"""Rollouts of all tasks together: at each time step one call of the policy and one of the environment."""

import tensorflow as tf

from maml_tf import randomness
from maml_tf.rl.types import FIRST, LAST, MID, Trajectory, running_maximum


def collect(policy, weights, environment, goals, seed, num_steps=None):
  """Runs the policy in its tasks.

  Where an episode ends before the time limit, the rollout goes on with another one if the environment restarts, and is
  idle if not. Episodes count in the order in which they end, until those of a task have R * H steps together;
  one that is unfinished then does not count (rllab/sandbox/rocky/tf/samplers/vectorized_sampler.py).

  A rollout whose simulation diverged does not count at all: it may have grown for many steps before it was seen.

  Args:
    policy: of `rl.policies`.
    weights: dict of name -> tensor, plain or with a task axis.
    environment: an `Environment`, whose horizon H is the time limit of an episode.
    goals: [T, R, G], the goal of each rollout.
    seed: int32 tensor [2].
    num_steps: time steps of a rollout, H or more; None: H.

  Returns:
    (`Trajectory` of `num_steps` steps, number of simulations that diverged).
  """
  num_steps = environment.horizon if num_steps is None else num_steps
  state, observation = environment.reset(randomness.fold(seed, "reset"), goals)
  actions_seed = randomness.fold(seed, "actions")
  arrays = {name: tf.TensorArray(dtype, num_steps) for name, dtype in _dtypes(policy, observation.dtype).items()}

  def body(time, state, observation, progress, arrays):
    distribution = policy.distribution(weights, observation)
    action = distribution.sample(randomness.fold(actions_seed, time))
    written = {"observation": observation, "action": action, "idle": progress["idle"], "age": progress["age"]}
    state, observation, written["reward"], terminated = environment.step(state, action)
    timed_out = tf.equal(progress["age"], environment.horizon - 1) | environment.truncated(state)
    written |= {"terminated": terminated, "ended": terminated | timed_out}
    written |= {f"info/{name}": value for name, value in distribution._asdict().items()}
    state, observation, progress = _go_on(environment, state, observation, progress, written["ended"])
    return time + 1, state, observation, progress, {n: array.write(time, written[n]) for n, array in arrays.items()}

  age = tf.zeros(tf.shape(goals)[:2], tf.int32)
  age.set_shape(goals.shape[:2])
  progress = {"age": age, "idle": tf.cast(age, tf.bool)}
  # One step after the other: a simulator outside of the graph has one state.
  _, state, _, _, arrays = tf.while_loop(
    lambda time, *_: time < num_steps, body, (0, state, observation, progress, arrays), parallel_iterations=1
  )
  stacked = {name: _time_last(array.stack(), goals.shape[:2], num_steps) for name, array in arrays.items()}
  diverged = environment.diverged(state)
  diverged = diverged if diverged.shape.rank else tf.fill(tf.shape(goals)[:2], diverged)
  return _as_trajectory(stacked, environment.horizon, diverged), tf.reduce_sum(tf.cast(diverged, tf.int32))


def _dtypes(policy, real):
  """What is recorded at each step."""
  is_integer = policy.num_actions is not None
  parameters = ["logits"] if is_integer else ["mean", "log_std"]
  return {
    "observation": real, "action": tf.int32 if is_integer else real, "reward": tf.float32,
    "terminated": tf.bool, "ended": tf.bool, "idle": tf.bool, "age": tf.int32,
    **{f"info/{name}": real for name in parameters},
  }  # fmt: skip


def _go_on(environment, state, observation, progress, ended):
  """Another episode where one has ended, or none."""
  if environment.restarts:
    state, observation = environment.restart(state, ended)
    return state, observation, progress | {"age": tf.where(ended, 0, progress["age"] + 1)}
  return state, observation, {"age": progress["age"] + 1, "idle": progress["idle"] | ended}


def _time_last(values, sizes, num_steps):
  """[H, T, R, ...] -> [T, R, H, ...]."""
  values = tf.transpose(values, [1, 2, 0, *range(3, values.shape.rank)])
  return tf.ensure_shape(values, [*sizes, num_steps, *values.shape[3:]])


def _as_trajectory(stacked, horizon, diverged):
  sound = ~diverged[..., tf.newaxis]
  counts = sound & _counts(stacked["ended"] & ~stacked["idle"], stacked["age"], horizon)

  def kept(values):  # numbers beyond all bounds would become NaN on the way, and NaN times a mask of 0 is NaN
    whole = sound if values.shape.rank == 3 else sound[..., tf.newaxis]
    return tf.where(whole, values, tf.zeros_like(values))

  ended, terminated = stacked["ended"] & counts, stacked["terminated"] & counts
  began = tf.where(tf.equal(stacked["age"], 0), FIRST, MID)
  return Trajectory(
    step_type=tf.where(counts, began, LAST),
    observation=kept(stacked["observation"]),
    action=kept(stacked["action"]),
    policy_info={n.removeprefix("info/"): kept(value) for n, value in stacked.items() if n.startswith("info/")},
    next_step_type=tf.where(counts, tf.where(ended, LAST, MID), FIRST),
    reward=tf.where(counts, stacked["reward"], 0.0),
    discount=tf.where(terminated, 0.0, 1.0),
  )


def _counts(ended, age, horizon):
  """Whether a step is of an episode that counts, bool [T, R, H], from where episodes end and from their age."""
  num_rollouts, num_steps = tf.shape(ended)[1], ended.shape[2]
  time = tf.range(num_steps)
  # When the episode of each step ends: the first end that is not before; `num_steps` where there is none.
  backward = tf.reverse(tf.where(ended, num_steps - time, 0), [-1])
  end = num_steps - tf.reverse(running_maximum(backward), [-1])
  finished = tf.cumsum(tf.reduce_sum(tf.where(ended, age + 1, 0), axis=1), axis=-1)  # steps of ended episodes, [T, H]
  enough = finished >= num_rollouts * horizon
  last = tf.where(tf.reduce_any(enough, -1), tf.argmax(enough, -1, tf.int32), num_steps - 1)
  return end <= last[:, tf.newaxis, tf.newaxis]
