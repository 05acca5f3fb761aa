"""A plain LSTM that reads the support set (Hochreiter, Younger and Conwell 2001): what it has learned is its state."""

import keras
import tensorflow as tf

from maml_tf.algorithms.features import shared
from maml_tf.algorithms.reader import Reader
from maml_tf.models import layers
from maml_tf.models.explicit import initialise
from maml_tf.models.part import KerasPart


class LSTMReader(Reader):
  """An LSTM over (features, label) pairs; a query is one step more, without a label, from the state that they left.

  Source: Hochreiter et al. 2001, "Learning to learn using gradient descent", whose labels come one step late; here they
  come with their example, as in the LSTM comparator of Mishra et al. 2018 and Garnelo et al. 2018.

  Args:
    model: as of `Reader`.
    loss: as of `Reader`.
    bn_mode: as of `Reader`.
    recurrent_size: units of the LSTM.
    num_outputs: as of `Reader`.
  """

  learned = ("hidden", "carry")

  def __init__(self, model, loss="mse", bn_mode="transductive", recurrent_size=128, num_outputs=None):
    super().__init__(model, loss, bn_mode, num_outputs)
    self.recurrent_size = recurrent_size
    shape = (None, None, self.item_size)
    self._reader = KerasPart("reader", keras.layers.LSTM, shape, units=recurrent_size, return_state=True)

  def initial_weights(self, seed=0):
    head = head_weights("reader/head", self.recurrent_size, self.num_outputs, seed)
    return super().initial_weights(seed) | self._reader.initial_weights(seed) | head

  def read(self, weights, items):
    _, hidden, carry = self._reader(weights, items)
    return {"hidden": hidden, "carry": carry}

  def answer(self, weights, learned, questions):
    state = [for_each(learned[name], questions) for name in self.learned]
    hidden, _ = self._reader(weights, flat(questions), state, of=self._reader.layer.cell)
    return head_outputs(weights, "reader/head", like(hidden, questions))


def head_weights(name, size, num_outputs, seed):
  """A linear layer's weights, by Keras' initialiser."""
  dtype = keras.config.floatx()
  kernel = initialise(keras.initializers.GlorotUniform(), (size, num_outputs), dtype, seed, f"{name}/kernel")
  return {f"{name}/kernel": kernel, f"{name}/bias": tf.zeros([num_outputs], dtype)}


def head_outputs(weights, name, x):
  """Of that layer: x [T, n, size] -> [T, n, num_outputs]."""
  return layers.dense(x, shared(weights[f"{name}/kernel"], 2), shared(weights[f"{name}/bias"], 1))


def for_each(state, questions):
  """A state [T, ...] once for each question [T, q, ...]: [T * q, ...], in the order of `flat`."""
  return tf.repeat(state, tf.shape(questions)[1], axis=0)


def flat(questions):
  """[T, q, d] -> [T * q, d]."""
  return tf.reshape(questions, [-1, questions.shape[-1]])


def like(values, questions):
  """[T * q, d] -> [T, q, d]."""
  return tf.reshape(values, tf.concat([tf.shape(questions)[:2], [values.shape[-1]]], 0))
