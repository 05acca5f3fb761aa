"""Directional derivatives by central differences, to hold gradients against."""

import numpy as np
import tensorflow as tf


def relative_error(function, weights, gradients, seed=0, directions=3, step=1e-6):
  """How far gradients are from finite differences: |g . d - difference| / |difference|, the worst of some directions.

  Args:
    function: dict of float64 weights -> scalar.
    weights: dict of name -> tensor.
    gradients: dict like `weights`.
    seed: of the random directions (normal, all weights at once).
    directions: how many.
    step: length of the step to each side, relative to the direction's norm.
  """
  rng = np.random.default_rng(seed)
  worst = 0.0
  for _ in range(directions):
    direction = {n: rng.normal(size=w.shape) for n, w in weights.items()}
    norm = np.sqrt(sum((d**2).sum() for d in direction.values()))
    direction = {n: tf.constant(d / norm) for n, d in direction.items()}
    # Fourth-order central difference: rounding, not curvature, limits it.
    values = [function({n: w + k * step * direction[n] for n, w in weights.items()}) for k in (-2, -1, 1, 2)]
    minus_2, minus_1, plus_1, plus_2 = (float(v) for v in values)
    difference = (minus_2 - 8 * minus_1 + 8 * plus_1 - plus_2) / (12 * step)
    projected = sum(float(tf.reduce_sum(g * direction[n])) for n, g in gradients.items())
    worst = max(worst, abs(projected - difference) / abs(difference))
  return worst
