"""The meta-gradient and the Hessian-vector products of policies, against finite differences in float64."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

from maml_tf import maml, tracing
from maml_tf.rl import environments, meta_trpo, policies, trpo, vpg
from maml_tf.rl.objective import MetaObjective
from maml_tf.rl.settings import Curvature, InnerLoop, with_settings
from maml_tf.rl.types import FIRST, LAST, MID, Trajectory
from maml_tf.training import optimizers

TASKS, ROLLOUTS, HORIZON, OBSERVATION = 3, 2, 5, 3


def small_policy(kind):
  if kind == "gaussian":
    return policies.GaussianMLP(OBSERVATION, 2, hidden=(6,))
  return policies.CategoricalMLP(OBSERVATION, 4, hidden=(6,))


def batch_of(policy, weights, seed, ended=False):
  """Random rollouts whose `policy_info` is of `weights` (with a task axis)."""
  rng = np.random.default_rng(seed)
  shape = [TASKS, ROLLOUTS, HORIZON]
  observation = tf.constant(rng.normal(size=[*shape, OBSERVATION]))
  distribution = policy.distribution(weights, observation)
  if policy.num_actions is None:
    action = distribution.mean + tf.exp(distribution.log_std) * rng.normal(size=[*shape, 2])
  else:
    action = tf.constant(rng.integers(0, 4, shape), tf.int32)
  step_type = np.full(shape, MID)
  step_type[..., 0] = FIRST
  if ended:  # one rollout that is over after two steps
    step_type[0, 1, 2:] = LAST
  reward = tf.constant(rng.normal(size=shape))
  trajectory = Trajectory(
    tf.constant(step_type), observation, action, distribution._asdict(), tf.constant(step_type), reward, reward * 0 + 1
  )
  return vpg.Batch(trajectory, tf.constant(rng.normal(size=shape)) * trajectory.mask)


def objective_of(kind, steps=1, seed=0, **settings):
  """(`MetaObjective` whose old policies are those that `weights` adapt to, weights), as after real rollouts."""
  policy = small_policy(kind)
  weights = policy.initial_weights(0)
  at = {n: tf.repeat(w[tf.newaxis], TASKS, axis=0) for n, w in weights.items()}
  inner = []
  for step in range(steps):
    inner.append(batch_of(policy, at, 10 * seed + step, ended=True))
    at = maml.inner_update(vpg.loss(policy, inner[-1]), at, 0.3)
  outer = batch_of(policy, at, 10 * seed + 9, ended=True)
  loop, curvature = with_settings([InnerLoop(inner_lr=0.3), Curvature()], settings)
  return MetaObjective(policy, inner, outer, loop, curvature), weights


def central_difference(function, weights, direction, epsilon=1e-5):
  """d function(weights + e direction) / de, of scalars or dicts of tensors."""
  ahead, behind = (function(trpo.add(weights, direction, sign * epsilon)) for sign in (1.0, -1.0))
  return tf.nest.map_structure(lambda a, b: (a - b) / (2 * epsilon), ahead, behind)


def random_like(weights, seed):
  rng = np.random.default_rng(seed)
  return {n: tf.constant(rng.normal(size=w.shape)) for n, w in weights.items()}


def gradient_of(function, weights):
  with tf.GradientTape() as tape:
    tape.watch(weights)
    value = function(weights)
  return tape.gradient(value, weights)


@pytest.mark.parametrize("kind", ["gaussian", "categorical"])
def test_at_the_old_parameters_the_ratio_is_1_and_the_kl_0(float64, kind):
  objective, weights = objective_of(kind)
  distribution = objective.distribution(weights)
  np.testing.assert_allclose(tf.exp(objective.log_ratio(distribution)), 1.0, rtol=1e-12)
  np.testing.assert_allclose(objective.kl(distribution), 0.0, atol=1e-14)
  expected = -np.mean(np.sum(objective.outer_batch.advantages, (1, 2)) / np.sum(objective._mask, (1, 2)))
  np.testing.assert_allclose(objective.surrogate(distribution), expected)


def test_a_task_without_steps_does_not_count_in_the_surrogate(float64):
  objective, weights = objective_of("gaussian")
  outer = objective.outer_batch
  kept = np.ones([TASKS, 1, 1], np.int32)
  kept[1] = 0
  trajectory = outer.trajectory._replace(step_type=tf.where(kept > 0, outer.trajectory.step_type, LAST))
  without = dataclasses.replace(objective, outer_batch=vpg.Batch(trajectory, outer.advantages * kept))
  moved = trpo.add(weights, random_like(weights, 0), 0.1)
  distribution = objective.distribution(moved)
  ratio, mask = np.exp(objective.log_ratio(distribution)), trajectory.mask.numpy()
  weighted = ratio * outer.advantages.numpy() * mask
  of_each = weighted.sum((1, 2))[[0, 2]] / mask.sum((1, 2))[[0, 2]]
  np.testing.assert_allclose(without.surrogate(distribution), -of_each.mean())


@pytest.mark.parametrize("steps", [1, 2])
@pytest.mark.parametrize("environment", [environments.PointNavigation(10), environments.Bandit()])
def test_so_they_are_on_rollouts_in_single_precision(environment, steps):
  """Adapting again, to the rollouts that were collected on the way, gives the policies that collected the last ones."""
  policy = policies.make_policy(environment, hidden=(8,))
  learner = meta_trpo.MetaPolicySearch(
    policy, environment, trpo.TRPO(), inner_lr=0.5, num_updates=steps, meta_batch_size=3, rollouts_per_task=4
  )
  weights = policy.initial_weights(0)
  objective, _ = learner.objective(weights, tf.constant([0, 1]))
  distribution = objective.distribution(weights)
  np.testing.assert_allclose(tf.exp(objective.log_ratio(distribution)), 1.0, atol=1e-4)
  np.testing.assert_allclose(objective.kl(distribution), 0.0, atol=1e-6)


@pytest.mark.parametrize("inner_loss", vpg.INNER_LOSSES.values())
@pytest.mark.parametrize("kind", ["gaussian", "categorical"])
@pytest.mark.parametrize("steps", [0, 1, 2])
def test_the_meta_gradient_equals_finite_differences(float64, kind, steps, inner_loss):
  objective, weights = objective_of(kind, steps, inner_loss=inner_loss)

  def surrogate(w):
    return objective.surrogate(objective.distribution(w))

  linear = trpo.linearise(objective.distribution, weights)
  _, weighting = trpo.value_and_gradient(objective.surrogate, linear.outputs)
  gradient = linear.pull_back(weighting)
  for seed in range(3):
    direction = random_like(weights, seed)
    expected = central_difference(surrogate, weights, direction)
    np.testing.assert_allclose(trpo.dot(gradient, direction), expected, rtol=1e-5)


@pytest.mark.parametrize("kind", ["gaussian", "categorical"])
@pytest.mark.parametrize("steps", [0, 1, 2])
def test_the_hessian_vector_product_equals_finite_differences_of_the_kl(float64, kind, steps):
  objective, weights = objective_of(kind, steps)
  vector = random_like(weights, 1)
  linear = trpo.linearise(objective.distribution, weights)
  product = linear.pull_back(objective.fisher(linear.outputs, linear.push_forward(vector)))

  def kl_gradient(w):
    return gradient_of(lambda v: objective.kl(objective.distribution(v)), w)

  expected = central_difference(kl_gradient, weights, vector)
  scale = max(np.abs(value).max() for value in expected.values())
  for name in weights:
    np.testing.assert_allclose(product[name], expected[name], rtol=1e-5, atol=1e-5 * scale)


def test_the_inner_losses_have_the_same_gradient_and_differ_by_the_outer_product_of_scores(float64):
  """d^2 (pi / pi_old) = d^2 log pi + (d log pi) (d log pi)^T at the old policy; here by finite differences."""
  policy = small_policy("gaussian")
  weights = {n: tf.repeat(w[tf.newaxis], TASKS, axis=0) for n, w in policy.initial_weights(0).items()}
  batch, direction = batch_of(policy, weights, 0, ended=True), random_like(weights, 1)

  def gradient(name):
    return lambda w: gradient_of(lambda v: tf.reduce_sum(vpg.INNER_LOSSES[name](policy, batch)(v)), w)

  for name in weights:
    np.testing.assert_allclose(gradient("ratio")(weights)[name], gradient("log_likelihood")(weights)[name], atol=1e-12)

  def scores(w):  # log pi of every step
    t = batch.trajectory
    return policy.distribution(w, t.observation).log_prob(t.action)

  slope = central_difference(scores, weights, direction)
  outer_product = -tf.reduce_sum(vpg.mean_over_steps(slope**2 * batch.advantages, batch.trajectory.mask))
  curved = [trpo.dot(central_difference(gradient(n), weights, direction), direction) for n in vpg.INNER_LOSSES]
  np.testing.assert_allclose(curved[1] - curved[0], outer_product, rtol=1e-5)


def test_first_order_leaves_out_the_derivative_of_the_inner_step(float64):
  objective, weights = objective_of("gaussian")
  first, _ = objective_of("gaussian", first_order=True)
  adapted = {n: tf.repeat(w[tf.newaxis], TASKS, axis=0) for n, w in weights.items()}
  adapted = maml.inner_update(vpg.loss(first.policy, first.inner_batches[0]), adapted, 0.3)
  observation = first.outer_batch.trajectory.observation
  at_adapted = gradient_of(lambda w: first.surrogate(first.policy.distribution(w, observation)), adapted)
  expected = {n: tf.reduce_sum(g, axis=0) for n, g in at_adapted.items()}
  got = gradient_of(lambda w: first.surrogate(first.distribution(w)), weights)
  second = gradient_of(lambda w: objective.surrogate(objective.distribution(w)), weights)
  for name in weights:
    np.testing.assert_allclose(got[name], expected[name], rtol=1e-9, atol=1e-12)
  assert any(np.abs(second[n] - got[n]).max() > 1e-3 for n in weights)


def test_finite_differences_of_the_kl_are_offered_too(float64):
  objective, weights = objective_of("gaussian")
  vector = random_like(weights, 1)
  exact = trpo.TRPO()._hessian(objective, weights, trpo.linearise(objective.distribution, weights))(vector)
  close = trpo.TRPO(hvp="finite_difference")._hessian(objective, weights, None)(vector)
  assert trpo.dot(exact, close) / tf.sqrt(trpo.dot(exact, exact) * trpo.dot(close, close)) > 0.999


def test_conjugate_gradient_solves_as_numpy_does(float64):
  rng = np.random.default_rng(0)
  root = rng.normal(size=(6, 6))
  matrix, target = root @ root.T + np.eye(6), rng.normal(size=6)

  def product(vector):
    out = tf.linalg.matvec(tf.constant(matrix), tf.concat([vector["a"], vector["b"]], 0))
    return {"a": out[:2], "b": out[2:]}

  x, residual, count = trpo.conjugate_gradient(product, {"a": tf.constant(target[:2]), "b": tf.constant(target[2:])})
  np.testing.assert_allclose(tf.concat([x["a"], x["b"]], 0), np.linalg.solve(matrix, target), rtol=1e-6)
  np.testing.assert_allclose(tf.concat([residual["a"], residual["b"]], 0), 0, atol=1e-4)
  assert count <= 7


@pytest.mark.parametrize(("kind", "steps", "hvp"), [
  ("gaussian", 1, "exact"), ("gaussian", 1, "finite_difference"), ("gaussian", 2, "exact"), ("categorical", 1, "exact"),
])  # fmt: skip
@pytest.mark.parametrize("max_kl", [1e-4, 1e-2, 1.0])
def test_a_step_improves_the_surrogate_within_its_bound(float64, max_kl, kind, steps, hvp):
  for seed in range(3):
    objective, weights = objective_of(kind, steps, seed=seed)
    new, _, metrics = trpo.TRPO(max_kl=max_kl, hvp=hvp).update(objective, weights, {})
    distribution = objective.distribution(new)
    assert metrics["accepted_step"] > 0
    assert objective.kl(distribution) <= max_kl
    assert objective.surrogate(distribution) < metrics["loss"]
    np.testing.assert_allclose(objective.kl(distribution), metrics["kl"])


def test_where_no_step_is_good_the_weights_stay(float64):
  objective, weights = objective_of("gaussian")
  new, _, metrics = trpo.TRPO(max_kl=1e-2, max_backtracks=0).update(objective, weights, {})
  assert metrics["accepted_step"] == 0
  for name in weights:
    np.testing.assert_array_equal(new[name], weights[name])


def test_part_of_the_tasks_is_enough_for_the_curvature(float64):
  objective, weights = objective_of("gaussian", hvp_subsample=1 / 3, hvp_sample="tasks")
  sample = objective.curvature_sample()
  assert sample.outer_batch.advantages.shape[0] == 1
  assert sample.inner_batches[0].trajectory.observation.shape[0] == 1
  _, _, metrics = trpo.TRPO().update(objective, weights, {})
  assert metrics["accepted_step"] > 0 and metrics["kl"] <= 0.01


def test_part_of_the_time_steps_is_too(float64):
  objective, weights = objective_of("gaussian", hvp_subsample=0.4)
  sample = objective.curvature_sample()
  for whole, part in (
    (objective.outer_batch, sample.outer_batch),
    (objective.inner_batches[0], sample.inner_batches[0]),
  ):
    np.testing.assert_array_equal(part.trajectory.observation, whole.trajectory.observation.numpy()[:, :, [0, 2]])
    np.testing.assert_array_equal(part.advantages, whole.advantages.numpy()[:, :, [0, 2]])
  _, _, metrics = trpo.TRPO().update(objective, weights, {})
  assert metrics["accepted_step"] > 0 and metrics["kl"] <= 0.01
  assert objective_of("gaussian", hvp_subsample=0.95)[0].curvature_sample().curvature.hvp_subsample == 0.95  # all five


@pytest.mark.parametrize("setting", [{"hvp_subsample": 0.0}, {"hvp_subsample": 1.5}, {"hvp_sample": "rollouts"}])
def test_a_share_of_nothing_is_refused(setting):
  with pytest.raises(ValueError, match=f"Curvature: {next(iter(setting))} must be"):
    Curvature(**setting)


def test_signs_in_a_row_lead_to_exact_products_for_good():
  escalation = trpo.Escalation(patience=3, shortened=1.0, residual=0.9)

  def after(steps, signs=0):
    for accepted, residual in steps:
      metrics = {"accepted_step": tf.constant(accepted), "cg_residual": tf.constant(residual)}
      signs = escalation.count(tf.constant(signs), metrics)
    return int(signs), bool(escalation.reached(signs))

  short, bad, good = (0.8, 0.1), (1.0, 0.95), (1.0, 0.1)
  assert after([short, bad]) == (2, False)
  assert after([short, bad, good, short]) == (1, False)
  assert after([short, bad, short]) == (3, True)
  assert after([short, bad, short, good, good]) == (3, True)
  assert after([(0.0, 0.1)] * 3) == (3, True)  # no step at all is a short one


@pytest.mark.parametrize("sample", ["steps", "tasks"])
def test_the_escalation_begins_on_the_sample_and_ends_on_everything(float64, sample):
  settings = dict(hvp_subsample=0.4, hvp_sample=sample)
  part, weights = objective_of("gaussian", **settings)
  whole, _ = objective_of("gaussian")
  outer = trpo.TRPO(escalation=trpo.Escalation(patience=2, shortened=2.0))  # every step is short
  assert trpo.TRPO().initial_state(weights) == {}
  update = tracing.function(lambda state: outer.update(part, weights, state))
  state, found = outer.initial_state(weights), []
  for expected in (trpo.TRPO().update(part, weights, {})[0],) * 2 + (trpo.TRPO().update(whole, weights, {})[0],) * 2:
    new, state, metrics = update(state)
    found.append(int(metrics["exact_products"]))
    for name in weights:
      np.testing.assert_allclose(new[name], expected[name], rtol=1e-9, atol=1e-12)
  assert found == [0, 0, 1, 1] and update.experimental_get_tracing_count() == 1


def test_one_gradient_step_outside_is_the_policy_gradient(float64):
  objective, weights = objective_of("gaussian")
  outer = meta_trpo.GradientSteps(optimizers.SGD(0.1))
  new, _, _ = outer.update(objective, weights, outer.initial_state(weights))

  def log_likelihood(w):
    log_prob = objective.distribution(w).log_prob(objective.outer_batch.trajectory.action)
    return -tf.reduce_mean(vpg.mean_over_steps(log_prob * objective.outer_batch.advantages, objective._mask))

  gradient = gradient_of(log_likelihood, weights)
  for name in weights:
    np.testing.assert_allclose(new[name], weights[name] - 0.1 * gradient[name], rtol=1e-6, atol=1e-9)


def test_ppo_clips_what_would_go_too_far(float64):
  objective, weights = objective_of("gaussian")
  moved = trpo.add(weights, random_like(weights, 0), 0.5)
  distribution = objective.distribution(moved)
  ratio, gain = np.exp(objective.log_ratio(distribution)), objective.outer_batch.advantages.numpy()
  lower = np.minimum(ratio * gain, np.clip(ratio, 0.8, 1.2) * gain)
  expected = -np.mean(lower.sum((1, 2)) / objective._mask.numpy().sum((1, 2)))
  np.testing.assert_allclose(objective.clipped_surrogate(distribution, 0.2), expected)
  outer = meta_trpo.GradientSteps(optimizers.Adam(0.01), num_steps=3, clip=0.2)
  _, _, metrics = outer.update(objective, weights, outer.initial_state(weights))
  assert metrics["surrogate_after"] < metrics["loss"]


def test_the_vpg_loss_is_the_masked_mean(float64):
  policy = small_policy("gaussian")
  weights = {n: tf.repeat(w[tf.newaxis], TASKS, axis=0) for n, w in policy.initial_weights(0).items()}
  batch = batch_of(policy, weights, 3, ended=True)
  log_prob = policy.distribution(weights, batch.trajectory.observation).log_prob(batch.trajectory.action).numpy()
  expected = [
    -sum(
      log_prob[t, r, h] * batch.advantages.numpy()[t, r, h]
      for r in range(ROLLOUTS) for h in range(HORIZON) if not (t == 0 and r == 1 and h >= 2)
    ) / (ROLLOUTS * HORIZON - (3 if t == 0 else 0))
    for t in range(TASKS)
  ]  # fmt: skip
  np.testing.assert_allclose(vpg.loss(policy, batch)(weights), expected)


@pytest.mark.parametrize("outer", [trpo.TRPO(), meta_trpo.GradientSteps(optimizers.Adam(0.02), 3, 0.3)])
def test_a_bandit_is_learned_in_seconds(outer):
  keras.config.set_floatx("float32")
  environment = environments.Bandit(num_actions=3, horizon=10)
  learner = meta_trpo.MetaPolicySearch(
    policies.CategoricalMLP(1, 3, hidden=(16,)), environment, outer, inner_lr=0.5, num_updates=2,
    meta_batch_size=20, rollouts_per_task=20, eval_updates=2,
  )  # fmt: skip
  state, step = learner.initial_state(0), tracing.function(learner.train_step)
  before = learner.evaluate(state, tf.constant([7, 7]), 200)["return"]
  for iteration in range(20):
    state, _ = step(state, tf.constant([0, iteration]))
  assert step.experimental_get_tracing_count() == 1
  after = learner.evaluate(state, tf.constant([7, 7]), 200)["return"]
  # Of 10 pulls of a random arm, 5 win; of the best of three, 7.5.
  assert abs(np.mean(before[0]) - 5.0) < 0.5
  assert np.mean(after[2]) > np.mean(before[2]) + 0.4


def test_a_setting_goes_to_its_group_and_an_unknown_one_is_named():
  environment = environments.Bandit()
  policy = policies.make_policy(environment)
  search = meta_trpo.MetaPolicySearch(
    policy, environment, trpo.TRPO(), inner=InnerLoop(num_updates=2), inner_lr=0.5, discount=0.9, rollouts_per_task=7
  )
  assert search.inner == InnerLoop(inner_lr=0.5, num_updates=2)
  assert (search.estimator.discount, search.sampling.rollouts_per_task) == (0.9, 7)
  assert (search.evaluation.eval_lr, search.evaluation.eval_rollouts) == (0.5, 7)
  with pytest.raises(TypeError, match="unexpected setting inner_rate; there are inner_lr, num_updates"):
    meta_trpo.MetaPolicySearch(policy, environment, trpo.TRPO(), inner_rate=0.5)
