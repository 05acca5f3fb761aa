"""The memory module (Kaiser, Nachum, Roy and Bengio 2017): keys, values and ages, and the nearest key's value."""

import tensorflow as tf

from maml_tf import losses
from maml_tf.algorithms.matching import ABSENT
from maml_tf.algorithms.metric import Metric, members

INVERSE_TEMPERATURE = 40.0  # Kaiser et al. 2017, section 2: of the softmax over cosines


class Memory(Metric):
  """Keeps features of length 1 and their classes in a memory; the class of a query is that of its nearest key.

  A memory is a task's own and begins empty; the paper has one for the whole training. The support examples come one
  after another (section 2.1): where the nearest key has the right class it moves towards the example, else the example
  takes the oldest place. The update is differentiated; in the paper no gradient reaches the keys.

  Args:
    model: as of `Metric`.
    loss: as of `Metric`: what is reported. Training minimises the margin loss (eq. 1).
    bn_mode: as of `Metric`.
    memory_slots: places.
    margin: alpha.
  """

  learned = ("keys", "values", "ages")

  def __init__(self, model, loss="crossentropy", bn_mode="transductive", memory_slots=128, margin=0.1):
    super().__init__(model, loss, bn_mode)
    self.memory_slots, self.margin = memory_slots, margin

  def learn(self, weights, features, labels, mask):
    del weights
    keys, values = directions(features), members(labels, features.dtype)
    counts = tf.ones_like(keys[..., 0]) if mask is None else tf.cast(mask, keys.dtype)
    num_tasks, slots = tf.shape(keys)[0], self.memory_slots
    empty = {
      "keys": tf.zeros([num_tasks, slots, keys.shape[-1]], keys.dtype),
      "values": tf.zeros([num_tasks, slots, tf.shape(values)[-1]], keys.dtype),
      "ages": tf.zeros([num_tasks, slots], keys.dtype),
    }
    shapes = {name: tf.TensorShape([None, slots, None]) for name in ("keys", "values")}
    shapes |= {"keys": tf.TensorShape([None, slots, keys.shape[-1]]), "ages": tf.TensorShape([None, slots])}

    def store(i, memory):
      after = stored(memory, keys[:, i], values[:, i])
      counted = counts[:, i][:, tf.newaxis]
      return i + 1, {
        name: tf.where(counted > 0 if name == "ages" else counted[..., tf.newaxis] > 0, after[name], memory[name])
        for name in memory
      }

    n = tf.shape(keys)[1]
    return tf.while_loop(lambda i, _: i < n, store, (0, empty), shape_invariants=(tf.TensorShape([]), shapes))[1]

  def compare(self, weights, learned, features):
    del weights
    return INVERSE_TEMPERATURE * nearest(directions(features), learned)

  def loss_of(self, weights, learned, batch, features):
    cosines = nearest(directions(features), learned)
    loss = margin_loss(cosines, batch.query_y, self.margin)
    return losses.per_task(loss, batch.query_mask), INVERSE_TEMPERATURE * cosines


def stored(memory, key, value):
  """A memory after one more example of every task (section 2.1).

  Args:
    memory: dict of "keys" [T, M, D], "values" [T, M, N] (one-hot, zeros where a place is empty) and "ages" [T, M].
    key: [T, D], of length 1.
    value: [T, N], one-hot.

  Returns:
    Dict like `memory`.
  """
  keys, values, ages = memory["keys"], memory["values"], memory["ages"]
  slots, dtype = keys.shape[1], keys.dtype
  filled = tf.reduce_sum(values, axis=-1) > 0
  cosines = tf.where(filled, tf.einsum("tmd,td->tm", keys, key), tf.constant(ABSENT, dtype))
  closest = tf.one_hot(tf.argmax(cosines, axis=-1), slots, dtype=dtype)
  right = tf.einsum("tm,tmn,tn->t", closest, values, value)[:, tf.newaxis]
  # A place that was never filled is as old as can be.
  oldest = tf.one_hot(tf.argmax(ages, axis=-1), slots, dtype=dtype)
  place = right * closest + (1.0 - right) * oldest
  there = tf.einsum("tm,tmd->td", place, keys)
  new = directions(key + right * there)
  place = place[..., tf.newaxis]
  return {
    "keys": keys * (1.0 - place) + place * new[:, tf.newaxis],
    "values": values * (1.0 - place) + place * value[:, tf.newaxis],
    "ages": (ages + 1.0) * (1.0 - place[..., 0]),
  }


def nearest(queries, memory):
  """The largest cosine of queries [T, q, D] with a key of each class: [T, q, N]."""
  cosines = tf.matmul(queries, memory["keys"], transpose_b=True)
  absent = tf.constant(ABSENT, cosines.dtype)
  theirs = tf.where(memory["values"][:, tf.newaxis] > 0, cosines[..., tf.newaxis], absent)
  return tf.reduce_max(theirs, axis=2)


def margin_loss(cosines, labels, margin):
  """max(0, nearest wrong key - nearest right one + margin) (eq. 1): cosines [T, q, N], labels [T, q] -> [T, q].

  Nothing where there is no key of the class: it was overwritten.
  """
  right = tf.one_hot(tf.cast(labels, tf.int32), tf.shape(cosines)[-1], dtype=cosines.dtype)
  positive = tf.reduce_sum(tf.where(right > 0, cosines, tf.zeros_like(cosines)), axis=-1)
  negative = tf.reduce_max(tf.where(right > 0, tf.constant(ABSENT, cosines.dtype), cosines), axis=-1)
  loss = tf.nn.relu(negative - positive + margin)
  return tf.where(positive > ABSENT / 2, loss, tf.zeros_like(loss))


def directions(vectors):
  """Vectors of length 1; one of zeros stays so."""
  return vectors * tf.math.rsqrt(tf.reduce_sum(vectors**2, axis=-1, keepdims=True) + 1e-12)
