"""The two distributions of actions, as parameters with a batch of any shape. Tested against SciPy."""

import math
from typing import NamedTuple

import tensorflow as tf

from maml_tf import randomness


class DiagonalGaussian(NamedTuple):
  """A normal distribution with independent dimensions; both parameters are [..., A]."""

  mean: tf.Tensor
  log_std: tf.Tensor

  def sample(self, seed):
    """Draws [..., A]."""
    shape, dtype = tf.shape(self.mean), self.mean.dtype
    noise = tf.random.stateless_normal(shape, seed, dtype=dtype, alg=randomness.ALGORITHM)
    return self.mean + tf.exp(self.log_std) * noise

  def mode(self):
    """The most likely value, [..., A]."""
    return self.mean

  def log_prob(self, value):
    """Log-density [...] of values [..., A]."""
    scaled = (value - self.mean) * tf.exp(-self.log_std)
    return -tf.reduce_sum(0.5 * scaled**2 + self.log_std + 0.5 * math.log(2 * math.pi), axis=-1)

  def kl(self, other):
    """KL(self || other), [...], in nats."""
    ratio = tf.exp(2 * (self.log_std - other.log_std))
    moved = ((self.mean - other.mean) * tf.exp(-other.log_std)) ** 2
    return tf.reduce_sum(other.log_std - self.log_std + 0.5 * (ratio + moved - 1.0), axis=-1)

  def entropy(self):
    """Differential entropy [...], in nats."""
    return tf.reduce_sum(self.log_std + 0.5 * math.log(2 * math.pi * math.e), axis=-1)

  def fisher(self, tangent):
    """The Fisher information (the Hessian of the KL at zero distance) times a change of the parameters.

    Args:
      tangent: `DiagonalGaussian` of changes.
    """
    return DiagonalGaussian(tangent.mean * tf.exp(-2 * self.log_std), 2 * tangent.log_std)


class Categorical(NamedTuple):
  """A distribution over the integers 0..A-1, with unnormalised log-probabilities [..., A]."""

  logits: tf.Tensor

  def sample(self, seed):
    """Draws int32 [...]."""
    noise = randomness.uniform(seed, tf.shape(self.logits), 0.0, 1.0, self.logits.dtype)
    tiny = tf.constant(1e-30, self.logits.dtype)
    # The largest of logits with Gumbel noise (-log(-log(uniform))) is a draw.
    return tf.argmax(self.logits - tf.math.log(-tf.math.log(noise + tiny) + tiny), axis=-1, output_type=tf.int32)

  def mode(self):
    """The most likely value, int32 [...]."""
    return tf.argmax(self.logits, axis=-1, output_type=tf.int32)

  def log_prob(self, value):
    """Log-probability [...] of integers [...]."""
    return tf.gather(tf.nn.log_softmax(self.logits), value, axis=-1, batch_dims=value.shape.rank)

  def kl(self, other):
    """KL(self || other), [...], in nats."""
    log_p, log_q = tf.nn.log_softmax(self.logits), tf.nn.log_softmax(other.logits)
    return tf.reduce_sum(tf.exp(log_p) * (log_p - log_q), axis=-1)

  def entropy(self):
    """Entropy [...], in nats."""
    log_p = tf.nn.log_softmax(self.logits)
    return -tf.reduce_sum(tf.exp(log_p) * log_p, axis=-1)

  def fisher(self, tangent):
    """The Fisher information times a change of the logits, a `Categorical`: diag(p) - p p^T."""
    p = tf.nn.softmax(self.logits)
    moved = p * tangent.logits
    return Categorical(moved - p * tf.reduce_sum(moved, axis=-1, keepdims=True))
