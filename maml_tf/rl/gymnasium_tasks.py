"""Anybody's Gymnasium environments as a family of tasks."""

import types

import numpy as np

from maml_tf.errors import UserError
from maml_tf.rl.environments import Simulated
from maml_tf.rl.envs.definition import LARGEST


def from_gymnasium(make, goal_low, goal_high, horizon, goal_is_sign=False):
  """A family of tasks from ordinary Gymnasium environments, stepped one after the other.

  Args:
    make: function without arguments -> `gymnasium.Env`, or the id of one. `reset(options={"goal": [G]})` sets its task.
      Observations are arrays of numbers (flattened); actions are a bounded box, which [-1, 1] is scaled to, or
      `Discrete`.
    goal_low, goal_high: tuples of length G: goals are drawn uniformly between them.
    horizon: time steps of a rollout.
    goal_is_sign: goals are -1 or 1, equally likely, in place of the box.

  Returns:
    An `Environment` for `MetaPolicySearch`.

  Raises:
    UserError: a space that policies here have no actions for, or observations that are not one array.
  """
  import gymnasium

  if not callable(make):
    name = make

    def make():
      return gymnasium.make(name)

  first = make()
  definition = types.SimpleNamespace(
    observation_dim=_observation_dim(first),
    horizon=horizon,
    goal_low=tuple(goal_low),
    goal_high=tuple(goal_high),
    goal_is_sign=goal_is_sign,
    **_action_sizes(first),
  )
  spare = [first]  # the one that was looked at is used too

  def make_simulator(num_envs):
    return OneByOne([spare.pop() if spare else make() for _ in range(num_envs)])

  return Simulated(definition, make_simulator)


class OneByOne:
  """Environments in a list, with the methods that `Simulated` calls of a vector environment.

  Gymnasium's own `SyncVectorEnv` gives one set of options, and so one goal, to all.

  Args:
    envs: list of `gymnasium.Env`.
  """

  def __init__(self, envs):
    self.envs, self.num_envs = envs, len(envs)
    self._action = _action_function(envs[0].action_space)

  def reset(self, *, seed, options):
    """Begins an episode in each, with seeds of their own: (observations [N, O], info)."""
    seeds = np.random.SeedSequence(seed).generate_state(self.num_envs)
    self._ended = np.zeros(self.num_envs, bool)
    self._diverged = np.zeros(self.num_envs, bool)
    self._observations = np.stack([
      np.ravel(env.reset(seed=int(s), options={"goal": goal})[0]).astype(np.float64)
      for env, s, goal in zip(self.envs, seeds, options["goals"], strict=True)
    ])  # fmt: skip
    return self._observations.copy(), {}

  def step(self, actions):
    """One step in each that has not ended; the others repeat their last observation, without reward."""
    rewards = np.zeros(self.num_envs)
    for i in np.flatnonzero(~self._ended):
      observation, reward, terminated, truncated, _ = self.envs[i].step(self._action(actions[i]))
      observation = np.ravel(observation).astype(np.float64)
      if not (np.abs(observation).max() <= LARGEST and np.abs(reward) <= LARGEST):  # not for NaN either
        self._diverged[i] = self._ended[i] = True
        continue
      self._observations[i], rewards[i] = observation, reward
      self._ended[i] = terminated or truncated
    ended, diverged = self._ended.copy(), self._diverged.copy()
    return self._observations.copy(), rewards, ended, np.zeros_like(ended), {"diverged": diverged}

  def close(self):
    for env in self.envs:
      env.close()


def _observation_dim(env):
  shape = env.observation_space.shape
  if shape is None:
    raise UserError(
      f"from_gymnasium: observations of {env} are {env.observation_space}, one array was expected; "
      "gymnasium.wrappers.FlattenObservation makes one"
    )
  return int(np.prod(shape))


def _action_sizes(env):
  from gymnasium import spaces

  space = env.action_space
  if isinstance(space, spaces.Discrete):
    return {"action_dim": None, "num_actions": int(space.n)}
  if isinstance(space, spaces.Box) and len(space.shape) == 1 and space.is_bounded():
    return {"action_dim": space.shape[0], "num_actions": None}
  raise UserError(f"from_gymnasium: actions of {env} are {space}, a bounded Box of one axis or Discrete was expected")


def _action_function(space):
  """What turns a policy's action into the environment's."""
  from gymnasium import spaces

  if isinstance(space, spaces.Discrete):
    return lambda action: int(action) + int(space.start)
  low, high = space.low.astype(np.float64), space.high.astype(np.float64)
  return lambda action: (low + (np.clip(action, -1.0, 1.0) + 1.0) / 2.0 * (high - low)).astype(space.dtype)
