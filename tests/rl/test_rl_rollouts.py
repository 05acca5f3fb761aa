"""Rollouts in the graph, their advantages, and policies, against arithmetic by hand and NumPy."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from maml_tf import tracing
from maml_tf.rl import environments, policies
from maml_tf.rl.advantages import advantages, discounted_sums, linear_values
from maml_tf.rl.rollouts import collect
from maml_tf.rl.types import FIRST, LAST, MID

SEED = tf.constant([3, 4])


class OneEpisode(environments.PointNavigation):
  """2D navigation whose rollouts are idle after the end of their episode."""

  restarts = False


@pytest.fixture
def rollouts():
  """(environment, goals, trajectory) of 2D navigation with a goal so near that some rollouts reach it."""
  environment = OneEpisode(horizon=60)
  policy = policies.make_policy(environment)
  goals = tf.tile(tf.constant([[[0.0, 0.0]], [[0.3, -0.2]]]), [1, 200, 1])
  trajectory, diverged = tracing.function(collect)(policy, policy.initial_weights(0), environment, goals, SEED)
  assert diverged == 0
  return environment, goals, trajectory


def test_a_point_moves_by_its_clipped_action_and_is_rewarded_by_distance(rollouts):
  _, goals, trajectory = rollouts
  moved = np.clip(trajectory.action, -1, 1) * 0.1
  position = np.cumsum(moved, axis=2)
  np.testing.assert_allclose(trajectory.observation[:, :, 1:], position[:, :, :-1], atol=1e-5)
  np.testing.assert_array_equal(trajectory.observation[:, :, 0], 0)
  distance = np.linalg.norm(position - goals[:, :, np.newaxis], axis=-1)
  mask = trajectory.mask.numpy()
  np.testing.assert_allclose(trajectory.reward, -distance * mask, atol=1e-5)
  np.testing.assert_allclose(trajectory.mean_return, (-distance * mask).sum(-1).mean(-1), rtol=1e-4)


def test_an_episode_ends_at_the_goal_or_at_the_time_limit(rollouts):
  _, goals, trajectory = rollouts
  step_type, next_type, mask = (np.array(v) for v in (trajectory.step_type, trajectory.next_step_type, trajectory.mask))
  position = np.cumsum(np.clip(trajectory.action, -1, 1) * 0.1, axis=2)
  reached = (np.abs(position - goals[:, :, np.newaxis]) < 0.01).all(-1)
  ended_early = 0
  for task, rollout in np.ndindex(reached.shape[:2]):
    hits = np.flatnonzero(reached[task, rollout])
    length = hits[0] + 1 if len(hits) else 60
    ended_early += length < 60
    np.testing.assert_array_equal(mask[task, rollout], np.arange(60) < length)
    assert step_type[task, rollout, 0] == FIRST and (step_type[task, rollout, 1:length] == MID).all()
    assert (step_type[task, rollout, length:] == LAST).all()
    assert next_type[task, rollout, length - 1] == LAST and (next_type[task, rollout, : length - 1] == MID).all()
    discount = trajectory.discount[task, rollout].numpy()
    assert discount[length - 1] == (0 if len(hits) else 1) and (discount[: length - 1] == 1).all()
  assert ended_early > 3


def test_another_episode_begins_where_one_ends_until_a_task_has_enough_steps():
  environment = environments.PointNavigation(horizon=20)
  policy = policies.make_policy(environment)
  goals = tf.tile(tf.constant([[[0.0, 0.0]], [[0.9, 0.9]]]), [1, 300, 1])
  weights = policy.initial_weights(0) | {"log_std": tf.constant([-1.5, -1.5])}
  trajectory, _ = tracing.function(collect)(policy, weights, environment, goals, SEED, num_steps=40)
  moved = np.clip(trajectory.action, -1, 1) * 0.1
  episodes = {0: [], 1: []}  # of each task: (end, rollout, begin)
  for task, rollout in np.ndindex(2, 300):
    position, begin = np.zeros(2), 0
    for t in range(40):
      np.testing.assert_allclose(trajectory.observation[task, rollout, t], position, atol=1e-5)
      position = position + moved[task, rollout, t]
      if (np.abs(position - goals[task, rollout]) < 0.01).all() or t - begin == 19:
        episodes[task].append((t, rollout, begin))
        position, begin = np.zeros(2), t + 1
  mask = np.zeros((2, 300, 40))
  for task in episodes:
    total = 0
    for end in range(40):
      for _, rollout, begin in (e for e in episodes[task] if e[0] == end):
        mask[task, rollout, begin : end + 1] = 1
        total += end + 1 - begin
      if total >= 300 * 20:
        break
  np.testing.assert_array_equal(trajectory.mask, mask)
  assert mask[0, :, 20:].sum() > 100 and mask[1, :, 20:].sum() == 0
  counted = [(end, r, b) for end, r, b in episodes[0] if mask[0, r, end]]
  distance = [np.linalg.norm(np.cumsum(moved[0, r, b : end + 1], 0), axis=-1).sum() for end, r, b in counted]
  np.testing.assert_allclose(trajectory.mean_return[0], -np.mean(distance), rtol=1e-4)
  age = np.zeros((2, 300, 40))
  for task in episodes:
    for end, rollout, begin in episodes[task]:
      age[task, rollout, begin : end + 1] = np.arange(end + 1 - begin)
  np.testing.assert_array_equal(trajectory.age * mask, age * mask)
  np.testing.assert_array_equal(trajectory.ends.numpy().sum((1, 2)), [len(counted), 300])


def test_the_recorded_distribution_is_the_one_that_acted(rollouts):
  environment, _, trajectory = rollouts
  policy = policies.make_policy(environment)
  distribution = policy.distribution(policy.initial_weights(0), trajectory.observation)
  np.testing.assert_allclose(distribution.mean, trajectory.policy_info["mean"], atol=1e-6)
  scaled = (trajectory.action - distribution.mean) / np.exp(distribution.log_std)
  assert abs(np.mean(scaled)) < 0.02 and abs(np.std(scaled) - 1) < 0.02


def test_weights_of_each_task_act_in_that_task():
  environment = environments.PointNavigation(horizon=3)
  policy = policies.make_policy(environment, hidden=(4,))
  plain = [policy.initial_weights(seed) for seed in (0, 1)]
  goals = tf.constant([[[0.2, 0.1]], [[0.1, 0.3]]])
  both = {n: tf.stack([w[n] + 0.1 for w in plain]) for n in plain[0]}
  together, _ = collect(policy, both, environment, goals, SEED)
  alone = policy.distribution({n: w + 0.1 for n, w in plain[1].items()}, together.observation[1:])
  np.testing.assert_allclose(together.policy_info["mean"][1:], alone.mean, atol=1e-6)


def test_the_same_seed_gives_the_same_rollouts_and_another_does_not():
  environment = environments.PointNavigation(horizon=5)
  policy = policies.make_policy(environment, hidden=(4,))
  goals = tf.zeros([2, 3, 2]) + 0.2
  first, again, other = (
    collect(policy, policy.initial_weights(0), environment, goals, tf.constant(seed))[0]
    for seed in ([1, 2], [1, 2], [1, 3])
  )
  np.testing.assert_array_equal(first.action, again.action)
  assert np.abs(first.action - other.action).max() > 0.1
  assert np.abs(first.action[0, 0] - first.action[0, 1]).max() > 0.1  # rollouts of a task differ


def test_the_oracle_sees_the_goal():
  environment = environments.GoalObserved(environments.PointNavigation(horizon=4))
  policy = policies.make_policy(environment, hidden=(4,))
  goals = environment.sample_goals(SEED, [2, 3])
  trajectory, _ = collect(policy, policy.initial_weights(0), environment, goals, SEED)
  shown = np.broadcast_to(goals[:, :, np.newaxis], [2, 3, 4, 2])
  np.testing.assert_array_equal(trajectory.observation[..., 2:], shown)


def test_the_oracle_restarts_and_closes_as_the_environment_within_does():
  closed = []

  class Inner(environments.PointNavigation):
    def close(self):
      closed.append(self)

  oracle = environments.GoalObserved(Inner(horizon=4))
  assert oracle.restarts and not environments.GoalObserved(OneEpisode()).restarts
  state, _ = oracle.reset(SEED, tf.constant([[[0.3, 0.2], [0.1, 0.4]]]))
  state, _, _, _ = oracle.step(state, tf.ones([1, 2, 2]))
  state, observation = oracle.restart(state, tf.constant([[True, False]]))
  np.testing.assert_allclose(observation, [[[0, 0, 0.3, 0.2], [0.1, 0.1, 0.1, 0.4]]], rtol=1e-6)
  oracle.close()
  assert closed == [oracle.environment]


def test_an_environment_needs_no_more_than_its_tasks():
  environments.Bandit().close()
  assert not environments.Bandit().restarts

  class Halfway(environments.Bandit):
    restarts = True

  with pytest.raises(NotImplementedError, match="Halfway: restarts is True"):
    Halfway().restart({}, tf.zeros([1, 1], tf.bool))


def test_a_tabular_process_follows_its_table():
  environment = environments.TabularMDP(num_states=3, num_actions=2, horizon=20)
  rewards = np.arange(6.0) * 100
  chances = np.zeros((6, 3))
  chances[np.arange(6), [1, 2, 2, 0, 0, 1]] = 1.0
  goal = tf.constant(np.concatenate([rewards, chances.ravel()]), tf.float32)
  policy = policies.make_policy(environment, hidden=(4,))
  goals = tf.tile(goal[tf.newaxis, tf.newaxis], [2, 3, 1])
  trajectory, _ = collect(policy, policy.initial_weights(0), environment, goals, SEED)
  state = np.argmax(trajectory.observation, -1)
  pair = state * 2 + trajectory.action.numpy()
  np.testing.assert_array_equal(state[..., 1:], np.argmax(chances, -1)[pair][..., :-1])
  assert np.abs(trajectory.reward - rewards[pair]).max() < 6


def test_transitions_of_random_processes_are_probabilities():
  environment = environments.TabularMDP()
  goals = environment.sample_goals(SEED, [7]).numpy()
  chances = goals[:, 15:].reshape(7, 5, 3, 5)
  np.testing.assert_allclose(chances.sum(-1), 1.0, rtol=1e-5)
  assert chances.min() >= 0


@pytest.mark.parametrize("make", [environments.PointNavigation, environments.Bandit])
def test_goals_fill_their_range(make):
  environment = make()
  goals = environment.sample_goals(SEED, [2000]).numpy()
  low, high = np.array(environment.goal_low), np.array(environment.goal_high)
  assert (goals >= low).all() and (goals < high).all()
  np.testing.assert_allclose(goals.mean(0), (low + high) / 2, atol=0.05)


def test_half_of_the_directions_are_forward():
  environment = environments.PointNavigation()
  environment.goal_is_sign = True
  for shape in ([2000], [1, 6], [3, 2]):
    goals = environment.sample_goals(SEED, shape).numpy()
    assert goals.shape == (*shape, 2) and set(np.unique(goals)) == {-1.0, 1.0}
    assert not goals.reshape(-1, 2).sum(axis=0).any()


@pytest.mark.parametrize("num", [1, 3])
def test_each_direction_is_as_likely_for_every_task(num):
  environment = environments.Bandit()
  environment.goal_is_sign = True
  sample = tracing.function(lambda seed: environment.sample_goals(seed, [num]))
  goals = np.array([sample(tf.constant([seed, 7])) for seed in range(400)])
  assert np.abs(goals.mean(axis=0)).max() < 0.15  # three standard errors


# Advantages -----------------------------------------------------------------------------------------------------------


def test_discounted_sums_by_hand():
  values = tf.constant([[1.0, 2.0, 4.0, 8.0]], tf.float64)
  np.testing.assert_allclose(discounted_sums(values, 0.5, tf.ones([1, 4])), [[1 + 1 + 1 + 1, 2 + 2 + 2, 4 + 4, 8]])
  np.testing.assert_allclose(discounted_sums(values, 0.5, [[1.0, 0.0, 1.0, 0.0]]), [[1 + 1, 2, 4 + 4, 8]])
  np.testing.assert_allclose(discounted_sums(values, 0.0, tf.ones([1, 4])), values)


def test_the_linear_values_are_numpys_ridge_regression(rollouts):
  _, _, trajectory = rollouts
  targets = discounted_sums(trajectory.reward, 0.99, 1 - trajectory.ends)
  values = linear_values(trajectory, targets).numpy()
  for task in range(2):
    keep = trajectory.mask[task].numpy().astype(bool)
    o = np.clip(trajectory.observation[task].numpy().astype(np.float64), -10, 10)
    t = np.broadcast_to((np.arange(60) / 100)[None, :, None], [*o.shape[:2], 1])
    rows = np.concatenate([o, o**2, t, t**2, t**3, np.ones_like(t)], -1)[keep]
    wanted = targets[task].numpy()[keep]
    solved = np.linalg.solve(rows.T @ rows + 1e-5 * np.eye(8), rows.T @ wanted)
    np.testing.assert_allclose(values[task][keep], rows @ solved, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("gae_lambda", [1.0, 0.5])
@pytest.mark.parametrize("baseline", ["linear", "zero"])
def test_generalised_advantages_are_the_recursion(rollouts, gae_lambda, baseline):
  _, _, trajectory = rollouts
  got = advantages(trajectory, 0.9, gae_lambda, baseline).numpy()
  reward, mask = trajectory.reward.numpy().astype(np.float64), trajectory.mask.numpy()
  values = np.zeros_like(reward)
  if baseline == "linear":
    values = linear_values(trajectory, discounted_sums(trajectory.reward, 0.9, 1 - trajectory.ends)).numpy() * mask
  raw, later = np.zeros_like(reward), np.zeros(reward.shape[:2])
  for t in reversed(range(60)):
    next_value = values[..., t + 1] if t + 1 < 60 else 0
    later = reward[..., t] + 0.9 * next_value - values[..., t] + 0.9 * gae_lambda * later
    raw[..., t] = later
  for task in range(2):
    kept = raw[task][mask[task] == 1]
    expected = (raw[task] - kept.mean()) / kept.std() * mask[task]
    np.testing.assert_allclose(got[task], expected, rtol=2e-3, atol=2e-3)


def test_an_unknown_baseline_is_named(rollouts):
  with pytest.raises(ValueError, match="linear or zero"):
    advantages(rollouts[2], baseline="cubic")


# Policies -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("sizes", "count"), [((2, 2), 10_604), ((20, 6), 12_812), ((125, 8), 23_516)])
def test_the_published_parameter_counts(sizes, count):
  weights = policies.GaussianMLP(*sizes).initial_weights(0)
  assert sum(int(tf.size(w)) for w in weights.values()) == count


def test_initial_weights_are_xavier_uniform_with_unit_deviation():
  weights = policies.GaussianMLP(20, 6).initial_weights(0)
  for name, limit in (("dense_0/kernel", 120), ("dense_1/kernel", 200), ("dense_2/kernel", 106)):
    bound = np.sqrt(6 / limit)
    assert 0.95 * bound < np.abs(weights[name]).max() <= bound
  np.testing.assert_array_equal(weights["log_std"], 0)
  np.testing.assert_array_equal(weights["dense_0/bias"], 0)


def test_the_network_is_relu_layers_by_hand():
  policy = policies.GaussianMLP(3, 2, hidden=(5,))
  weights = {n: w + 0.1 for n, w in policy.initial_weights(1).items()}
  x = np.random.default_rng(0).normal(size=(1, 4, 3)).astype(np.float32)
  hidden = np.maximum(x @ weights["dense_0/kernel"] + weights["dense_0/bias"], 0)
  expected = hidden @ weights["dense_1/kernel"] + weights["dense_1/bias"]
  distribution = policy.distribution(weights, tf.constant(x))
  np.testing.assert_allclose(distribution.mean, expected, rtol=1e-5, atol=1e-6)
  np.testing.assert_allclose(distribution.log_std, np.full((1, 4, 2), 0.1), rtol=1e-6)


def test_the_deviation_has_a_floor():
  policy = policies.GaussianMLP(3, 2, hidden=(5,))
  weights = policy.initial_weights(0) | {"log_std": tf.constant([-50.0, 0.0])}
  log_std = policy.distribution(weights, tf.zeros([1, 1, 3])).log_std
  np.testing.assert_allclose(log_std[0, 0], [np.log(1e-6), 0.0], rtol=1e-6)


def test_policies_are_keras_models():
  policy = policies.CategoricalMLP(3, 4, hidden=(5,))
  assert isinstance(policy, keras.Model)
  assert policy(np.zeros((2, 3), np.float32)).shape == (2, 4)
