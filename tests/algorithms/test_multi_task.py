"""The appendix's baselines: averaged regressors and context vectors, against arithmetic by hand."""

import numpy as np
import pytest
import tensorflow as tf
from finite_differences import relative_error
from meta_batches import image_batch, mlp, regression_batch, spread
from method_runs import trains_resumes_and_exports

from maml_tf import MAML, models, randomness, tasks
from maml_tf.algorithms.averaging import Averaging
from maml_tf.algorithms.context import Context, joined
from maml_tf.errors import UserError
from maml_tf.experiments.config import resolve
from maml_tf.experiments.domains.sinusoid import published
from maml_tf.experiments.run import run
from maml_tf.over_tasks import meta_gradients
from maml_tf.training import optimizers
from maml_tf.training.learner import SupervisedLearner

STRENGTH = 0.1


def regressors_of(weights):
  prefix = "training/regressors/"
  return {name.removeprefix(prefix): w.numpy() for name, w in weights.items() if name.startswith(prefix)}


# Averaged regressors --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("regulariser", ["none", "l2", "mean"])
def test_each_regressor_has_the_gradient_of_its_own_task(float64, regulariser):
  """By hand, one after another; towards the mean of those before the pull is 2 s (theta_i - mean)."""
  model, batch = mlp(), regression_batch()
  algorithm = Averaging(
    model, "mse", num_regressors=3, regulariser=regulariser, regulariser_strength=STRENGTH
  )  # fmt: skip
  weights = spread(algorithm.initial_weights(0))
  found, own = meta_gradients(algorithm.meta_loss, weights, batch), regressors_of(weights)
  errors = []
  for t in range(3):
    of_task = {name: tf.constant(values[t]) for name, values in own.items()}
    with tf.GradientTape() as tape:
      tape.watch(of_task)
      error = tf.reduce_mean((model.apply(of_task, batch.support_x[t]) - batch.support_y[t]) ** 2)
    errors.append(float(error))
    for name, gradient in tape.gradient(error, of_task).items():
      before = own[name][:t].mean(axis=0) if t else own[name][0]
      centre = {"none": own[name][t], "l2": 0.0, "mean": before}[regulariser]
      expected = gradient + 2 * STRENGTH * (own[name][t] - centre)
      np.testing.assert_allclose(found.gradients[f"training/regressors/{name}"][t], expected, rtol=1e-9, atol=1e-12)
  np.testing.assert_allclose(found.loss, np.mean(errors), rtol=1e-9)
  for name, values in own.items():
    np.testing.assert_allclose(found.updates[name], values.mean(axis=0), rtol=1e-12)
    assert not np.any(found.gradients[name])


def test_regressors_start_apart_and_their_mean_is_what_is_adapted(float64):
  algorithm, batch = Averaging(mlp(stddev=0.5), "mse", 0.05, num_regressors=4), regression_batch()
  weights = algorithm.initial_weights(2)
  own = regressors_of(weights)
  assert len(np.unique(own["dense_0/kernel"][:, 0, 0])) == 4
  averaged = {name: values.mean(axis=0) for name, values in own.items()}
  expected = MAML(mlp(), "mse", 0.05).evaluate({n: tf.constant(w) for n, w in averaged.items()}, batch, 3)["loss"]
  np.testing.assert_allclose(algorithm.evaluate(weights, batch, 3)["loss"], expected, rtol=1e-9)


def test_waves_of_a_seed_are_the_same_in_every_batch_with_fresh_points():
  fixed = tasks.Sinusoid(5, 5, wave_seed=randomness.make_seed(3))
  first, second = (fixed.sample(randomness.make_seed(s), 4) for s in (0, 1))
  assert np.abs(first.support_x - second.support_x).max() > 0
  for left, right in zip(*(fixed.sample_parameters(randomness.make_seed(s), 4) for s in (0, 1)), strict=True):
    np.testing.assert_array_equal(left, right)
  amplitude, phase = fixed.sample_parameters(None, 4)
  np.testing.assert_allclose(second.query_y, amplitude * np.sin(second.query_x - phase), rtol=1e-5, atol=1e-5)


def test_regressors_learn_their_waves_and_a_batch_of_others_is_refused():
  algorithm = Averaging(models.MLP(hidden=(20, 20), stddev=0.3), "mse", num_regressors=5)
  waves = tasks.Sinusoid(20, 5, wave_seed=randomness.make_seed(0))
  learner = SupervisedLearner(algorithm, waves, meta_batch_size=5, optimizer=optimizers.Adam(0.01))

  @tf.function(autograph=False)
  def train(state):
    return tf.while_loop(
      lambda i, _: i < 800, lambda i, s: (i + 1, learner.train_step(s, tf.stack([0, i]))[0]), (0, state)
    )[1]

  def loss(state):
    return float(algorithm.meta_loss(state["weights"], waves.sample(randomness.make_seed(9), 5))[0])

  state = learner.initial_state(0)
  before = loss(state)
  assert loss(train(state)) < 0.1 * before
  with pytest.raises(ValueError, match="batch: it has 4 tasks, expected 5"):
    algorithm.meta_loss(state["weights"], waves.sample(randomness.make_seed(9), 4))


def test_averaging_trains_resumes_and_exports(tmp_path):
  small = dict(num_regressors=6, meta_batch_size=6, metatrain_iterations=0, eval_tasks=20, validation_tasks=20,
               log=False, jit_compile=False, log_every=5, validate_every=10, checkpoint_every=10,
               logdir=tmp_path, baseline="average", regulariser="mean")  # fmt: skip
  said = []
  run(resolve(**small, pretrain_iterations=10), say=said.append)
  results = run(resolve(**small, pretrain_iterations=20), say=said.append)
  assert results["training"]["starts"][-1]["iteration"] == 10 and results["results"]["5"]["inner_lr"] > 0
  assert any("published" in line and "2.91" in line for line in said)
  module = tf.saved_model.load(f"{results['directory']}/saved_model")
  x = np.linspace(-3, 3, 5, dtype=np.float32)[:, np.newaxis]
  assert np.isfinite(module.adapt_and_predict(x, np.sin(x), x, 2)).all()


@pytest.mark.parametrize(("given", "says"), [
  (dict(meta_batch_size=25), "--meta_batch_size=25: expected --num_regressors, 500"),
  (dict(task_chunk=100), "--task_chunk=100: expected 0"),
  (dict(regulariser_strength=0.1), "--regulariser_strength=0.1: expected no such flag, or --regulariser=l2"),
  (dict(num_updates=2), "--num_updates=2: expected no such flag here: --baseline=average"),
])  # fmt: skip
def test_settings_of_averaging_that_make_no_sense_are_refused(given, says):
  with pytest.raises(UserError) as error:
    resolve(baseline="average", **given)
  assert str(error.value).startswith(says)


def test_the_published_errors_of_averages_are_by_regulariser():
  errors = [published.mse(resolve(baseline="average", regulariser=r))[1] for r in ("none", "l2", "mean")]
  assert errors == [4.19, 7.18, 2.91]
  assert published.mse(resolve()) == published.MSE["maml"] and published.mse(resolve(learner="anil")) is None


# Context vectors ------------------------------------------------------------------------------------------------------


def test_only_the_context_is_adapted_by_hand(float64):
  model, batch, rate = models.MLP(hidden=(8, 8), input_shape=(3,)), regression_batch(), 0.1
  algorithm = Context(model, "mse", rate, context_size=2, num_updates=2)
  weights = spread(algorithm.initial_weights(0))
  adapted = algorithm.adapt(weights, batch.support_x, batch.support_y)[-1]
  network = {name: weights[name] for name in model.weight_shapes}
  for t in range(3):
    context = weights["context"]
    for _ in range(2):
      with tf.GradientTape() as tape:
        tape.watch(context)
        x = tf.concat([batch.support_x[t], tf.tile(context[tf.newaxis], [6, 1])], axis=1)
        error = tf.reduce_mean((model.apply(network, x) - batch.support_y[t]) ** 2)
      context -= rate * tape.gradient(error, context)
    np.testing.assert_allclose(adapted["context"][t], context, rtol=1e-9)
    for name in network:
      np.testing.assert_array_equal(adapted[name][t], network[name])
  gradients = meta_gradients(algorithm.meta_loss, weights, batch).gradients
  meta_loss = tf.function(lambda w: algorithm.meta_loss(w, batch)[0], autograph=False)
  assert relative_error(meta_loss, weights, gradients) < 1e-6
  assert all(np.abs(g).max() > 0 for g in gradients.values())


def test_images_get_the_context_as_channels(float64):
  batch = image_batch()
  context = tf.constant([[1.0, 2.0], [3.0, 4.0]], tf.float64)
  images = joined(batch.support_x, context)
  assert images.shape == (2, 6, 16, 16, 3)
  np.testing.assert_array_equal(images[..., :1], batch.support_x)
  np.testing.assert_array_equal(images[1, ..., 1:], np.broadcast_to([3.0, 4.0], (6, 16, 16, 2)))
  algorithm = Context(models.ConvNet(3, filters=4, input_shape=(16, 16, 3)), "crossentropy", 0.1, context_size=2)
  weights = spread(algorithm.initial_weights(0), scale=0.2)
  task = algorithm.adapt_final(weights, batch.support_x, batch.support_y, 2)
  one = algorithm.predict_one({n: w[0] for n, w in task.items()}, tf.constant(batch.query_x[0]))
  np.testing.assert_allclose(one, algorithm.predict(task, batch.query_x)[0], rtol=1e-7, atol=1e-9)


def test_a_context_trains_resumes_and_exports(tmp_path):
  results = trains_resumes_and_exports(tmp_path, learner="context", context_size=3, num_updates=2)
  module = tf.saved_model.load(f"{results['directory']}/saved_model")
  initial = module.initialization()
  assert initial["context"].shape == (3,) and initial["dense_0/kernel"].shape == (4, 40)
  x = np.linspace(-3, 3, 5, dtype=np.float32)[:, np.newaxis]
  assert module.predict(initial, x).shape == (5, 1)


def test_a_context_is_nobody_elses_setting():
  with pytest.raises(UserError, match=r"^--context_size=3: expected no such flag here: --learner=maml"):
    resolve(context_size=3)
  assert resolve("omniglot", learner="context").context_size == 10
