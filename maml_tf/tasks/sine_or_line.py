"""Sine waves and lines with noise: a few points may not say which (Finn, Xu and Levine 2018, section 5.1)."""

import tensorflow as tf

from maml_tf import randomness
from maml_tf.tasks.base import TaskBatch, TaskDistribution
from maml_tf.tasks.sinusoid import AMPLITUDE, PHASE, X_RANGE

COEFFICIENT = (-3.0, 3.0)
NOISE = 0.3


class SineOrLine(TaskDistribution):
  """With equal chances y = A sin(x + phase) or y = a x + b, with A ~ U[0.1, 5], phase ~ U[0, pi] and a, b ~ U[-3, 3].

  Args:
    num_support: K, points per support set, x ~ U[-5, 5].
    num_query: points per query set.
    noise: deviation of what is added to every y.
    dtype: tf.float32 or tf.float64.
  """

  def __init__(self, num_support: int, num_query: int, noise: float = NOISE, dtype: tf.DType = tf.float32):
    self.num_support, self.num_query, self.noise, self.dtype = num_support, num_query, noise, tf.as_dtype(dtype)

  def sample(self, seed, num_tasks):
    curve = self.sample_curves(seed, num_tasks)
    fields = []
    for part, count in (("support", self.num_support), ("query", self.num_query)):
      x = self._uniform(seed, part, [num_tasks, count, 1], X_RANGE)
      noise = randomness.normal(randomness.fold(seed, part, "noise"), [num_tasks, count, 1], self.dtype)
      fields += [x, curve(x) + self.noise * noise]
    return TaskBatch(*fields)

  def sample_curves(self, seed, num_tasks):
    """A function x [T, n, 1] -> y without noise, of the tasks that `sample` returns for that seed."""
    shape = [num_tasks, 1, 1]
    amplitude, phase = (self._uniform(seed, n, shape, b) for n, b in (("amplitude", AMPLITUDE), ("phase", PHASE)))
    slope, intercept = (self._uniform(seed, name, shape, COEFFICIENT) for name in ("slope", "intercept"))
    is_line = self._uniform(seed, "which", shape, (0.0, 1.0)) < 0.5
    return lambda x: tf.where(is_line, slope * x + intercept, amplitude * tf.sin(x + phase))

  def _uniform(self, seed, stream, shape, bounds):
    return randomness.uniform(randomness.fold(seed, stream), shape, *bounds, self.dtype)
