"""ANIL, Meta-SGD and Reptile: what each adapts and learns, against arithmetic by hand."""

import numpy as np
import tensorflow as tf
from finite_differences import relative_error
from meta_batches import image_batch, mlp, regression_batch, spread

from maml_tf import MAML, models
from maml_tf.algorithms.anil import head_only
from maml_tf.algorithms.reptile import Reptile
from maml_tf.maml import LearnedStepSizes
from maml_tf.over_tasks import meta_gradients
from maml_tf.training import optimizers
from maml_tf.training.learner import SupervisedLearner


def conv(filters=4):
  return models.ConvNet(3, filters=filters, input_shape=(16, 16, 1))


def test_anil_adapts_the_last_layer_and_meta_learns_all(float64):
  model, batch = conv(), image_batch()
  maml = MAML(model, "crossentropy", head_only(model, 0.1), num_updates=2)
  weights = spread(model.initial_weights(0))
  adapted = maml.adapt(weights, batch.support_x, batch.support_y)[-1]
  changed = {n for n in weights if np.abs(adapted[n] - weights[n][tf.newaxis]).max() > 0}
  assert changed == {"dense/kernel", "dense/bias"}
  meta_loss = tf.function(lambda w: maml.meta_loss(w, batch)[0])
  _, gradients = maml.meta_gradients(weights, batch)
  assert relative_error(meta_loss, weights, gradients) < 1e-6
  assert all(np.abs(gradients[n]).max() > 0 for n in weights if not n.endswith("bias"))


def test_the_head_of_a_keras_model_is_its_last_layer():
  import keras

  network = keras.Sequential([keras.Input((2,)), keras.layers.Dense(4, "relu"), keras.layers.Dense(1)])
  model = models.from_keras(network)
  assert [model.weight_shapes[n] for n in model.head_names] == [(4, 1), (1,)]


def test_meta_sgd_learns_a_step_size_for_each_weight(float64):
  model, batch = mlp(), regression_batch()
  maml = MAML(model, "mse", LearnedStepSizes(0.05, per="element"), num_updates=2)
  fresh = maml.initial_weights(0)
  weights = fresh | spread(model.initial_weights(0))
  _, gradients = maml.meta_gradients(weights, batch)
  meta_loss = tf.function(lambda w: maml.meta_loss(w, batch)[0])
  assert relative_error(meta_loss, weights, gradients) < 1e-6
  assert gradients["inner_lr/dense_0/kernel"].shape == model.weight_shapes["dense_0/kernel"]


def test_reptile_moves_towards_the_mean_of_the_adapted_weights(float64):
  """By hand: gradient descent on all examples of each task, then theta minus the mean over tasks."""
  model, batch, rate = mlp(norm="batch_norm"), regression_batch(), 0.05
  weights = spread(model.initial_weights(0))
  reptile = Reptile(model, "mse", rate, num_updates=3)
  loss, gradients = reptile.meta_gradients(weights, batch)

  moved = dict.fromkeys(weights, 0.0)
  num_tasks = len(batch.support_x)
  for task in range(num_tasks):
    x = np.concatenate([batch.support_x[task], batch.query_x[task]])
    y = np.concatenate([batch.support_y[task], batch.query_y[task]])
    adapted = dict(weights)
    for _ in range(3):
      with tf.GradientTape() as tape:
        tape.watch(adapted)
        error = tf.reduce_mean((model.apply(adapted, x) - y) ** 2)
      step = tape.gradient(error, adapted)
      adapted = {n: w - rate * step[n] for n, w in adapted.items()}
    moved = {n: moved[n] + (weights[n] - adapted[n]) / num_tasks for n in weights}
  for name in weights:
    np.testing.assert_allclose(gradients[name], moved[name], rtol=1e-9, atol=1e-12)
  assert np.abs(gradients["norm_0/beta"]).max() > 0  # MAML would not adapt it
  np.testing.assert_allclose(
    loss, tf.reduce_mean(reptile.evaluate(weights, batch._replace(
      support_x=np.concatenate([batch.support_x, batch.query_x], 1),
      support_y=np.concatenate([batch.support_y, batch.query_y], 1)), 3)["loss"][3]), rtol=1e-9,
  )  # fmt: skip


def test_reptile_counts_masked_examples_out():
  model, batch = mlp(), regression_batch(dtype=np.float32)
  weights = model.initial_weights(0)
  mask = np.arange(6) < np.array([[4], [5], [6]])
  reptile = Reptile(model, "mse", 0.05, num_updates=2)
  rubbish = batch._replace(query_x=np.where(mask[..., None], batch.query_x, 9.0).astype(np.float32), query_mask=mask)
  _, expected = reptile.meta_gradients(weights, batch._replace(query_mask=mask))
  _, got = reptile.meta_gradients(weights, rubbish)
  for name in weights:
    np.testing.assert_allclose(got[name], expected[name], rtol=1e-5, atol=1e-7)


def test_reptile_learns_sines():
  from maml_tf import tasks

  model = models.MLP(hidden=(20,), stddev=0.1)
  learner = SupervisedLearner(
    Reptile(model, "mse", 0.02, num_updates=5), tasks.Sinusoid(10, 10), optimizer=optimizers.Adam(0.003), eval_updates=5
  )
  state, seed = learner.initial_state(0), tf.constant([0, 0])
  before = learner.evaluate(state, seed, 100)["loss"]

  @tf.function
  def train(state):
    return tf.while_loop(
      lambda i, _: i < 600, lambda i, s: (i + 1, learner.train_step(s, tf.stack([0, i]))[0]), (0, state)
    )[1]

  after = learner.evaluate(train(state), seed, 100)["loss"]
  assert np.mean(after[5]) < 0.8 * np.mean(before[5])


def test_chunks_of_tasks_give_the_same_gradients(float64):
  model, batch = conv(), image_batch(num_tasks=6)
  maml = MAML(model, "crossentropy", 0.1, num_updates=2, bn_mode="running")
  weights = maml.initial_weights(0)
  batch = batch._replace(query_mask=np.ones((6, 6), bool))
  whole = meta_gradients(maml.meta_loss, weights, batch)
  for chunk in (2, 6):
    parts = tf.function(lambda w, c=chunk: meta_gradients(maml.meta_loss, w, batch, c))(weights)
    for left, right in zip(tf.nest.flatten(whole), tf.nest.flatten(parts), strict=True):
      np.testing.assert_allclose(left, right, rtol=1e-9, atol=1e-12)


def test_reptiles_outer_step_can_shrink_to_nothing():
  from maml_tf.experiments.algorithms import meta_lr
  from maml_tf.experiments.config import resolve

  config = resolve(learner="reptile", meta_lr_schedule="linear", schedule_iterations=10, meta_lr=0.5)
  np.testing.assert_allclose([float(meta_lr(config)(step)) for step in (0, 5, 10, 11)], [0.5, 0.25, 0, 0])
  assert meta_lr(resolve(learner="reptile")) == 0.001  # and its runs of before keep their names: test_settings.py
