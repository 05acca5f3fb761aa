"""How much better than expected each action was: a value function fitted to each task, and generalised advantages."""

import dataclasses

import tensorflow as tf

RIDGE = 1e-5  # rllab, linear_feature_baseline.py
OBSERVATION_LIMIT = 10.0  # likewise


@dataclasses.dataclass(frozen=True)
class AdvantageEstimator:
  """`advantages` with its settings: trajectory -> advantages [T, R, H].

  Args:
    discount, gae_lambda, baseline: as of `advantages`.
  """

  discount: float = 0.99
  gae_lambda: float = 1.0
  baseline: str = "linear"

  def __call__(self, trajectory):
    return advantages(trajectory, self.discount, self.gae_lambda, self.baseline)


def advantages(trajectory, discount=0.99, gae_lambda=1.0, baseline="linear"):
  """Generalised advantages (Schulman et al. 2016, eq. 16), centred and scaled over all steps of each task.

  The value after the last step is 0, at the time limit too, and the baseline is fitted to the very rollouts that it is
  then used on: both as in rllab's sampler (rllab/sampler/base.py), which the published results come from.

  Args:
    trajectory: `Trajectory`.
    discount: gamma.
    gae_lambda: lambda.
    baseline: "linear" (`linear_values`) or "zero".

  Returns:
    [T, R, H]; 0 where the mask is. Nothing is differentiated.
  """
  mask, rewards = trajectory.mask, trajectory.reward * trajectory.mask
  goes_on = 1.0 - trajectory.ends
  if baseline == "linear":
    values = linear_values(trajectory, discounted_sums(rewards, discount, goes_on)) * mask
  elif baseline == "zero":
    values = tf.zeros_like(rewards)
  else:
    raise ValueError(f"baseline: expected linear or zero, got {baseline!r}")
  next_values = goes_on * tf.concat([values[..., 1:], tf.zeros_like(values[..., :1])], axis=-1)
  deltas = rewards + discount * next_values - values
  return tf.stop_gradient(_standardised(discounted_sums(deltas, discount * gae_lambda, goes_on), mask))


def discounted_sums(values, discount, goes_on):
  """sum over k of discount^k x[t + k] up to the end of the episode of t, along the last axis: [..., H] -> [..., H].

  Args:
    values: [..., H].
    discount: a number.
    goes_on: [..., H], 0 at the last step of each episode, 1 elsewhere.
  """
  time = len(values.shape) - 1
  order = [time, *range(time)]

  def earlier(later, step):
    return step[0] + discount * step[1] * later

  steps = tf.transpose(values, order), tf.transpose(tf.cast(goes_on, values.dtype), order)
  sums = tf.scan(earlier, steps, tf.zeros_like(steps[0][0]), reverse=True)
  return tf.ensure_shape(tf.transpose(sums, [*range(1, time + 1), 0]), values.shape)


def linear_values(trajectory, targets):
  """A linear function of features of the observation and the time, fitted to each task by ridge regression.

  Source: Duan et al. 2016, section 4.3; rllab, linear_feature_baseline.py. In float64: the features are nearly
  collinear and the ridge is small.

  Args:
    trajectory: `Trajectory`.
    targets: discounted returns [T, R, H].

  Returns:
    Its values [T, R, H].
  """
  features = tf.cast(_features(trajectory.observation, trajectory.age), tf.float64)
  mask = tf.cast(trajectory.mask, tf.float64)
  shape = tf.shape(features)
  rows = tf.reshape(features * mask[..., tf.newaxis], [shape[0], -1, features.shape[-1]])
  wanted = tf.reshape(tf.cast(targets, tf.float64) * mask, [shape[0], -1, 1])
  gram = tf.matmul(rows, rows, transpose_a=True) + RIDGE * tf.eye(features.shape[-1], dtype=tf.float64)
  # A policy that became NaN is for the trainer to report; the solver would only call the matrix singular.
  finite = tf.reduce_all(tf.math.is_finite(gram), [1, 2], keepdims=True)
  gram = tf.where(finite, gram, tf.eye(features.shape[-1], dtype=tf.float64))
  coefficients = tf.linalg.solve(gram, tf.matmul(rows, wanted, transpose_a=True))
  return tf.cast(tf.reshape(tf.matmul(rows, coefficients), shape[:-1]), targets.dtype)


def _features(observation, age):
  """[o, o^2, t, t^2, t^3, 1] with o clipped and t in hundreds of steps: [T, R, H, O] -> [T, R, H, 2 O + 4]."""
  clipped = tf.clip_by_value(observation, -OBSERVATION_LIMIT, OBSERVATION_LIMIT)
  time = tf.cast(age, observation.dtype)[..., tf.newaxis] / 100.0
  return tf.concat([clipped, clipped**2, time, time**2, time**3, tf.ones_like(time)], axis=-1)


def _standardised(values, mask):
  """Mean 0 and deviation 1 over the steps of each task that count."""
  axes = (1, 2)
  count = tf.reduce_sum(mask, axes, keepdims=True)
  mean = tf.math.divide_no_nan(tf.reduce_sum(values * mask, axes, keepdims=True), count)
  centred = (values - mean) * mask
  deviation = tf.sqrt(tf.math.divide_no_nan(tf.reduce_sum(centred**2, axes, keepdims=True), count))
  return centred / (deviation + 1e-8)
