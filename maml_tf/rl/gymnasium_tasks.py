"""Anybody's Gymnasium environments as a family of tasks."""

import types

import numpy as np

from maml_tf.errors import UserError
from maml_tf.rl.environments import Simulated
from maml_tf.rl.envs.definition import LARGEST, clipped


def from_gymnasium(make, goal_low, goal_high, horizon, goal_is_sign=False):
  """A family of tasks from ordinary Gymnasium environments, stepped one after the other.

  Args:
    make: function without arguments -> a new `gymnasium.Env`, or the id of one. `reset(options={"goal": [G]})` sets its
      task. Observations are arrays of numbers (flattened), or `Discrete` or `MultiDiscrete` (one-hot). Actions are
      `Discrete`, or a bounded box, which [-1, 1] is scaled to; in one of integers each value has an equal share.
    goal_low, goal_high: tuples of length G: goals are drawn uniformly between them.
    horizon: time steps of a rollout. An environment may end an episode before, also by a time limit of its own.
    goal_is_sign: goals are -1 or 1, equally likely, in place of the box.

  Returns:
    An `Environment` for `MetaPolicySearch`.

  Raises:
    UserError: a space that policies here have no actions for, observations that are not one array, or a `make` that
      returns one and the same environment again.
  """
  import gymnasium

  if not callable(make):
    name = make

    def make():
      return gymnasium.make(name)

  spare = [make(), make()]  # those that are looked at are used too
  first = spare[0]
  _check_distinct(spare)
  definition = types.SimpleNamespace(
    observation_dim=_observation_dim(first),
    horizon=horizon,
    goal_low=tuple(goal_low),
    goal_high=tuple(goal_high),
    goal_is_sign=goal_is_sign,
    **_action_sizes(first),
  )

  def make_simulator(num_envs):
    return OneByOne([spare.pop(0) if spare else make() for _ in range(num_envs)])

  return Simulated(definition, make_simulator)


class OneByOne:
  """Environments in a list, with the methods that `Simulated` calls of a vector environment.

  Gymnasium's own `SyncVectorEnv` gives one set of options, and so one goal, to all.

  Args:
    envs: list of `gymnasium.Env`, each an object of its own.
  """

  def __init__(self, envs):
    _check_distinct(envs)
    self.envs, self.num_envs = envs, len(envs)
    self._observe = _observation_function(envs[0].observation_space)
    self._action = _action_function(envs[0].action_space)

  def reset(self, *, seed, options):
    """Begins an episode in each, with seeds of their own: (observations [N, O], info)."""
    seeds = np.random.SeedSequence(seed).generate_state(self.num_envs)
    self._terminated, self._truncated, self._diverged = np.zeros((3, self.num_envs), bool)
    self._observations = np.stack([
      self._observe(env.reset(seed=int(s), options={"goal": goal})[0])
      for env, s, goal in zip(self.envs, seeds, options["goals"], strict=True)
    ])  # fmt: skip
    return self._observations.copy(), {}

  def step(self, actions):
    """One step in each that has not ended; the others repeat their last observation, without reward."""
    rewards = np.zeros(self.num_envs)
    for i in np.flatnonzero(~(self._terminated | self._truncated)):
      observation, reward, terminated, truncated, _ = self.envs[i].step(self._action(actions[i]))
      observation = self._observe(observation)
      if not (np.abs(observation).max() <= LARGEST and np.abs(reward) <= LARGEST):  # not for NaN either
        self._diverged[i] = self._terminated[i] = True
        continue
      self._observations[i], rewards[i] = observation, reward
      self._terminated[i], self._truncated[i] = terminated, truncated
    ended = self._terminated.copy(), self._truncated.copy()
    return self._observations.copy(), rewards, *ended, {"diverged": self._diverged.copy()}

  def close(self):
    for env in self.envs:
      env.close()


def _check_distinct(envs):
  """One object in two places would have the goal of the last that was reset; a wrapper around it is no other one."""
  if len({id(env.unwrapped) for env in envs}) < len(envs):
    raise UserError(
      f"from_gymnasium: make returned {envs[0]} more than once, so that tasks would share one goal; "
      "each call has to make a new environment"
    )


def _observation_dim(env):
  from gymnasium import spaces

  space = env.observation_space
  if isinstance(space, spaces.Discrete):
    return int(space.n)
  if isinstance(space, spaces.MultiDiscrete):
    return int(np.sum(space.nvec))
  if space.shape is None:
    raise UserError(
      f"from_gymnasium: observations of {env} are {space}, one array was expected; "
      "gymnasium.wrappers.FlattenObservation makes one"
    )
  return int(np.prod(space.shape))


def _observation_function(space):
  """What turns an environment's observation into the policy's, float64 [O]."""
  from gymnasium import spaces

  if not isinstance(space, spaces.Discrete | spaces.MultiDiscrete):
    return lambda observation: np.ravel(observation).astype(np.float64)
  sizes = np.ravel(space.n if isinstance(space, spaces.Discrete) else space.nvec)
  firsts = np.ravel(space.start)

  def one_hot(observation):
    which = np.ravel(observation) - firsts
    if which.shape != sizes.shape or not ((which >= 0) & (which < sizes)).all():
      raise UserError(f"from_gymnasium: the environment's observation {observation} is not in its space {space}")
    return np.concatenate([np.arange(size) == value for size, value in zip(sizes, which, strict=True)]).astype(float)

  return one_hot


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
  if np.issubdtype(space.dtype, np.floating):
    return lambda action: (low + (np.clip(action, -1.0, 1.0) + 1.0) / 2.0 * (high - low)).astype(space.dtype)

  def whole(action):
    share = (clipped(action) + 1.0) / 2.0
    return np.minimum(low + np.floor(share * (high - low + 1.0)), high).astype(space.dtype)

  return whole
