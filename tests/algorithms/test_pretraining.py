"""Pretraining, its tuned step size, and the learner protocol."""

import numpy as np
import pytest
import tensorflow as tf

from maml_tf import MAML, models, randomness, tasks, tracing
from maml_tf.algorithms.pretraining import Pretraining, best_step_size
from maml_tf.training.learner import Learner, SupervisedLearner

SEED = randomness.make_seed(0)


def test_pretraining_descends_on_the_support_loss_without_adapting():
  model, batch = models.MLP(hidden=(8,)), tasks.Sinusoid(5, 5).sample(SEED, 4)
  weights = {n: w * 30 for n, w in model.initial_weights(0).items()}
  loss, gradients = Pretraining(model, inner_lr=0.1).meta_gradients(weights, batch)
  with tf.GradientTape() as tape:
    tape.watch(weights)
    expected = tf.reduce_mean((model.apply(weights, batch.support_x) - batch.support_y) ** 2)
  np.testing.assert_allclose(loss, expected, rtol=1e-6)
  for name, gradient in tape.gradient(expected, weights).items():
    np.testing.assert_allclose(gradients[name], gradient, rtol=1e-4, atol=1e-6)


def test_pretraining_is_evaluated_as_maml_is():
  model, batch = models.MLP(hidden=(8,)), tasks.Sinusoid(5, 5).sample(SEED, 4)
  weights = model.initial_weights(0)
  ours = Pretraining(model, inner_lr=0.1).evaluate(weights, batch, 3)["loss"]
  np.testing.assert_array_equal(ours, MAML(model, inner_lr=0.1).evaluate(weights, batch, 3)["loss"])


def test_best_step_size_has_the_lowest_mean_after_adapting_and_never_diverges():
  curves = {0.1: [9, 3, 3], 0.2: [0, 4, 4], 0.3: [9, 1, np.inf], 0.4: [9, np.nan, 0]}
  assert best_step_size(lambda size: np.array(curves[size])[:, None], tuple(curves)) == 0.1
  with pytest.raises(ValueError, match="diverges with every step size"):
    best_step_size(lambda size: np.full((3, 1), np.nan), (0.1, 0.2))


@pytest.mark.parametrize("algorithm", [MAML, Pretraining])
def test_learner_trains(algorithm):
  learner = SupervisedLearner(algorithm(models.MLP(hidden=(16,)), inner_lr=0.01), tasks.Sinusoid(10, 10))
  assert isinstance(learner, Learner)
  state = learner.initial_state(0)
  step = tracing.function(learner.train_step)
  losses = []
  for i in range(300):
    state, metrics = step(state, randomness.fold(SEED, i))
    losses.append(float(metrics["loss"]))
  assert np.mean(losses[-50:]) < 0.97 * np.mean(losses[:50])
  assert step.experimental_get_tracing_count() == 1
  assert int(state["optimizer"]["step"]) == 300
  evaluated = learner.evaluate(state, SEED, 30)
  assert evaluated["loss"].shape == (11, 30)
