"""MAML++: MAML with its extras off, and each extra against arithmetic by hand."""

import numpy as np
import pytest
import tensorflow as tf
from finite_differences import relative_error
from meta_batches import RNG, mlp, regression_batch, spread
from method_runs import trains_resumes_and_exports

from maml_tf import MAML
from maml_tf.algorithms.mamlpp import MAMLPlusPlus, share_of_earlier_steps
from maml_tf.errors import UserError
from maml_tf.experiments.algorithms import meta_lr
from maml_tf.experiments.config import resolve, run_name
from maml_tf.over_tasks import meta_gradients

RATE, STEPS = 0.05, 3


def made(at=0.0, **settings):
  """(algorithm, its weights after `at` meta-iterations)."""
  algorithm = MAMLPlusPlus(mlp(), "mse", RATE, STEPS, **settings)
  weights = algorithm.initial_weights(0) | spread(algorithm.model.initial_weights(0))
  return algorithm, weights | {"training/step": tf.constant(at, tf.float64)}


def maml(weights, **settings):
  algorithm = MAML(mlp(), "mse", RATE, STEPS, **settings)
  return algorithm, {name: weights[name] for name in algorithm.model.weight_shapes}


def test_with_its_extras_off_it_is_maml(float64):
  batch = regression_batch()
  algorithm, weights = made()
  plain, plain_weights = maml(weights)
  found, expected = (meta_gradients(a.meta_loss, w, batch) for a, w in ((algorithm, weights), (plain, plain_weights)))
  np.testing.assert_allclose(found.loss, expected.loss, rtol=1e-12)
  assert set(found.metrics) == set(expected.metrics)
  for name in plain_weights:
    np.testing.assert_allclose(found.gradients[name], expected.gradients[name], rtol=1e-12, atol=1e-15)
  evaluated, as_maml = algorithm.evaluate(weights, batch, 5), plain.evaluate(plain_weights, batch, 5)
  np.testing.assert_allclose(evaluated["loss"], as_maml["loss"], rtol=1e-12)


def test_every_weight_has_a_step_size_for_every_step(float64):
  batch = regression_batch()
  algorithm, weights = made(multi_step_iterations=10, at=4.0)
  assert weights["inner_lr/dense_0/kernel"].shape == (STEPS,)
  meta_loss = tf.function(lambda w: algorithm.meta_loss(w, batch)[0], autograph=False)
  gradients = meta_gradients(algorithm.meta_loss, weights, batch).gradients
  moved = {n: w for n, w in weights.items() if n != "training/step"}
  rest = {"training/step": weights["training/step"]}
  assert relative_error(lambda w: meta_loss(w | rest), moved, {n: gradients[n] for n in moved}) < 1e-6
  assert all(np.abs(gradients["inner_lr/dense_0/kernel"]) > 0) and gradients["training/step"] == 0


def normalised(norm="batch_norm", **settings):
  """(algorithm with normalisation of every step, its weights, all different)."""
  algorithm = MAMLPlusPlus(mlp(norm=norm), "mse", RATE, STEPS, per_step_norm=True, **settings)
  weights = algorithm.initial_weights(0) | spread(algorithm.model.initial_weights(0))
  rows = {
    n: weights[n] + 0.5 * RNG(i).normal(size=weights[n].shape) for i, n in enumerate(weights) if "per_step/n" in n
  }
  return algorithm, weights | rows


def test_every_step_has_its_own_normalisation(float64):
  """By a loop in the test: the support loss of step k with row k, the query loss after it with the same row."""
  batch, num_updates = regression_batch(), STEPS + 2
  algorithm, weights = normalised()
  model, evaluated = algorithm.model, algorithm.evaluate(weights, batch, num_updates)["loss"].numpy()
  adapted = algorithm.adapt(weights, batch.support_x, batch.support_y, num_updates)
  for task in range(3):
    current = {n: weights[n] for n in model.weight_shapes}
    for step in range(num_updates + 1):
      shown = current | {n: weights[f"per_step/{n}"][min(max(step - 1, 0), STEPS - 1)] for n in algorithm._norm_names()}
      loss = np.mean((model.apply(shown, batch.query_x[task]) - batch.query_y[task]) ** 2)
      np.testing.assert_allclose(evaluated[step, task], loss, rtol=1e-9)
      for name in model.weight_shapes:
        np.testing.assert_allclose(adapted[step][name][task], shown[name], rtol=1e-9, atol=1e-12)
      row = {n: weights[f"per_step/{n}"][min(step, STEPS - 1)] for n in algorithm._norm_names()}
      moving = {n: current[n] for n in model.adapted_names}
      with tf.GradientTape() as tape:
        tape.watch(moving)
        error = tf.reduce_mean((model.apply(row | moving, batch.support_x[task]) - batch.support_y[task]) ** 2)
      gradients = tape.gradient(error, moving)
      current |= {n: moving[n] - RATE * gradients[n] for n in moving}
  assert set(adapted[0]) == set(model.weight_shapes)


def test_equal_normalisation_of_all_steps_is_one(float64):
  batch, (algorithm, weights) = regression_batch(), normalised("layer_norm", multi_step_iterations=5)
  for name in algorithm._norm_names():
    weights[f"per_step/{name}"] = tf.stack([weights[name]] * STEPS)
  one = MAMLPlusPlus(mlp(norm="layer_norm"), "mse", RATE, STEPS, multi_step_iterations=5)
  own = {n: w for n, w in weights.items() if not n.startswith("per_step/")}
  found, expected = (meta_gradients(a.meta_loss, w, batch) for a, w in ((algorithm, weights), (one, own)))
  np.testing.assert_allclose(found.loss, expected.loss, rtol=1e-12)
  for name in one.model.adapted_names:
    np.testing.assert_allclose(found.gradients[name], expected.gradients[name], rtol=1e-9, atol=1e-12)
  for name in algorithm._norm_names():
    total = tf.reduce_sum(found.gradients[f"per_step/{name}"], axis=0)
    np.testing.assert_allclose(total, expected.gradients[name], rtol=1e-9, atol=1e-12)


def test_the_gradient_of_every_steps_normalisation(float64):
  batch, (algorithm, weights) = regression_batch(), normalised()
  rows = {n: w for n, w in weights.items() if "per_step/n" in n}
  rest = {n: w for n, w in weights.items() if n not in rows}
  gradients = meta_gradients(algorithm.meta_loss, weights, batch).gradients
  meta_loss = tf.function(lambda w: algorithm.meta_loss(rest | w, batch)[0], autograph=False)
  assert relative_error(meta_loss, rows, {n: gradients[n] for n in rows}) < 1e-6
  assert gradients["per_step/at"] == 0


def test_runs_without_it_keep_their_names():
  assert run_name(resolve("omniglot", learner="mamlpp", per_step_norm=False)) == run_name(
    resolve("omniglot", learner="mamlpp")
  )
  with pytest.raises(UserError, match="--per_step_norm=True: expected no such flag, or --norm"):
    resolve(learner="mamlpp", per_step_norm=True)


@pytest.mark.parametrize(("at", "shares"), [
  (0, [1 / 3, 1 / 3, 1 / 3]), (4, [0.2, 0.2, 0.6]), (9.9, [0.01, 0.01, 0.98]), (10, [0, 0, 1]), (11, [0, 0, 1]),
])  # fmt: skip
def test_the_losses_of_earlier_steps_fade(float64, at, shares):
  """At 9.9 of 10 the least share, 3 % of a third, is what is left."""
  batch = regression_batch()
  algorithm, weights = made(multi_step_iterations=10, at=float(at))
  after = algorithm.evaluate(weights, batch, STEPS)["loss"].numpy().mean(axis=1)
  loss, metrics, updates = algorithm.meta_loss(weights, batch)
  np.testing.assert_allclose(loss, np.dot(shares, after[1:]), rtol=1e-9)
  np.testing.assert_allclose(metrics[f"query_loss/step_{STEPS}"], after[-1], rtol=1e-9)
  assert updates["training/step"] == np.round(at) + 1


def test_the_share_of_earlier_steps_is_the_published_codes():
  """HowToTrainYourMAMLPytorch, get_per_step_loss_importance_vector, of 5 steps and 15 epochs, in its own words."""
  for epoch in range(15):
    earlier = np.maximum(1 / 5 - epoch * (1 / 5 / 15), 0.03 / 5)
    final = np.minimum(1 / 5 + epoch * 4 * (1 / 5 / 15), 1 - 4 * 0.03 / 5)
    share = share_of_earlier_steps(tf.constant(epoch * 500.0), 7500, 5).numpy()
    np.testing.assert_allclose([share, 1 - 4 * share], [earlier, final], rtol=1e-5)


@pytest.mark.parametrize("at", [0, 2, 3])
def test_first_order_comes_first(float64, at):
  batch = regression_batch()
  algorithm, weights = made(first_order_iterations=3, at=float(at))
  plain, plain_weights = maml(weights, first_order=at < 3)
  found = meta_gradients(algorithm.meta_loss, weights, batch)
  expected = meta_gradients(plain.meta_loss, plain_weights, batch)
  for name in plain_weights:
    np.testing.assert_allclose(found.gradients[name], expected.gradients[name], rtol=1e-9, atol=1e-12)


def test_chunks_of_tasks_count_once():
  batch = regression_batch(dtype=np.float32)
  algorithm = MAMLPlusPlus(mlp(), "mse", RATE, STEPS)
  weights = algorithm.initial_weights(0) | {"training/step": tf.constant(100000.0)}
  for _ in range(3):
    found = meta_gradients(algorithm.meta_loss, weights, batch, task_chunk=1)
    weights |= found.updates
  assert np.round(weights["training/step"]) == 100003


def test_schedules_of_the_meta_step_size():
  config = resolve(learner="mamlpp", schedule_iterations=100)
  rates = [float(meta_lr(config)(step)) for step in (0, 50, 100, 200)]
  np.testing.assert_allclose(rates, [1e-3, (1e-3 + 1e-5) / 2, 1e-5, 1e-5], rtol=1e-4)  # half a cosine
  linear = resolve(learner="mamlpp", meta_lr_schedule="linear", schedule_iterations=100, meta_lr=0.5)
  np.testing.assert_allclose([float(meta_lr(linear)(s)) for s in (0, 25, 100)], [0.5, 0.375, 0.0], rtol=1e-6)
  assert meta_lr(resolve()) == 0.001
  with pytest.raises(UserError, match="--schedule_iterations=5: expected no such flag, or --meta_lr_schedule"):
    resolve(learner="mamlpp", meta_lr_schedule="constant", schedule_iterations=5)


def test_it_trains_resumes_and_exports(tmp_path):
  results = trains_resumes_and_exports(
    tmp_path, learner="mamlpp", num_updates=2, multi_step_iterations=25, first_order_iterations=15,
    schedule_iterations=30,
  )  # fmt: skip
  module = tf.saved_model.load(f"{results['directory']}/saved_model")
  assert module.initialization()["training/step"] == 30


@pytest.mark.parametrize(
  "given", [{"stop_grad": True}, {"checkpoint_inner_steps": True}, {"cg_iterations": 2}], ids=str
)
def test_settings_that_it_does_not_have_are_refused(given):
  with pytest.raises(UserError, match=f"^--{next(iter(given))}=") as error:
    resolve("omniglot", learner="mamlpp", **given)
  assert "\n" not in str(error.value)
