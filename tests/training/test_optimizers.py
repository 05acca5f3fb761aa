"""The pure optimisers against Keras' own."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from maml_tf.training import optimizers

RNG = np.random.default_rng(0)
SCHEDULE = keras.optimizers.schedules.ExponentialDecay(0.1, 3, 0.5)


@pytest.mark.parametrize(
  ("ours", "keras_optimizer"),
  [
    (optimizers.Adam(0.01), keras.optimizers.Adam(0.01, epsilon=1e-8)),
    (optimizers.Adam(0.1, clip_value=0.5), keras.optimizers.Adam(0.1, epsilon=1e-8, clipvalue=0.5)),
    (optimizers.Adam(SCHEDULE, 0.8, 0.9, 1e-3), keras.optimizers.Adam(SCHEDULE, 0.8, 0.9, 1e-3)),
    (optimizers.SGD(0.1), keras.optimizers.SGD(0.1)),
    (optimizers.SGD(SCHEDULE, clip_value=0.3), keras.optimizers.SGD(SCHEDULE, clipvalue=0.3)),
  ],
)
def test_ten_steps_equal_those_of_keras(ours, keras_optimizer):
  weights = {"a": tf.constant(RNG.normal(size=(3, 4)), tf.float32), "b": tf.constant(RNG.normal(size=4), tf.float32)}
  variables = [keras.Variable(weights["a"]), keras.Variable(weights["b"])]
  state = ours.initial_state(weights)
  for _ in range(10):
    gradients = {n: tf.constant(RNG.normal(size=w.shape), tf.float32) for n, w in weights.items()}
    weights, state = ours.update(gradients, state, weights)
    keras_optimizer.apply_gradients([(gradients["a"], variables[0]), (gradients["b"], variables[1])])
  np.testing.assert_allclose(weights["a"], variables[0].numpy(), rtol=2e-5, atol=1e-6)
  np.testing.assert_allclose(weights["b"], variables[1].numpy(), rtol=2e-5, atol=1e-6)
