"""Environments as the rollouts know them: all rollouts of all tasks at once, inside the graph."""

import contextlib
from typing import Protocol

import numpy as np
import tensorflow as tf

from maml_tf import randomness
from maml_tf.errors import UserError


class Environment(Protocol):
  """A family of tasks that differ in their goal, with pure functions that step all rollouts of all tasks together.

  Subclass it: what may stay as it is has a default.

  Attributes:
    observation_dim: O.
    action_dim: A, of actions in [-1, 1] that the environment clips and scales; None where actions are integers.
    num_actions: number of integer actions; None where actions are real.
    goal_dim: G.
    horizon: time steps of a rollout, H.
    restarts: another episode begins where one ends early (`restart`); False: the rest of such a rollout is idle.
  """

  observation_dim: int
  action_dim: int | None
  num_actions: int | None
  goal_dim: int
  horizon: int
  restarts: bool = False

  def sample_goals(self, seed, shape):
    """Goals of random tasks, float32 [*shape, G]."""

  def reset(self, seed, goals):
    """Begins rollouts of goals [T, R, G]: (state, observation [T, R, O]). The state is a nest of tensors."""

  def step(self, state, action):
    """(state, observation [T, R, O], reward [T, R], terminated [T, R] bool).

    A rollout that has terminated is stepped on with the others; what it gives from then on is ignored, unless the
    environment restarts.
    """

  def restart(self, state, ended):
    """Begins anew where `ended` [T, R] is true: (state, observation [T, R, O]). Called where `restarts` holds."""
    raise NotImplementedError(f"{type(self).__name__}: restarts is True, so that it needs restart(state, ended)")

  def truncated(self, state):
    """Whether the environment's own time limit ended the episode at the last step, bool [T, R] or []: False."""
    del state
    return tf.constant(False)

  def diverged(self, state):
    """Whether the simulation has failed, so that the whole rollout does not count, bool [T, R] or []: False."""
    del state
    return tf.constant(False)

  def close(self):
    """Ends what the environment has started outside of TensorFlow; nothing by default."""


class UniformGoals(Environment):
  """The goals of a box, or of both directions: `sample_goals` for a class with the attributes named here.

  Attributes:
    goal_low, goal_high: the box, tuples of length G.
    goal_is_sign: goals are -1 or 1, equally likely, in place of the box; of those drawn together half are 1.
  """

  goal_is_sign = False

  @property
  def goal_dim(self):
    return len(self.goal_low)

  def sample_goals(self, seed, shape):
    seed = randomness.fold(seed, "goal")
    unit = randomness.uniform(seed, [*shape, self.goal_dim], 0.0, 1.0, tf.float32)
    if self.goal_is_sign:
      return _balanced_signs(unit, randomness.fold(seed, "middle"))
    low, high = tf.constant(self.goal_low, tf.float32), tf.constant(self.goal_high, tf.float32)
    return low + (high - low) * unit


def _balanced_signs(unit, seed):
  """-1 or 1 in the place of uniform numbers [..., G]: -1 for the smaller half of them, in each column.

  The middle one of an odd number falls to either side alike, so that each sign by itself is as likely as the other.
  With independent signs one direction has a few tasks more than the other, whose gradients then drown what the two
  have in common (docs/fidelity.md).
  """
  columns = tf.reshape(unit, [-1, unit.shape[-1]])
  ranks = tf.cast(tf.argsort(tf.argsort(columns, axis=0), axis=0), unit.dtype)
  ranks += randomness.uniform(seed, [unit.shape[-1]], 0.0, 1.0, unit.dtype)
  half = tf.cast(tf.shape(columns)[0], unit.dtype) / 2.0
  return tf.reshape(tf.where(ranks < half, -1.0, 1.0), tf.shape(unit))


class PointNavigation(UniformGoals):
  """2D navigation: a point moves up to 0.1 in each direction towards a goal (cbfinn/maml_rl, point_env_randgoal.py).

  The reward is the negative distance, not squared as in the paper's text, and an episode ends within 0.01 of the goal.
  """

  observation_dim, action_dim, num_actions = 2, 2, None
  goal_low, goal_high = (-0.5, -0.5), (0.5, 0.5)
  restarts = True
  step_size, tolerance = 0.1, 0.01

  def __init__(self, horizon=100):
    self.horizon = horizon

  def reset(self, seed, goals):
    del seed
    position = tf.zeros_like(goals)
    return {"position": position, "goal": goals}, position

  def step(self, state, action):
    position = state["position"] + self.step_size * tf.clip_by_value(action, -1.0, 1.0)
    away = position - state["goal"]
    reward = -tf.norm(away, axis=-1)
    reached = tf.reduce_all(tf.abs(away) < self.tolerance, axis=-1)
    return state | {"position": position}, position, reward, reached

  def restart(self, state, ended):
    """Back to the start where an episode has ended: (state, observation)."""
    position = tf.where(ended[..., tf.newaxis], 0.0, state["position"])
    return state | {"position": position}, position


class Bandit(UniformGoals):
  """A Bernoulli bandit: one state, a task is the arms' probabilities of a reward of 1 (for tests in seconds)."""

  observation_dim, action_dim = 1, None

  def __init__(self, num_actions=5, horizon=10):
    self.num_actions, self.horizon = num_actions, horizon
    self.goal_low, self.goal_high = (0.0,) * num_actions, (1.0,) * num_actions

  def reset(self, seed, goals):
    observation = tf.ones_like(goals[..., :1])
    return {"goal": goals, "seed": randomness.fold(seed, "bandit"), "time": tf.constant(0)}, observation

  def step(self, state, action):
    chance = tf.gather(state["goal"], action, axis=-1, batch_dims=2)
    drawn = randomness.uniform(randomness.fold(state["seed"], state["time"]), tf.shape(chance), 0.0, 1.0, tf.float32)
    reward = tf.cast(drawn < chance, tf.float32)
    observation = tf.ones_like(state["goal"][..., :1])
    return state | {"time": state["time"] + 1}, observation, reward, tf.zeros_like(chance, tf.bool)


class TabularMDP(Environment):
  """A random finite Markov decision process (Duan et al. 2016, section 4.1): a task is its rewards and transitions.

  Rewards are normal with means from N(1, 1) and deviation 1; transitions are from a flat Dirichlet. A goal holds the
  mean rewards [S, A] and the transitions [S, A, S], flattened; an observation is the state, one-hot.
  """

  action_dim = None

  def __init__(self, num_states=5, num_actions=3, horizon=10):
    self.num_states, self.num_actions, self.horizon = num_states, num_actions, horizon
    self.observation_dim = num_states
    self.goal_dim = num_states * num_actions * (1 + num_states)

  def sample_goals(self, seed, shape):
    states, actions = self.num_states, self.num_actions
    normal = tf.random.stateless_normal(
      [*shape, states * actions], randomness.fold(seed, "rewards"), alg=randomness.ALGORITHM
    )
    uniform = randomness.uniform(
      randomness.fold(seed, "transitions"), [*shape, states * actions, states], 1e-7, 1.0, tf.float32
    )
    weights = -tf.math.log(uniform)  # exponential variates, normalised: a flat Dirichlet
    chances = weights / tf.reduce_sum(weights, axis=-1, keepdims=True)
    return tf.concat([1.0 + normal, tf.reshape(chances, [*shape, states * actions * states])], -1)

  def reset(self, seed, goals):
    position = tf.zeros(tf.shape(goals)[:2], tf.int32)
    return {
      "goal": goals, "position": position, "seed": randomness.fold(seed, "mdp"), "time": tf.constant(0)
    }, self._observe(position)  # fmt: skip

  def step(self, state, action):
    pairs = self.num_states * self.num_actions
    pair = state["position"] * self.num_actions + action
    mean = tf.gather(state["goal"][..., :pairs], pair, axis=-1, batch_dims=2)
    table = state["goal"][..., pairs:]
    chances = tf.gather(
      tf.reshape(table, tf.concat([tf.shape(table)[:2], [pairs, self.num_states]], 0)), pair, axis=2, batch_dims=2
    )
    seed = randomness.fold(state["seed"], state["time"])
    noise = tf.random.stateless_normal(tf.shape(mean), randomness.fold(seed, "reward"), alg=randomness.ALGORITHM)
    drawn = randomness.uniform(randomness.fold(seed, "next"), tf.shape(mean), 0.0, 1.0, tf.float32)
    passed = tf.cast(tf.cumsum(chances, axis=-1) < drawn[..., tf.newaxis], tf.int32)
    position = tf.minimum(tf.reduce_sum(passed, axis=-1), self.num_states - 1)
    state = state | {"position": position, "time": state["time"] + 1}
    return state, self._observe(position), mean + noise, tf.zeros_like(mean, tf.bool)

  def _observe(self, position):
    return tf.one_hot(position, self.num_states)


class Simulated(UniformGoals):
  """Environments of a simulator outside of TensorFlow, one call for all of them at each time step.

  Args:
    definition: has `observation_dim`, `action_dim`, `num_actions`, `horizon`, `goal_low`, `goal_high`, `goal_is_sign`.
    make_simulator: number of environments -> `gymnasium.vector.VectorEnv` without automatic resets, which takes
      `reset(seed=..., options={"goals": [N, G]})`; one is kept for each number that occurs.
    horizon: time steps of a rollout; None: the definition's.
  """

  def __init__(self, definition, make_simulator, horizon=None):
    self.observation_dim = definition.observation_dim
    self.action_dim, self.num_actions = definition.action_dim, definition.num_actions
    self.goal_low, self.goal_high = tuple(definition.goal_low), tuple(definition.goal_high)
    self.goal_is_sign = definition.goal_is_sign
    self.horizon = definition.horizon if horizon is None else horizon
    self._make, self._by_size, self._current = make_simulator, {}, None

  def reset(self, seed, goals):
    observation = tf.numpy_function(self._reset, [seed, goals], tf.float32)
    observation.set_shape([*goals.shape[:2], self.observation_dim])
    neither = tf.zeros(tf.shape(goals)[:2], tf.bool)
    # The count ties every step to the one before: nothing else would tell the graph their order.
    return {"time": tf.constant(0), "truncated": neither, "diverged": neither}, observation

  def step(self, state, action):
    time, observation, reward, terminated, truncated, diverged = tf.numpy_function(
      self._step, [state["time"], action], [tf.int32, tf.float32, tf.float32, tf.bool, tf.bool, tf.bool]
    )
    time.set_shape([])
    observation.set_shape([*action.shape[:2], self.observation_dim])
    for flat in (reward, terminated, truncated, diverged):
      flat.set_shape(action.shape[:2])
    return {"time": time, "truncated": truncated, "diverged": diverged}, observation, reward, terminated

  def truncated(self, state):
    return state["truncated"]

  def diverged(self, state):
    return state["diverged"]

  def close(self):
    """Ends the simulators and their processes."""
    for simulator in self._by_size.values():
      simulator.close()
    self._by_size, self._current = {}, None

  def _reset(self, seed, goals):
    num_tasks, num_rollouts = goals.shape[:2]
    size = num_tasks * num_rollouts
    if size not in self._by_size:
      with _failure_named():
        self._by_size[size] = self._make(size)
    self._current = self._by_size[size]
    flat = goals.reshape(size, -1).astype(np.float64)
    words = [int(word) & 0xFFFFFFFF for word in seed]
    with _failure_named():
      observation, _ = self._current.reset(seed=words, options={"goals": flat})
    return observation.reshape(num_tasks, num_rollouts, -1).astype(np.float32)

  def _step(self, time, action):
    shape = action.shape[:2]
    flat = action.reshape(-1) if self.num_actions else action.reshape(-1, self.action_dim).astype(np.float64)
    with _failure_named():
      observation, reward, terminated, truncated, info = self._current.step(flat)
    return (
      np.int32(time + 1),
      observation.reshape(*shape, -1).astype(np.float32),
      reward.reshape(shape).astype(np.float32),
      terminated.reshape(shape),
      truncated.reshape(shape),
      info["diverged"].reshape(shape),
    )


@contextlib.contextmanager
def _failure_named():
  """A simulator that fails, because a process of it was killed, say, is for the user to know and not a bug here."""
  try:
    yield
  except RuntimeError as error:
    raise UserError(str(error)) from error


class GoalObserved(Environment):
  """The oracle's environment: the goal is appended to every observation.

  Args:
    environment: an `Environment`.
  """

  def __init__(self, environment):
    self.environment = environment
    self.observation_dim = environment.observation_dim + environment.goal_dim
    self.action_dim, self.num_actions = environment.action_dim, environment.num_actions
    self.goal_dim, self.horizon, self.restarts = environment.goal_dim, environment.horizon, environment.restarts

  def sample_goals(self, seed, shape):
    return self.environment.sample_goals(seed, shape)

  def reset(self, seed, goals):
    state, observation = self.environment.reset(seed, goals)
    return {"inner": state, "goal_shown": goals}, tf.concat([observation, goals], -1)

  def step(self, state, action):
    inner, observation, reward, terminated = self.environment.step(state["inner"], action)
    return {**state, "inner": inner}, tf.concat([observation, state["goal_shown"]], -1), reward, terminated

  def restart(self, state, ended):
    inner, observation = self.environment.restart(state["inner"], ended)
    return {**state, "inner": inner}, tf.concat([observation, state["goal_shown"]], -1)

  def truncated(self, state):
    return self.environment.truncated(state["inner"])

  def diverged(self, state):
    return self.environment.diverged(state["inner"])

  def close(self):
    self.environment.close()
