"""PLATIPUS and Bayesian MAML against MAML, SciPy and formulas written out by hand."""

import math

import numpy as np
import pytest
import tensorflow as tf
from finite_differences import relative_error
from meta_batches import mlp, regression_batch, spread

from maml_tf import MAML, randomness, tasks
from maml_tf.algorithms.bmaml import BayesianMAML, svgd_direction
from maml_tf.algorithms.platipus import PLATIPUS, kl_divergence, noise_like
from maml_tf.over_tasks import meta_gradients

SEED = randomness.make_seed(3)


# PLATIPUS -------------------------------------------------------------------------------------------------------------


def test_without_variance_and_gammas_it_is_maml(float64):
  model, batch = mlp(), regression_batch()
  plain = spread(model.initial_weights(0))
  algorithm = PLATIPUS(model, "mse", 0.05, num_updates=2)
  weights = algorithm.initial_weights(0) | plain
  weights |= {name: tf.fill(w.shape, tf.constant(-200.0, w.dtype)) for name, w in weights.items() if "variance" in name}
  weights |= {"gamma_p": tf.constant(0.0, tf.float64), "gamma_q": tf.constant(0.0, tf.float64)}
  maml = MAML(model, "mse", 0.05, num_updates=2)
  expected = meta_gradients(maml.meta_loss, plain, batch)
  found = meta_gradients(PLATIPUS(model, "mse", 0.05, 0.0, num_updates=2).meta_loss, weights, batch, seed=SEED)
  np.testing.assert_allclose(found.loss, expected.loss, rtol=1e-12)
  assert float(algorithm.meta_loss(weights, batch, SEED)[1]["kl_divergence"]) == 0.0
  for name, gradient in expected.gradients.items():
    np.testing.assert_allclose(found.gradients[name], gradient, rtol=1e-9, atol=1e-12)
  measured, of_maml = (a.evaluate(w, batch, 3)["loss"] for a, w in ((algorithm, weights), (maml, plain)))
  np.testing.assert_allclose(measured, of_maml, rtol=1e-9)


def test_its_gradient_goes_through_everything(float64):
  model, batch = mlp(), regression_batch()
  algorithm = PLATIPUS(model, "mse", 0.05, kl_weight=0.01)
  weights = algorithm.initial_weights(0) | spread(model.initial_weights(0))
  gradients = meta_gradients(algorithm.meta_loss, weights, batch, seed=SEED).gradients
  loss = tf.function(lambda w: algorithm.meta_loss(w, batch, SEED)[0], autograph=False)
  assert relative_error(loss, weights, gradients) < 1e-5
  assert all(np.abs(gradients[name]).max() > 0 for name in ("gamma_p", "gamma_q", "log_prior_variance/dense_0/kernel"))


def test_the_divergence_is_that_of_gaussians_and_none_of_equal_ones(float64):
  rng = np.random.default_rng(0)
  mean, other = ({"w": rng.normal(size=(2, 3))} for _ in range(2))
  log_variance, other_log_variance = ({"w": rng.normal(size=3)} for _ in range(2))
  found = kl_divergence(mean, log_variance, other, other_log_variance)
  v, u = np.exp(log_variance["w"]), np.exp(other_log_variance["w"])
  expected = 0.5 * (np.log(u / v) + (v + (mean["w"] - other["w"]) ** 2) / u - 1).sum(axis=1)
  np.testing.assert_allclose(found, expected, rtol=1e-12)
  np.testing.assert_array_equal(kl_divergence(mean, log_variance, mean, log_variance), [0.0, 0.0])


def test_draws_differ_by_task_and_seed_and_not_by_chunk():
  four, two = ({"w": tf.zeros([n, 500])} for n in (4, 2))
  noise = noise_like(four, SEED)["w"].numpy()
  np.testing.assert_array_equal(noise_like(two, SEED)["w"], noise[:2])
  assert abs(noise.mean()) < 0.1 and abs(noise.std() - 1) < 0.1 and np.abs(noise[0] - noise[1]).max() > 0.5
  model, batch = mlp(), regression_batch()
  algorithm = PLATIPUS(model, "mse", 0.05)
  drawn = algorithm.hypotheses(
    algorithm.initial_weights(0), batch.support_x, batch.support_y, batch.query_x, 2, SEED, 3
  )
  assert drawn.shape == (3, *batch.query_y.shape) and np.abs(drawn[0] - drawn[1]).max() > 0


# Bayesian MAML --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [2, 4])
def test_svgd_by_its_formula(float64, count):
  rng = np.random.default_rng(count)
  x, g = rng.normal(size=(2, count, 3)), rng.normal(size=(2, count, 3))
  found = svgd_direction(tf.constant(x), tf.constant(g)).numpy()
  for t in range(2):
    pairs = [((x[t, i] - x[t, j]) ** 2).sum() for i in range(count) for j in range(i)]
    h = np.median(pairs) / math.log(count + 1)
    for m in range(count):
      expected = np.zeros(3)
      for j in range(count):
        k = math.exp(-((x[t, j] - x[t, m]) ** 2).sum() / h)
        expected += k * g[t, j] - 2 / h * (x[t, j] - x[t, m]) * k
      np.testing.assert_allclose(found[t, m], expected / count, rtol=1e-10)


def test_the_chaser_loss_is_the_distance_to_a_leader_that_stands_still(float64):
  model, batch = mlp(), regression_batch()
  algorithm = BayesianMAML(model, "mse", 0.05, num_particles=3, num_updates=2, leader_updates=2)
  weights = spread(algorithm.initial_weights(0))
  loss, _, _ = algorithm.meta_loss(weights, batch)
  chaser = algorithm.adapt(weights, batch.support_x, batch.support_y, 2)
  total = 0.0
  for t in range(3):
    of_task = {name: values[t] for name, values in chaser.items()}
    both = (
      np.concatenate([s[t], q[t]])[None]
      for s, q in ((batch.support_x, batch.query_x), (batch.support_y, batch.query_y))
    )
    leader = algorithm.adapt(of_task, *both, 2)
    total += sum(float(tf.reduce_sum((leader[name][0] - of_task[name]) ** 2)) for name in of_task)
  np.testing.assert_allclose(loss, total / 3, rtol=1e-9)
  gradients = meta_gradients(algorithm.meta_loss, weights, batch).gradients
  assert all(np.abs(g).max() > 0 for g in gradients.values())
  outputs = algorithm.hypotheses(weights, batch.support_x, batch.support_y, batch.query_x, tf.constant(2), SEED, 3)
  assert outputs.shape == (3, *batch.query_y.shape)
  np.testing.assert_allclose(tf.reduce_mean(outputs, 0), algorithm.predict(chaser, batch.query_x), rtol=1e-9)


# The task -------------------------------------------------------------------------------------------------------------


def test_half_are_lines_and_all_are_noisy():
  batch = tasks.SineOrLine(50, 50).sample(SEED, 200)
  x, y = batch.support_x.numpy()[..., 0], batch.support_y.numpy()[..., 0]
  residuals = [np.polyfit(x[t], y[t], 1, full=True)[1][0] / 48 for t in range(200)]
  lines = np.array([r for r in residuals if r < 0.15])
  assert 80 < len(lines) < 140  # small waves are lines as well
  assert abs(np.sqrt(np.median(lines)) - 0.3) < 0.03
