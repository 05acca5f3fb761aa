"""First-order MAML and BOIL: what each differentiates and adapts, against arithmetic by hand."""

import numpy as np
import pytest
import tensorflow as tf
from finite_differences import relative_error
from meta_batches import image_batch, mlp, regression_batch, spread
from method_runs import trains_resumes_and_exports

from maml_tf import MAML, models
from maml_tf.algorithms.boil import BOIL
from maml_tf.algorithms.fomaml import FirstOrderMAML
from maml_tf.errors import UserError
from maml_tf.experiments.config import resolve
from maml_tf.experiments.domains.images import published


def test_first_order_takes_the_query_gradient_at_the_adapted_weights(float64):
  """By hand: one gradient step on each task, then the gradient there as if it were one at the initialisation."""
  model, batch, rate = mlp(), regression_batch(), 0.05
  weights = spread(model.initial_weights(0))
  _, found = FirstOrderMAML(model, "mse", rate).meta_gradients(weights, batch)

  def gradient(weights, x, y):
    with tf.GradientTape() as tape:
      tape.watch(weights)
      error = tf.reduce_mean((model.apply(weights, x) - y) ** 2)
    return tape.gradient(error, weights)

  expected = dict.fromkeys(weights, 0.0)
  for t in range(3):
    down = gradient(weights, batch.support_x[t], batch.support_y[t])
    adapted = {n: w - rate * down[n] for n, w in weights.items()}
    at_query = gradient(adapted, batch.query_x[t], batch.query_y[t])
    expected = {n: expected[n] + at_query[n] / 3 for n in weights}
  for name in weights:
    np.testing.assert_allclose(found[name], expected[name], rtol=1e-9, atol=1e-12)


def test_first_order_without_steps_worth_the_name_is_training_on_all_tasks(float64):
  model, batch = mlp(), regression_batch()
  weights = spread(model.initial_weights(0))
  _, found = FirstOrderMAML(model, "mse", 0.0).meta_gradients(weights, batch)
  with tf.GradientTape() as tape:
    tape.watch(weights)
    error = tf.reduce_mean((model.apply(weights, batch.query_x) - batch.query_y) ** 2)
  for name, expected in tape.gradient(error, weights).items():
    np.testing.assert_allclose(found[name], expected, rtol=1e-9, atol=1e-12)


def test_boil_adapts_all_but_the_last_layer_and_meta_learns_all(float64):
  model, batch = models.ConvNet(3, filters=4, input_shape=(16, 16, 1)), image_batch()
  boil = BOIL(model, "crossentropy", 0.1, num_updates=2)
  weights = spread(model.initial_weights(0))
  adapted = boil.adapt(weights, batch.support_x, batch.support_y)[-1]
  kept = {n for n in weights if np.abs(adapted[n] - weights[n][tf.newaxis]).max() == 0}
  assert {"dense/kernel", "dense/bias"} <= kept
  assert not any(name.startswith("conv") and name.endswith("kernel") for name in kept)
  _, gradients = boil.meta_gradients(weights, batch)
  assert relative_error(tf.function(lambda w: boil.meta_loss(w, batch)[0]), weights, gradients) < 1e-6
  assert np.abs(gradients["dense/kernel"]).max() > 0


def test_boil_and_anil_adapt_what_maml_does_between_them(float64):
  from maml_tf.algorithms.anil import head_only
  from maml_tf.algorithms.boil import body_only

  model = mlp()
  assert sorted({**head_only(model, 0.1), **body_only(model, 0.1)}) == sorted(model.adapted_names)
  assert not set(head_only(model, 0.1)) & set(body_only(model, 0.1))
  assert MAML(model, "mse", body_only(model, 0.1)).inner_lr == BOIL(model, "mse", 0.1).inner_lr


@pytest.mark.parametrize("learner", ["fomaml", "boil"])
def test_it_trains_resumes_and_exports(tmp_path, learner):
  results = trains_resumes_and_exports(tmp_path, learner=learner, num_updates=2)
  assert results["method"] == learner and len(results["results"]["5"]["mse"]["mean"]) == 11


def test_first_order_is_first_order_and_nothing_else():
  with pytest.raises(UserError, match=r"^--stop_grad=False: expected no such flag here: --learner=fomaml"):
    resolve("omniglot", learner="fomaml", stop_grad=False)
  with pytest.raises(UserError, match=r"^--learner=boil: expected one of maml"):
    resolve("point", learner="boil")


def test_first_order_reproduces_the_published_cell():
  cell = published.cell(resolve("miniimagenet", learner="fomaml"), 1)
  assert cell == published.cell(resolve("miniimagenet", stop_grad=True), 1) and cell.accuracy == 0.4807
