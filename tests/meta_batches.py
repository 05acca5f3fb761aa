"""Small models and batches of tasks that the tests of the algorithms share."""

import numpy as np
import tensorflow as tf

from maml_tf import models, tasks

RNG = np.random.default_rng


def regression_batch(num_tasks=3, n=6, dtype=np.float64, seed=0):
  rng = RNG(seed)
  x = rng.uniform(-3, 3, size=(2, num_tasks, n, 1)).astype(dtype)
  amplitude = rng.uniform(0.5, 3, size=(num_tasks, 1, 1)).astype(dtype)
  return tasks.TaskBatch(x[0], amplitude * np.sin(x[0]), x[1], amplitude * np.sin(x[1]))


def image_batch(num_tasks=2, ways=3, shots=2, size=16, dtype=np.float64, seed=0):
  rng = RNG(seed)
  n = ways * shots
  x = rng.normal(size=(2, num_tasks, n, size, size, 1)).astype(dtype)
  y = np.tile(np.arange(n) % ways, (num_tasks, 1))
  return tasks.TaskBatch(x[0], y, x[1], y)


def spread(weights, scale=0.5, seed=1):
  """Larger random weights: the published initialisation of 0.01 has nearly vanishing gradients."""
  rng = RNG(seed)
  return {n: tf.constant(rng.normal(size=w.shape) * scale) for n, w in weights.items()}


def mlp(**kwargs):
  return models.MLP(hidden=(8, 8), **kwargs)


CASES = {
  "mlp": (lambda: mlp(), regression_batch, "mse", 0.05),
  "mlp_batch_norm": (lambda: mlp(norm="batch_norm"), regression_batch, "mse", 0.05),
  "mlp_layer_norm": (lambda: mlp(norm="layer_norm"), regression_batch, "mse", 0.05),
  "conv_strided": (
    lambda: models.ConvNet(3, filters=4, input_shape=(16, 16, 1)), image_batch, "crossentropy", 0.1,
  ),
  "conv_max_pool": (
    lambda: models.ConvNet(3, filters=4, input_shape=(16, 16, 1), max_pool=True), image_batch, "crossentropy", 0.1,
  ),
  "conv_layer_norm": (
    lambda: models.ConvNet(3, filters=4, input_shape=(16, 16, 1), norm="layer_norm"), image_batch, "crossentropy", 0.1,
  ),
}  # fmt: skip
