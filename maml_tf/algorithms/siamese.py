"""Siamese networks (Koch, Zemel and Salakhutdinov 2015): whether two examples are of the same class."""

import keras
import tensorflow as tf

from maml_tf.algorithms.features import features_of
from maml_tf.algorithms.metric import Metric, members
from maml_tf.models.explicit import initialise


class Siamese(Metric):
  """Learns p(same class) = sigmoid(sum_j alpha_j |f_j(a) - f_j(b)| + beta) of pairs (Koch et al. 2015, section 3.1).

  The pairs of a task are each query example with each support example. Same and different pairs weigh the same, as in
  the paper's sampling. A query's class is the one whose support examples look most alike, on average over their logits;
  the paper has one example a class.

  Args:
    model: as of `Metric`; its features take the place of the sigmoid layer before the distance.
    loss: as of `Metric`: what is reported. Training minimises the binary cross-entropy of the pairs.
    bn_mode: as of `Metric`.
  """

  learned = ("support_features", "support_members")

  def __init__(self, model, loss="crossentropy", bn_mode="transductive"):
    super().__init__(model, loss, bn_mode)
    self.size = features_of(model)

  def initial_weights(self, seed=0):
    dtype = keras.config.floatx()
    kernel = initialise(keras.initializers.GlorotUniform(), (self.size, 1), dtype, seed, "metric/kernel")
    return super().initial_weights(seed) | {"metric/kernel": kernel, "metric/bias": tf.zeros([1], dtype)}

  def learn(self, weights, features, labels, mask):
    del weights
    return {"support_features": features, "support_members": members(labels, features.dtype, mask)}

  def compare(self, weights, learned, features):
    member = learned["support_members"]
    sums = tf.matmul(pair_logits(weights, features, learned["support_features"]), member)
    return tf.math.divide_no_nan(sums, tf.reduce_sum(member, axis=1)[:, tf.newaxis])

  def loss_of(self, weights, learned, batch, features):
    logits = pair_logits(weights, features, learned["support_features"])
    member = learned["support_members"]
    classes = tf.one_hot(tf.cast(batch.query_y, tf.int32), tf.shape(member)[-1], dtype=logits.dtype)
    if batch.query_mask is not None:
      classes *= tf.cast(batch.query_mask, logits.dtype)[..., tf.newaxis]
    same = tf.matmul(classes, member, transpose_b=True)
    counted = tf.reduce_sum(classes, -1)[..., tf.newaxis] * tf.reduce_sum(member, -1)[:, tf.newaxis]
    return balanced(logits, same, counted), self.compare(weights, learned, features)


def pair_logits(weights, left, right):
  """Logits [T, q, n] that features [T, q, D] and [T, n, D] are of the same class."""
  kernel, bias = weights["metric/kernel"], weights["metric/bias"]
  distances = tf.abs(left[:, :, tf.newaxis] - right[:, tf.newaxis])  # [T, q, n, D]
  kernel, bias = (tf.reshape(w, [-1, 1, 1, w.shape[axis]]) for w, axis in ((kernel, -2), (bias, -1)))
  return tf.reduce_sum(distances * kernel, axis=-1) + bias[..., 0]


def balanced(logits, same, counted):
  """Binary cross-entropy of pairs, half of it the mean over same and half over different ones: [T].

  Args:
    logits: [T, q, n].
    same: [T, q, n], 1 where a pair is of the same class.
    counted: [T, q, n], 1 where a pair counts.
  """
  losses = tf.nn.sigmoid_cross_entropy_with_logits(labels=same, logits=logits)

  def mean(of):
    return tf.math.divide_no_nan(tf.reduce_sum(losses * of, axis=[1, 2]), tf.reduce_sum(of, axis=[1, 2]))

  return 0.5 * (mean(same) + mean(counted - same))
