"""Sine waves of random amplitude and phase (Finn et al. 2017, section 5.1)."""

import math

import tensorflow as tf

from maml_tf import randomness
from maml_tf.tasks.base import TaskBatch, TaskDistribution

AMPLITUDE = (0.1, 5.0)
PHASE = (0.0, math.pi)
X_RANGE = (-5.0, 5.0)
HALVES = {None: X_RANGE, "left": (-5.0, 0.0), "right": (0.0, 5.0)}


class Sinusoid(TaskDistribution):
  """y = A sin(x - phase), with A ~ U[0.1, 5], phase ~ U[0, pi] and x ~ U[-5, 5].

  Args:
    num_support: K, points per support set.
    num_query: points per query set.
    half: None, or "left" or "right": support points from that half of the input range only (the paper's figure 2).
      Query points always come from the whole range.
    oracle: append amplitude and phase to the input (cbfinn/maml, `baseline=oracle`): x becomes [T, n, 3].
    dtype: tf.float32 or tf.float64.
    wave_seed: int32 tensor [2]: the t-th task of every batch is the same wave, with fresh points; None: all are fresh.
  """

  def __init__(
    self,
    num_support: int,
    num_query: int,
    half: str | None = None,
    oracle: bool = False,
    dtype: tf.DType = tf.float32,
    wave_seed: tf.Tensor | None = None,
  ):
    if half not in HALVES:
      raise ValueError(f"half: expected one of {list(HALVES)}, got {half!r}")
    self.num_support, self.num_query = num_support, num_query
    self.half, self.oracle, self.dtype, self.wave_seed = half, oracle, tf.as_dtype(dtype), wave_seed

  @property
  def input_dim(self):
    return 3 if self.oracle else 1

  def sample(self, seed, num_tasks):
    amplitude, phase = self.sample_parameters(seed, num_tasks)
    support_x = self._uniform(seed, "support", [num_tasks, self.num_support, 1], HALVES[self.half])
    query_x = self._uniform(seed, "query", [num_tasks, self.num_query, 1], X_RANGE)
    return self.batch(amplitude, phase, support_x, query_x)

  def sample_parameters(self, seed, num_tasks):
    """(amplitude, phase), [num_tasks, 1, 1] each: those of the tasks that `sample` returns for that seed."""
    seed = seed if self.wave_seed is None else self.wave_seed
    amplitude = self._uniform(seed, "amplitude", [num_tasks, 1, 1], AMPLITUDE)
    return amplitude, self._uniform(seed, "phase", [num_tasks, 1, 1], PHASE)

  def batch(self, amplitude, phase, support_x, query_x):
    """The tasks of given amplitudes and phases, [T, 1, 1] each, at given inputs [T, n, 1]."""

    def inputs(x):
      if not self.oracle:
        return x
      ones = tf.ones_like(x)
      return tf.concat([x, amplitude * ones, phase * ones], axis=-1)

    def targets(x):
      return amplitude * tf.sin(x - phase)

    return TaskBatch(inputs(support_x), targets(support_x), inputs(query_x), targets(query_x))

  def _uniform(self, seed, stream, shape, bounds):
    return randomness.uniform(randomness.fold(seed, stream), shape, *bounds, self.dtype)
