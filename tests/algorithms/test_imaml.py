"""Implicit MAML against the closed form on quadratics, an unrolled inner loop, and its limit for a large lambda."""

import numpy as np
import pytest
import tensorflow as tf
from meta_batches import mlp, regression_batch, spread
from method_runs import trains_resumes_and_exports

from maml_tf import linear, models
from maml_tf import maml as inner_loop
from maml_tf.algorithms.imaml import ImplicitMAML
from maml_tf.errors import UserError
from maml_tf.experiments.config import resolve
from maml_tf.over_tasks import meta_gradients

LAMBDA = 2.0


def gradients_of(algorithm, weights, batch):
  return meta_gradients(algorithm.meta_loss, weights, batch).gradients


def closed_form(x, y, theta):
  """(minimum of mean (X w - y)^2 + lambda / 2 |w - theta|^2, the Hessian of the mean), X = [x, 1], by NumPy."""
  design = np.concatenate([x, np.ones_like(x)], axis=1)
  hessian = 2 * design.T @ design / len(x)
  return np.linalg.solve(hessian + LAMBDA * np.eye(2), LAMBDA * theta + 2 * design.T @ y[:, 0] / len(x)), hessian


def test_on_quadratics_it_is_the_closed_form(float64):
  """A linear model: lemma 1 with H known, (I + H / lambda)^-1 times the query gradient at the minimum."""
  model, batch = models.MLP(hidden=(), stddev=1.0), regression_batch()
  weights = {"dense_0/kernel": tf.constant([[0.7]], tf.float64), "dense_0/bias": tf.constant([-0.4], tf.float64)}
  algorithm = ImplicitMAML(model, "mse", 0.1, num_updates=200, proximal_weight=LAMBDA, cg_iterations=2)
  adapted = algorithm.adapt_final(weights, batch.support_x, batch.support_y, 200)
  expected = np.zeros(2)
  for t in range(3):
    minimum, hessian = closed_form(batch.support_x[t], batch.support_y[t], np.array([0.7, -0.4]))
    found = [adapted["dense_0/kernel"][t, 0, 0], adapted["dense_0/bias"][t, 0]]
    np.testing.assert_allclose(found, minimum, rtol=1e-6)
    design = np.concatenate([batch.query_x[t], np.ones_like(batch.query_x[t])], axis=1)
    query = 2 * design.T @ (design @ minimum - batch.query_y[t][:, 0]) / len(design)
    expected += np.linalg.solve(np.eye(2) + hessian / LAMBDA, query) / 3
  gradients = gradients_of(algorithm, weights, batch)
  found = [gradients["dense_0/kernel"][0, 0], gradients["dense_0/bias"][0]]
  np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_it_is_the_gradient_through_a_long_unrolled_inner_loop(float64):
  model, batch = models.MLP(hidden=(3,), stddev=1.0), regression_batch(num_tasks=2)
  weights = spread(model.initial_weights(0))
  algorithm = ImplicitMAML(model, "mse", 0.03, num_updates=300, proximal_weight=20.0, cg_iterations=10)
  with tf.GradientTape() as tape:
    tape.watch(weights)
    start, rates = algorithm._start(weights, batch.support_x)
    # The pull towards theta is a function of theta as well.
    loss_fn = algorithm._support_loss(start, batch.support_x, batch.support_y)
    adapted = inner_loop.unrolled(loss_fn, start, rates, 50, first_order=False)[0][-1]
    loss = tf.reduce_mean(algorithm._query_metrics(adapted, batch)["loss"])
  expected, found = tape.gradient(loss, weights), gradients_of(algorithm, weights, batch)
  for name in weights:
    np.testing.assert_allclose(found[name], expected[name], rtol=1e-6, atol=1e-9)


def test_a_large_lambda_leaves_the_plain_gradient(float64):
  model, batch = mlp(), regression_batch()
  weights = spread(model.initial_weights(0))
  algorithm = ImplicitMAML(model, "mse", 1e-9, num_updates=3, proximal_weight=1e8)
  with tf.GradientTape() as tape:
    tape.watch(weights)
    outputs = model.apply(weights, batch.query_x)
    loss = tf.reduce_mean((outputs - batch.query_y) ** 2)
  expected, found = tape.gradient(loss, weights), gradients_of(algorithm, weights, batch)
  adapted = algorithm.adapt(weights, batch.support_x, batch.support_y)[-1]
  for name in weights:
    np.testing.assert_allclose(found[name], expected[name], rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(adapted[name], np.stack([weights[name]] * 3), rtol=1e-5, atol=1e-6)


def test_conjugate_gradients_of_several_systems_solve_each():
  rng = np.random.default_rng(0)
  roots = rng.normal(size=(3, 4, 4))
  matrices, targets = roots @ roots.transpose(0, 2, 1) + np.eye(4), rng.normal(size=(3, 4))
  matrices[2] = -np.eye(4)  # no minimum to find: its task stays where it is, and leaves the others alone
  targets[1] = 0.0
  found = linear.conjugate_gradient_per_task(
    lambda v: {"a": tf.linalg.matvec(tf.constant(matrices), v["a"])}, {"a": tf.constant(targets)}, 8
  )["a"]
  np.testing.assert_allclose(found[0], np.linalg.solve(matrices[0], targets[0]), rtol=1e-6)
  np.testing.assert_array_equal(found[1:], np.zeros((2, 4)))


def test_chunks_of_tasks_give_the_same_gradients(float64):
  model, batch = mlp(norm="batch_norm"), regression_batch(num_tasks=4)
  algorithm = ImplicitMAML(model, "mse", 0.01, num_updates=3)
  weights = spread(model.initial_weights(0))
  whole, parts = (meta_gradients(algorithm.meta_loss, weights, batch, chunk) for chunk in (None, 2))
  for left, right in zip(tf.nest.flatten(whole), tf.nest.flatten(parts), strict=True):
    np.testing.assert_allclose(left, right, rtol=1e-9, atol=1e-12)


def test_it_trains_resumes_and_exports(tmp_path):
  results = trains_resumes_and_exports(tmp_path, learner="imaml", num_updates=4, update_lr=0.01)
  assert len(results["results"]["10"]["mse"]["mean"]) == 17


@pytest.mark.parametrize("given", [
  {"stop_grad": True}, {"checkpoint_inner_steps": True}, {"multi_step_iterations": 3}, {"meta_lr_schedule": "linear"},
], ids=str)  # fmt: skip
def test_settings_that_it_does_not_have_are_refused(given):
  with pytest.raises(UserError, match=f"^--{next(iter(given))}=") as error:
    resolve("omniglot", learner="imaml", **given)
  assert "\n" not in str(error.value)


def test_its_settings_are_its_own_and_must_make_sense():
  assert resolve("omniglot", learner="imaml").update_lr == 0.1 and resolve(learner="imaml").update_lr == 0.001
  with pytest.raises(UserError, match="--proximal_weight=3"):
    resolve(proximal_weight=3.0)
  with pytest.raises(UserError, match="--proximal_weight=0"):
    resolve(learner="imaml", proximal_weight=0.0)
  with pytest.raises(ValueError, match="proximal_weight: expected a number above 0"):
    ImplicitMAML(mlp(), proximal_weight=-1.0)
