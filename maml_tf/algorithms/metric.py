"""What learners that compare features have in common: a task is what they keep of its support set."""

import tensorflow as tf

from maml_tf.algorithms.features import FeatureLearner


class Metric(FeatureLearner):
  """Classifies queries by comparing their features with those of a support set. Arguments as of `FeatureLearner`."""

  kinds = ("classification",)

  def __init__(self, model, loss="crossentropy", bn_mode="transductive"):
    super().__init__(model, loss, bn_mode)


def members(labels, dtype, mask=None):
  """Which example is of which class: 1 or 0, [T, n, N], of integer labels [T, n]; none where the mask is false."""
  labels = tf.cast(labels, tf.int32)
  member = tf.one_hot(labels, tf.reduce_max(labels) + 1, dtype=dtype)
  return member if mask is None else member * tf.cast(mask, dtype)[..., tf.newaxis]
