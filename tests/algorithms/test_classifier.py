"""Classifiers of all training classes: fine-tuning by hand, the nearest neighbour by NumPy, and what they train on."""

from types import SimpleNamespace

import numpy as np
import tensorflow as tf
from meta_batches import image_batch, spread

from maml_tf import models, over_tasks, randomness, tasks
from maml_tf.algorithms.classifier import FineTuning, NearestNeighbour
from maml_tf.algorithms.pretraining import search_step_size

RATE = 0.3


def network():
  return models.ConvNet(3, filters=4, input_shape=(16, 16, 1), max_pool=True, head=False)


def test_fine_tuning_by_hand(float64):
  """A layer for the classes of the task begins at 0; from the second step on the network moves as well."""
  model, batch = network(), image_batch()
  algorithm = FineTuning(model, "crossentropy", RATE, ways=3, training_classes=7)
  weights = spread(algorithm.initial_weights(0), scale=0.2)
  shown = algorithm.adapt(weights, batch.support_x, batch.support_y, 2)
  body = {name: weights[name] for name in model.adapted_names}
  for t in range(2):
    labels = tf.constant(batch.support_y[t])
    width = weights["training/classifier/kernel"].shape[0]
    task = body | {"k": tf.zeros([width, 3], tf.float64), "b": tf.zeros([3], tf.float64)}
    for _ in range(2):
      with tf.GradientTape() as tape:
        tape.watch(task)
        features = model.apply(weights | {n: task[n] for n in body}, tf.constant(batch.support_x[t]))
        logits = tf.matmul(features, task["k"]) + task["b"]
        loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits))
      gradients = tape.gradient(loss, task)
      task = {name: value - RATE * gradients[name] for name, value in task.items()}
    np.testing.assert_allclose(shown[-1]["head/kernel"][t], task["k"], rtol=1e-7, atol=1e-12)
    for name in body:
      np.testing.assert_allclose(shown[-1][name][t], task[name], rtol=1e-7, atol=1e-12)
      np.testing.assert_array_equal(shown[1][name][t], weights[name])
      if name.endswith("kernel"):  # normalisation takes biases away
        assert np.abs(shown[-1][name][t] - weights[name]).max() > 0
  measured = algorithm.evaluate(weights, batch, 2)
  np.testing.assert_allclose(measured["loss"][0], np.log(3), rtol=1e-12)


def test_the_nearest_neighbour_is_the_nearest(float64):
  model, batch = network(), image_batch(shots=3)
  algorithm = NearestNeighbour(model, "crossentropy", training_classes=7)
  weights = spread(algorithm.initial_weights(0), scale=0.3)
  logits = algorithm.predict(algorithm.adapt(weights, batch.support_x, batch.support_y), batch.query_x).numpy()
  for t in range(2):
    support, query = (model.apply(weights, tf.constant(x[t])).numpy() for x in (batch.support_x, batch.query_x))
    distances = ((query[:, np.newaxis] - support[np.newaxis]) ** 2).sum(axis=-1)
    nearest = batch.support_y[t][distances.argmin(axis=1)]
    np.testing.assert_array_equal(logits[t].argmax(axis=-1), nearest)
    of_class = np.stack([distances[:, batch.support_y[t] == c].min(axis=1) for c in range(3)], axis=1)
    np.testing.assert_allclose(-logits[t], of_class, rtol=1e-7, atol=1e-9)


def test_both_train_on_all_classes_with_their_own_labels(float64):
  images = np.repeat(np.arange(5, dtype=np.uint8), 3)[:, None, None, None] * np.ones((1, 16, 16, 1), np.uint8) * 51
  bank = SimpleNamespace(images=images, offsets=np.arange(0, 16, 3), names=list("abcde"), sizes=np.full(5, 3))
  pooled = tasks.Pooled(bank, 64, dtype=tf.float64)
  batch = pooled.sample(randomness.make_seed(0), 1)
  assert pooled.num_classes == 5 and batch.support_x.shape == (1, 64, 16, 16, 1)
  np.testing.assert_allclose(batch.support_x[0, :, 0, 0, 0], batch.support_y[0] / 5, rtol=1e-12)
  assert set(batch.support_y.numpy()[0]) == set(range(5))
  model = network()
  algorithm = FineTuning(model, "crossentropy", RATE, ways=2, training_classes=5)
  weights = spread(algorithm.initial_weights(0), scale=0.2)
  found = over_tasks.meta_gradients(algorithm.meta_loss, weights, batch)
  features = model.apply(weights, batch.support_x[0])
  logits = tf.matmul(features, weights["training/classifier/kernel"]) + weights["training/classifier/bias"]
  expected = tf.nn.sparse_softmax_cross_entropy_with_logits(batch.support_y[0], logits)
  np.testing.assert_allclose(found.loss, tf.reduce_mean(expected), rtol=1e-9)
  assert all(np.abs(g).max() > 0 for name, g in found.gradients.items() if name.endswith("kernel"))
  other = NearestNeighbour(model, "crossentropy", training_classes=5)
  np.testing.assert_allclose(other.meta_loss(weights, batch)[0], found.loss, rtol=1e-12)


def test_a_search_says_what_it_tried():
  losses = {0.1: [9, 2], 1.0: [9, 1], 10.0: [9, np.inf]}
  best, tried = search_step_size(lambda size: np.array(losses[size])[:, None], tuple(losses))
  assert best == 1.0 and tried == {"0.1": 2.0, "1": 1.0, "10": None}
