"""Reptile as published: Adam inside, mini-batches, an outer step that shrinks; against Keras' Adam and by hand."""

import keras
import numpy as np
import pytest
import small_runs
import tensorflow as tf
from meta_batches import mlp, regression_batch, spread

from maml_tf import models, randomness, tasks
from maml_tf.algorithms.reptile import Reptile, orders
from maml_tf.errors import UserError
from maml_tf.experiments.algorithms import meta_optimizer
from maml_tf.experiments.config import resolve, run_name
from maml_tf.over_tasks import meta_gradients
from maml_tf.training import optimizers
from maml_tf.training.learner import SupervisedLearner

RATE, STEPS = 0.02, 3


def made(**settings):
  reptile = Reptile(mlp(), "mse", RATE, num_updates=STEPS, inner_optimizer="adam", **settings)
  return reptile, reptile.initial_weights(0) | spread(reptile.model.initial_weights(0))


def by_keras(optimizer, model, weights, x, y, variables=None):
  """The weights after the inner steps of Keras' own optimiser, whose state goes on."""
  variables = {n: keras.Variable(weights[n], dtype="float64") for n in weights} if variables is None else variables
  for name, variable in variables.items():
    variable.assign(weights[name])
  for _ in range(STEPS):
    with tf.GradientTape() as tape:
      values = {n: tf.convert_to_tensor(v.value) for n, v in variables.items()}
      tape.watch(values)
      loss = tf.reduce_mean((model.apply(values, x) - y) ** 2)
    gradients = tape.gradient(loss, values)
    optimizer.apply([gradients[n] for n in variables], list(variables.values()))
  return {n: v.numpy() for n, v in variables.items()}, variables


def test_the_inner_adam_is_keras_own_and_goes_on(float64):
  """One task, two meta-iterations; the second goes on with the squared gradients of the first.

  Keras keeps its rates in float32.
  """
  reptile, weights = made()
  model, batch = reptile.model, regression_batch(num_tasks=1)
  adam = keras.optimizers.Adam(RATE, beta_1=0.0, beta_2=0.999, epsilon=1e-8)
  x, y = (np.concatenate(parts, 1)[0] for parts in ((batch.support_x, batch.query_x), (batch.support_y, batch.query_y)))
  variables = None
  for done in (1, 2):
    theta = {n: weights[n] for n in model.weight_shapes}
    found = meta_gradients(reptile.meta_loss, weights, batch, seed=randomness.make_seed(0))
    adapted, variables = by_keras(adam, model, theta, x, y, variables)
    for name in theta:
      np.testing.assert_allclose(theta[name] - found.gradients[name], adapted[name], rtol=1e-5, atol=1e-6)
    assert found.updates["training/inner_steps"] == done * STEPS
    weights = weights | found.updates
  theta = {n: weights[n] for n in model.weight_shapes}
  expected, _ = by_keras(adam, model, theta, batch.support_x[0], batch.support_y[0], variables)
  steps = reptile.adapt(weights, batch.support_x, batch.support_y)
  for name in theta:
    np.testing.assert_allclose(steps[-1][name][0], expected[name], rtol=1e-5, atol=1e-6)
  error = np.mean(
    (model.apply({n: tf.constant(v) for n, v in expected.items()}, batch.query_x[0]) - batch.query_y[0]) ** 2
  )
  np.testing.assert_allclose(reptile.evaluate(weights, batch, STEPS)["loss"][STEPS, 0], error, rtol=1e-4)


def test_mini_batches_go_through_all_examples_before_they_begin_anew():
  found = orders(tf.constant([1, 2]), 3, 6, 2).numpy()
  for task in range(3):
    assert sorted(found[task, :6]) == sorted(found[task, 6:]) == list(range(6))
  assert not np.array_equal(found[0], found[1]) and not np.array_equal(found[:, :6], found[:, 6:])


def test_mini_batches_by_hand(float64):
  """Plain descent on batches of 5 of 12 examples, in the order that is drawn, the last over the end of a pass."""
  model, batch, seed = mlp(), regression_batch(num_tasks=2), tf.constant([4, 5])
  reptile = Reptile(model, "mse", RATE, num_updates=STEPS, inner_batch_size=5)
  weights = spread(model.initial_weights(0))
  gradients = meta_gradients(reptile.meta_loss, weights, batch, seed=seed).gradients
  order, moved = orders(seed, 2, 12, 2).numpy(), []
  for task in range(2):
    x = np.concatenate([batch.support_x[task], batch.query_x[task]])
    y = np.concatenate([batch.support_y[task], batch.query_y[task]])
    adapted = dict(weights)
    for step in range(STEPS):
      chosen = order[task, 5 * step : 5 * step + 5]
      with tf.GradientTape() as tape:
        tape.watch(adapted)
        loss = tf.reduce_mean((model.apply(adapted, x[chosen]) - y[chosen]) ** 2)
      step_gradients = tape.gradient(loss, adapted)
      adapted = {n: w - RATE * step_gradients[n] for n, w in adapted.items()}
    moved.append(adapted)
  for name in weights:
    expected = weights[name] - (moved[0][name] + moved[1][name]) / 2
    np.testing.assert_allclose(gradients[name], expected, rtol=1e-9, atol=1e-12)


def test_the_outer_step_goes_towards_the_adapted_weights_and_shrinks(float64):
  config = resolve(
    learner="reptile", meta_optimizer="sgd", meta_lr=1.0, meta_lr_schedule="linear", schedule_iterations=4
  )
  optimizer, weights, away = meta_optimizer(config), {"w": tf.constant([3.0])}, {"w": tf.constant([2.0])}
  state = optimizer.initial_state(weights)
  for share in (1.0, 0.75, 0.5, 0.25, 0.0):
    stepped, state = optimizer.update(away, state, weights)
    np.testing.assert_allclose(stepped["w"], 3.0 - 2.0 * share, rtol=1e-6)
  assert isinstance(meta_optimizer(resolve(learner="reptile")), optimizers.Adam)


def test_as_published_it_trains_and_resumes(tmp_path):
  def who():
    reptile = Reptile(
      models.MLP(hidden=(8,), stddev=0.5), "mse", 0.01, num_updates=4, inner_optimizer="adam", inner_batch_size=4
    )
    return SupervisedLearner(
      reptile, tasks.Sinusoid(5, 5), meta_batch_size=4, optimizer=optimizers.SGD(0.5), eval_updates=4
    )

  def schedule(end):
    return small_runs.Schedule(end, log_every=30, validate_every=30, checkpoint_every=30, validation_tasks=20)

  small_runs.trainer(tmp_path / "whole", schedule(60), who=who()).train()
  small_runs.trainer(tmp_path / "parts", schedule(30), who=who()).train()
  state, info = small_runs.trainer(tmp_path / "parts", schedule(60), who=who()).train()
  assert info["resumed_from"] == 30 and state["weights"]["training/inner_steps"] == 240
  small_runs.assert_same_run(tmp_path / "whole", tmp_path / "parts", 60)


def test_runs_of_before_keep_their_names_and_others_lack_the_settings():
  assert run_name(resolve("omniglot", learner="reptile", inner_optimizer="sgd")) == run_name(
    resolve("omniglot", learner="reptile")
  )
  assert ".inneradam." in run_name(resolve("omniglot", learner="reptile", inner_optimizer="adam"))
  with pytest.raises(UserError, match="--inner_optimizer=adam: expected no such flag"):
    resolve("omniglot", inner_optimizer="adam")
  with pytest.raises(UserError, match="inner_optimizer=rmsprop"):
    Reptile(mlp(), inner_optimizer="rmsprop")
