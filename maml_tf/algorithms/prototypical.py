"""Prototypical networks (Snell, Swersky and Zemel 2017): a class is the mean of its support examples' features."""

import tensorflow as tf

from maml_tf.algorithms.metric import Metric, members


class Prototypical(Metric):
  """Classifies by the squared Euclidean distance of features to the prototypes (Snell et al. 2017, eq. 1 and 2).

  What it keeps of a support set are the prototypes, [T, N, D]. Arguments as of `Metric`.
  """

  learned = ("prototypes",)

  def learn(self, weights, features, labels, mask):
    del weights
    return {"prototypes": prototypes(features, labels, mask)}

  def compare(self, weights, learned, features):
    del weights
    return negative_distances(features, learned["prototypes"])


def prototypes(features, labels, mask=None):
  """Means of the features of each class (eq. 1).

  Args:
    features: [T, n, D].
    labels: integers [T, n], 0 to N - 1.
    mask: [T, n], true where an example counts; None: all do.

  Returns:
    [T, N, D].
  """
  member = members(labels, features.dtype, mask)
  sums = tf.einsum("tnc,tnd->tcd", member, features)
  return tf.math.divide_no_nan(sums, tf.reduce_sum(member, axis=1)[..., tf.newaxis])


def negative_distances(features, centres):
  """-|f - c|^2, the logits of eq. 2: features [T, n, D], centres [T, N, D] -> [T, n, N]."""
  cross = tf.einsum("tnd,tcd->tnc", features, centres)
  norms = tf.reduce_sum(features**2, -1)[..., tf.newaxis] + tf.reduce_sum(centres**2, -1)[:, tf.newaxis]
  return 2.0 * cross - norms
