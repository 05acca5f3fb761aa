"""Optimisers as pure functions of (gradients, state, weights).

Keras 3 refuses `stateless_apply` on the TensorFlow backend, and the trainer's loop needs a state that is a plain dict
of tensors; so the two update rules that the papers use are written out here, and tested against Keras' own.
"""

import dataclasses
from collections.abc import Callable

import tensorflow as tf


@dataclasses.dataclass(frozen=True)
class Adam:
  """Adam (Kingma and Ba 2015, algorithm 1 in the form of its section 2).

  Args:
    learning_rate: float, or a function of the step, an int32 tensor (a Keras `LearningRateSchedule`, say); one that
      branches on it in Python is decorated with `@tf.function`.
    beta_1: decay of the first moment.
    beta_2: decay of the second moment.
    epsilon: TensorFlow 1's default, with which the paper was run; Keras 3 has 1e-7.
    clip_value: clip every element of the gradients to +-clip_value first; None: do not.
  """

  learning_rate: float | Callable = 1e-3
  beta_1: float = 0.9
  beta_2: float = 0.999
  epsilon: float = 1e-8
  clip_value: float | None = None

  def initial_state(self, weights):
    zeros = tf.nest.map_structure(tf.zeros_like, weights)
    return {"first": zeros, "second": dict(zeros), "step": tf.zeros([], tf.int32)}

  def update(self, gradients, state, weights):
    """(new weights, new state)."""
    gradients = _clip(gradients, self.clip_value)
    step = state["step"] + 1
    first, second, stepped = {}, {}, {}
    for name, gradient in gradients.items():
      dtype = gradient.dtype
      rate = tf.cast(_rate(self.learning_rate, state["step"]), dtype)
      power = tf.cast(step, dtype)
      rate *= tf.sqrt(1.0 - tf.cast(self.beta_2, dtype) ** power)
      rate /= 1.0 - tf.cast(self.beta_1, dtype) ** power
      first[name] = self.beta_1 * state["first"][name] + (1.0 - self.beta_1) * gradient
      second[name] = self.beta_2 * state["second"][name] + (1.0 - self.beta_2) * gradient**2
      stepped[name] = weights[name] - rate * first[name] / (tf.sqrt(second[name]) + self.epsilon)
    return stepped, {"first": first, "second": second, "step": step}


@dataclasses.dataclass(frozen=True)
class SGD:
  """Plain gradient descent; arguments as in `Adam`."""

  learning_rate: float | Callable = 1e-2
  clip_value: float | None = None

  def initial_state(self, weights):
    del weights
    return {"step": tf.zeros([], tf.int32)}

  def update(self, gradients, state, weights):
    gradients = _clip(gradients, self.clip_value)
    rate = _rate(self.learning_rate, state["step"])
    stepped = {n: weights[n] - tf.cast(rate, g.dtype) * g for n, g in gradients.items()}
    return stepped, {"step": state["step"] + 1}


def _rate(learning_rate, step):
  return learning_rate(step) if callable(learning_rate) else learning_rate


def _clip(gradients, limit):
  if limit is None:
    return gradients
  return {name: tf.clip_by_value(g, -limit, limit) for name, g in gradients.items()}
