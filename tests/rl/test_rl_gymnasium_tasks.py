"""Ordinary Gymnasium environments as a family of tasks."""

import itertools

import gymnasium
import numpy as np
import pytest
import tensorflow as tf

from maml_tf import tracing
from maml_tf.errors import UserError
from maml_tf.rl import environments, policies, trpo
from maml_tf.rl.envs.point import PointNavEnv
from maml_tf.rl.gymnasium_tasks import _action_function, from_gymnasium
from maml_tf.rl.meta_trpo import MetaPolicySearch
from maml_tf.rl.rollouts import collect

SEED = tf.constant([1, 2])


class Buttons(gymnasium.Env):
  """Three buttons, of which the goal's sign makes the first or the last right; pressing the middle one breaks it."""

  observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (2, 2))
  action_space = gymnasium.spaces.Discrete(3, start=5)
  breaks = False

  def reset(self, *, seed=None, options=None):
    super().reset(seed=seed)
    self.goal, self.count = float(options["goal"][0]), 0
    return np.zeros((2, 2)), {}

  def step(self, action):
    assert self.action_space.contains(action)
    self.count += 1
    right = action == (5 if self.goal < 0 else 7)
    broken = np.nan if self.breaks and action == 6 else 0.0
    return np.full((2, 2), self.count + broken), float(right), False, self.count == 8, {}


def rollouts(environment, tasks=2, rollouts=3):
  policy = policies.make_policy(environment, hidden=(8,))
  goals = tf.repeat(environment.sample_goals(SEED, [tasks])[:, tf.newaxis], rollouts, axis=1)
  return goals, *tracing.function(collect)(policy, policy.initial_weights(0), environment, goals, SEED)


def test_2d_navigation_one_by_one_is_the_one_in_the_graph():
  environment = from_gymnasium(PointNavEnv, (-0.5, -0.5), (0.5, 0.5), horizon=20)
  inside = environments.PointNavigation(horizon=20)
  (_, one, _), (_, other, _) = rollouts(environment), rollouts(inside)
  for left, right in zip(tf.nest.flatten(one), tf.nest.flatten(other), strict=True):
    np.testing.assert_allclose(left, right, atol=1e-5)


def test_integer_actions_goals_of_each_task_and_time_limits():
  environment = from_gymnasium(Buttons, (-1,), (1,), horizon=10, goal_is_sign=True)
  goals, trajectory, diverged = rollouts(environment, tasks=4)
  assert diverged == 0 and len(np.unique(goals)) == 2
  right = np.where(goals < 0, 0, 2)
  alive = np.arange(10) < 8  # it ends its episodes after eight steps
  np.testing.assert_array_equal(trajectory.reward, (trajectory.action == right) * alive)
  np.testing.assert_array_equal(trajectory.mask, np.broadcast_to(alive, trajectory.mask.shape))
  np.testing.assert_array_equal(trajectory.observation[..., 0, :], 0)


def test_one_that_diverges_is_counted_and_left_out(monkeypatch):
  monkeypatch.setattr(Buttons, "breaks", True)
  environment = from_gymnasium(Buttons, (-1,), (1,), horizon=6, goal_is_sign=True)
  _, trajectory, diverged = rollouts(environment, tasks=5)
  kept = trajectory.mask.numpy().all(-1)
  np.testing.assert_array_equal(trajectory.mask, np.broadcast_to(kept[..., np.newaxis], trajectory.mask.shape))
  assert diverged == np.sum(~kept) > 0
  assert (trajectory.action.numpy()[kept] != 1).all() and kept.any()
  assert np.isfinite(trajectory.observation).all() and np.isfinite(trajectory.reward).all()


@pytest.mark.parametrize("value", [np.nan, 1e39, -1e25])
def test_a_task_of_which_nothing_is_left_has_no_return(monkeypatch, value):
  """The 0 of nothing would be better than any return of 2D navigation."""
  step = PointNavEnv.step
  monkeypatch.setattr(PointNavEnv, "step", lambda env, action: (*(out := step(env, action))[:1], value, *out[2:]))
  environment = from_gymnasium(PointNavEnv, (-0.5, -0.5), (0.5, 0.5), horizon=3)
  policy = policies.make_policy(environment, hidden=(8,))
  learner = MetaPolicySearch(policy, environment, trpo.TRPO(), inner_lr=0.1, eval_rollouts=4, eval_updates=1)
  returns, diverged = learner.returns(policy.initial_weights(0), environment.sample_goals(SEED, [2]), SEED)
  assert np.isnan(returns).all() and returns.shape == (2, 2)
  assert diverged == 16  # both tasks' four rollouts, before and after the step


def test_it_trains():
  environment = from_gymnasium(Buttons, (-1,), (1,), horizon=8, goal_is_sign=True)
  policy = policies.make_policy(environment, hidden=(8,))
  learner = MetaPolicySearch(
    policy, environment, trpo.TRPO(), inner_lr=0.1, meta_batch_size=10, rollouts_per_task=10, eval_updates=1
  )
  state, step = learner.initial_state(0), tracing.function(learner.train_step)
  before = learner.evaluate(state, SEED, 20)["return"]
  for iteration in range(10):
    state, metrics = step(state, tf.constant([0, iteration]))
    assert metrics["diverged_simulations"] == 0
  after = learner.evaluate(state, SEED, 20)["return"]
  assert np.mean(after[1]) > np.mean(before[1]) + 0.3


@pytest.mark.parametrize(("ends", "discount"), [("limit", 1.0), ("itself", 0.0), ("both", 0.0)])
def test_a_time_limit_shorter_than_the_horizon_is_no_termination(ends, discount):
  class Ending(Buttons):
    def step(self, action):
      observation, reward, _, _, info = super().step(action)
      return observation, reward, ends != "limit" and self.count == 4, ends != "itself" and self.count == 4, info

  plain = from_gymnasium(Ending, (-1,), (1,), horizon=7, goal_is_sign=True)
  for environment in (plain, environments.GoalObserved(plain)):
    _, trajectory, _ = rollouts(environment)
    expected = np.ones(7)
    expected[3] = discount
    np.testing.assert_array_equal(trajectory.discount, np.broadcast_to(expected, [2, 3, 7]))
    np.testing.assert_array_equal(trajectory.mask, np.broadcast_to(np.arange(7) < 4, [2, 3, 7]))


def test_gymnasiums_own_time_limit_is_no_termination():
  def make():
    return gymnasium.wrappers.TimeLimit(Buttons(), max_episode_steps=3)

  _, trajectory, _ = rollouts(from_gymnasium(make, (-1,), (1,), horizon=5))
  np.testing.assert_array_equal(trajectory.discount, np.ones([2, 3, 5]))
  np.testing.assert_array_equal(trajectory.ends[..., 2], np.ones([2, 3]))


@pytest.mark.parametrize(("dtype", "low", "high"), [(np.int64, 0, 3), (np.int32, -2, 1), (np.uint8, 252, 255)])
def test_each_value_of_an_integer_box_has_an_equal_share(dtype, low, high):
  act = _action_function(gymnasium.spaces.Box(low, high, (1,), dtype))
  values = np.concatenate([act(np.array([action])) for action in np.linspace(-1, 1, 4001)])
  assert values.dtype == dtype
  found, counts = np.unique(values, return_counts=True)
  np.testing.assert_array_equal(found, np.arange(low, high + 1))
  np.testing.assert_allclose(counts / 4001, 0.25, atol=1e-3)
  assert act(np.array([-7.0])) == low and act(np.array([7.0])) == high and act(np.array([np.nan])) == low


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_factory_that_returns_one_object_is_refused(wrapped):
  one = Buttons()
  with pytest.raises(UserError, match="more than once, so that tasks would share one goal; each call has to make"):
    from_gymnasium(lambda: gymnasium.wrappers.OrderEnforcing(one) if wrapped else one, (-1,), (1,), horizon=5)


def test_so_is_one_that_repeats_itself_later():
  made = [Buttons(), Buttons()]
  endless = itertools.cycle(made)
  environment = from_gymnasium(lambda: next(endless), (-1,), (1,), horizon=5)
  with pytest.raises(Exception, match=r"UserError: from_gymnasium: make returned .* more than once"):
    rollouts(environment)


class Counter(Buttons):
  """Shows how often a button was pressed, as a number of a space of discrete ones."""

  observation_space = gymnasium.spaces.Discrete(5, start=2)

  def shown(self):
    return 2 + self.count

  def reset(self, **settings):
    super().reset(**settings)
    return self.shown(), {}

  def step(self, action):
    _, *rest = super().step(action)
    return self.shown(), *rest


class TwoCounters(Counter):
  observation_space = gymnasium.spaces.MultiDiscrete([5, 3], start=[2, -1])

  def shown(self):
    return np.array([2 + self.count, self.count % 3 - 1])


def test_discrete_observations_are_one_hot():
  environment = from_gymnasium(Counter, (-1,), (1,), horizon=4)
  assert environment.observation_dim == 5
  np.testing.assert_array_equal(rollouts(environment)[1].observation[1, 2], np.eye(5)[:4])
  environment = from_gymnasium(TwoCounters, (-1,), (1,), horizon=4)
  assert environment.observation_dim == 8
  expected = np.concatenate([np.eye(5)[:4], np.eye(3)[[0, 1, 2, 0]]], axis=1)
  np.testing.assert_array_equal(rollouts(environment)[1].observation[1, 2], expected)


def test_a_discrete_observation_outside_of_its_space_is_named():
  environment = from_gymnasium(Counter, (-1,), (1,), horizon=5)
  with pytest.raises(
    Exception, match=r"UserError: from_gymnasium: the environment's observation 7 is not in .*Discrete"
  ):
    rollouts(environment)


class Odd(gymnasium.Env):
  observation_space = gymnasium.spaces.Box(-1, 1, (2,))
  action_space = gymnasium.spaces.Box(-np.inf, np.inf, (2,))


def test_spaces_without_a_policy_are_named():
  with pytest.raises(UserError, match="bounded Box of one axis or Discrete"):
    from_gymnasium(Odd, (0,), (1,), horizon=5)


class Exploding(PointNavEnv):
  """Grows without bounds for some steps before it is no number any more, in one of its copies."""

  made = 0

  def __init__(self):
    super().__init__()
    self.explodes, self.count = Exploding.made == 4, 0
    Exploding.made += 1

  def step(self, action):
    self.count += 1
    observation, reward, *rest = super().step(action)
    if self.explodes:
      observation, reward = observation + 1e5**self.count, -(1e6**self.count) if self.count < 5 else np.nan
    return (observation, reward, *rest)

  def reset(self, **settings):
    self.count = 0
    return super().reset(**settings)


def test_growth_before_a_divergence_does_not_poison_the_update():
  environment = from_gymnasium(Exploding, (-0.5, -0.5), (0.5, 0.5), horizon=6)
  learner = MetaPolicySearch(
    policies.make_policy(environment, hidden=(8,)), environment, trpo.TRPO(), inner_lr=0.5, meta_batch_size=2,
    rollouts_per_task=6,
  )  # fmt: skip
  _, metrics = tracing.function(learner.train_step)(learner.initial_state(0), SEED)
  assert metrics["diverged_simulations"] == 2  # before and after the step
  assert all(np.isfinite(value) for value in metrics.values())
  assert metrics["accepted_step"] > 0 and metrics["return/step_0"] > -20


class Fragile(PointNavEnv):
  """Breaks at once where the goal is on the left, whatever is done."""

  def reset(self, *, seed=None, options=None):
    self.breaks = options["goal"][0] < 0
    return super().reset(seed=seed, options=options)

  def step(self, action):
    observation, reward, *rest = super().step(action)
    return observation, np.nan if self.breaks else reward, *rest


@pytest.mark.parametrize("left", [1, 4])
def test_tasks_without_a_return_are_left_out_of_the_mean_and_counted(left):
  environment = from_gymnasium(Fragile, (-0.5, -0.5), (0.5, 0.5), horizon=5)
  goals = tf.constant([[(-1.0) ** (task < left) * 0.3, 0.1] for task in range(4)])
  environment.sample_goals = lambda seed, shape: goals
  search = MetaPolicySearch(
    policies.make_policy(environment, hidden=(8,)), environment, trpo.TRPO(), inner_lr=0.1, meta_batch_size=4,
    rollouts_per_task=5,
  )  # fmt: skip

  def collected(weights):
    objective, metrics = search.objective(weights, SEED)
    return [batch.trajectory for batch in (*objective.inner_batches, objective.outer_batch)], metrics

  trajectories, metrics = tracing.function(collected)(search.initial_weights(0))
  assert metrics["tasks_without_return"] == left and metrics["diverged_simulations"] == 2 * 5 * left
  for step, trajectory in enumerate(trajectories):
    expected = trajectory.reward.numpy()[left:].sum(-1).mean() if left < 4 else np.nan
    np.testing.assert_allclose(metrics[f"return/step_{step}"], expected, rtol=1e-5)
  entropies = search.policy.from_info(trajectories[-1].policy_info).entropy().numpy()[left:]
  np.testing.assert_allclose(metrics["entropy"], entropies.mean() if left < 4 else np.nan, rtol=1e-5)
