"""The network of visual regression, against Keras' layers and by hand."""

import keras
import numpy as np
import tensorflow as tf
from finite_differences import relative_error

from maml_tf import MAML, tasks
from maml_tf.models.feature_points import FeaturePointNet, spatial_soft_argmax


def net():
  return FeaturePointNet(2, filters=3, input_shape=(12, 12, 3), convolutions=2, bias_size=4, hidden=(5,))


def test_a_peak_is_where_it_is():
  x = np.zeros([1, 1, 5, 3, 2], np.float32)
  x[0, 0, 4, 1, 0] = x[0, 0, 0, 2, 1] = 50
  np.testing.assert_allclose(spatial_soft_argmax(tf.constant(x))[0, 0], [1, -1, 0, 1], atol=1e-5)


def test_it_is_what_keras_layers_make_of_it():
  model, x = net(), np.random.default_rng(0).uniform(size=(4, 12, 12, 3)).astype(np.float32)
  weights = model.initial_weights(1)
  weights["transformation/bias"] = tf.constant([0.1, -0.2, 0.3, 0.4])
  y = x
  for i in range(2):
    layer = keras.layers.Conv2D(3, 5, 2, "same", activation="relu")
    layer.build(y.shape)
    layer.set_weights([weights[f"conv_{i}/kernel"], weights[f"conv_{i}/bias"]])
    y = layer(y).numpy()
  p = np.exp(y) / np.exp(y).sum(axis=(1, 2), keepdims=True)
  places = np.linspace(-1, 1, 3)
  points = [np.einsum("nhwc,h->nc", p, places), np.einsum("nhwc,w->nc", p, places)]
  y = np.concatenate([*points, np.tile(weights["transformation/bias"], [4, 1])], axis=1)
  y = np.maximum(y @ weights["dense_0/kernel"] + weights["dense_0/bias"], 0)
  expected = y @ weights["dense_1/kernel"] + weights["dense_1/bias"]
  np.testing.assert_allclose(model.apply(weights, x), expected, rtol=1e-4, atol=1e-5)


def test_meta_gradients_are_those_of_finite_differences(float64):
  maml, rng = MAML(net(), "mse", inner_lr=0.1, num_updates=1), np.random.default_rng(2)
  x, y = rng.uniform(size=(2, 3, 12, 12, 3)), rng.normal(size=(2, 3, 2))
  batch = tasks.TaskBatch(x, y, x[:, ::-1], y[:, ::-1] + 0.1)
  weights = maml.initial_weights(3)
  _, gradients = maml.meta_gradients(weights, batch)
  assert relative_error(lambda w: maml.meta_gradients(w, batch)[0], weights, gradients) < 1e-5
