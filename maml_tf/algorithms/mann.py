"""Memory-augmented network (Santoro, Bartunov, Botvinick, Wierstra and Lillicrap 2016), least recently used access."""

import keras
import tensorflow as tf

from maml_tf.algorithms.features import shared
from maml_tf.algorithms.lstm import flat, for_each, head_outputs, head_weights, like
from maml_tf.algorithms.reader import Reader
from maml_tf.models.part import KerasPart

NEARLY_NOTHING = 1e-4  # a squared length: of shorter rows the cosine sinks to 0, or its gradient would have no bound


class MANN(Reader):
  """An LSTM that writes to and reads from a memory of its own for each task (Santoro et al. 2016, section 3).

  At time t it gets the features of x_t and the label of x_(t-1): a label comes one step late. A query gets the label of
  the last support example, in a sequence of its own.

  Args:
    model: as of `Reader`.
    loss: as of `Reader`.
    bn_mode: as of `Reader`.
    recurrent_size: units of the controller.
    memory_slots: M, rows of the memory.
    slot_size: W, entries of a row.
    read_heads: R, which write as well.
    usage_decay: gamma of eq. 5.
    num_outputs: as of `Reader`.
  """

  learned = ("hidden", "carry", "memory", "usage", "read_weights", "reading", "last_label")

  def __init__(
    self,
    model,
    loss="crossentropy",
    bn_mode="transductive",
    recurrent_size=200,
    memory_slots=128,
    slot_size=40,
    read_heads=4,
    usage_decay=0.95,
    num_outputs=None,
  ):
    super().__init__(model, loss, bn_mode, num_outputs)
    self.recurrent_size, self.memory_slots, self.slot_size = recurrent_size, memory_slots, slot_size
    self.read_heads, self.usage_decay = read_heads, usage_decay
    shape = (None, self.item_size + read_heads * slot_size)
    self._controller = KerasPart("controller", keras.layers.LSTMCell, shape, units=recurrent_size)

  def initial_weights(self, seed=0):
    read = self.read_heads * self.slot_size
    heads = head_weights("controller/keys", self.recurrent_size, read, seed)
    heads |= head_weights("controller/gates", self.recurrent_size, self.read_heads, seed)
    heads |= head_weights("controller/head", self.recurrent_size + read, self.num_outputs, seed)
    return super().initial_weights(seed) | self._controller.initial_weights(seed) | heads

  def read(self, weights, items):
    labels = items[..., self.size :]
    late = tf.pad(labels, [[0, 0], [1, 0], [0, 0]])[:, :-1]
    inputs = tf.transpose(tf.concat([items[..., : self.size], late], axis=-1), [1, 0, 2])
    state = self._fresh_state(items)
    anyhow = tf.nest.map_structure(lambda t: tf.TensorShape([None, *t.shape[1:]]), state)
    state = tf.while_loop(
      lambda t, _: t < tf.shape(inputs)[0],
      lambda t, state: (t + 1, self._step(weights, state, inputs[t])),
      (0, state),
      shape_invariants=(tf.TensorShape([]), anyhow),
    )[1]
    return state | {"last_label": labels[:, -1]}

  def answer(self, weights, learned, questions):
    state = {name: for_each(value, questions) for name, value in learned.items()}
    features = flat(questions)[:, : self.size]
    state = self._step(weights, state, tf.concat([features, state.pop("last_label")], axis=-1))
    outputs = tf.concat([state["hidden"], state["reading"]], axis=-1)
    return head_outputs(weights, "controller/head", like(outputs, questions))

  def _fresh_state(self, items):
    num_tasks, heads, slots, size = tf.shape(items)[0], self.read_heads, self.memory_slots, self.slot_size
    state = {name: tf.zeros([num_tasks, self.recurrent_size], items.dtype) for name in ("hidden", "carry")}
    return state | {
      "memory": tf.zeros([num_tasks, slots, size], items.dtype),
      "usage": tf.zeros([num_tasks, slots], items.dtype),
      "read_weights": tf.zeros([num_tasks, heads, slots], items.dtype),
      "reading": tf.zeros([num_tasks, heads * size], items.dtype),
    }

  def _step(self, weights, state, x):
    """The controller and the memory, one step further: x [B, D + N + 1], each entry of the state [B, ...]."""
    inputs = tf.concat([x, state["reading"]], axis=-1)
    _, (hidden, carry) = self._controller(weights, inputs, [state["hidden"], state["carry"]])
    keys = tf.tanh(_linear(weights, "controller/keys", hidden))
    keys = tf.reshape(keys, [-1, self.read_heads, self.slot_size])
    gates = tf.sigmoid(_linear(weights, "controller/gates", hidden))
    return {"hidden": hidden, "carry": carry} | access(state, keys, gates, self.usage_decay)


def access(state, keys, gates, usage_decay):
  """Writes keys to a memory and reads from it (Santoro et al. 2016, eq. 2 to 8).

  Each head writes its key to the places that it last read and to a place that was used least, as its gate says; that
  place is emptied before. The places of the heads are different ones.

  Args:
    state: dict with "memory" [B, M, W], "usage" [B, M], "read_weights" [B, R, M].
    keys: [B, R, W].
    gates: [B, R], sigmoid(alpha) of eq. 7.
    usage_decay: gamma.

  Returns:
    Dict with the three anew, and "reading" [B, R * W].
  """
  slots, dtype = state["memory"].shape[1], keys.dtype
  least = tf.one_hot(tf.math.top_k(-state["usage"], keys.shape[1]).indices, slots, dtype=dtype)
  write_weights = gates[..., tf.newaxis] * state["read_weights"] + (1.0 - gates[..., tf.newaxis]) * least
  kept = 1.0 - tf.reduce_sum(least, axis=1)[..., tf.newaxis]
  memory = state["memory"] * kept + tf.matmul(write_weights, keys, transpose_a=True)
  cosines = tf.matmul(_directions(keys), _directions(memory), transpose_b=True)
  read_weights = tf.nn.softmax(cosines)
  reading = tf.matmul(read_weights, memory)
  usage = usage_decay * state["usage"] + tf.reduce_sum(read_weights + write_weights, axis=1)
  reading = tf.reshape(reading, [-1, reading.shape[1] * reading.shape[2]])
  return {"memory": memory, "usage": usage, "read_weights": read_weights, "reading": reading}


def _linear(weights, name, x):
  return tf.matmul(x, shared(weights[f"{name}/kernel"], 2)) + shared(weights[f"{name}/bias"], 1)


def _directions(vectors):
  return vectors * tf.math.rsqrt(tf.reduce_sum(vectors**2, axis=-1, keepdims=True) + NEARLY_NOTHING)
