"""The meta-learner LSTM (Ravi and Larochelle 2017): an LSTM whose cell state is the weights of the learner."""

import math

import keras
import tensorflow as tf

from maml_tf import losses, over_tasks, tracing
from maml_tf import maml as inner_loop
from maml_tf.algorithms.maml import MAML
from maml_tf.models.explicit import initialise
from maml_tf.models.part import KerasPart

UNITS = 20  # of the first layer: Ravi and Larochelle 2017, section 4; twitter-research/meta-learning-lstm
SMALLEST = 10.0  # p of their appendix: gradients below exp(-p) are scaled rather than taken the logarithm of
BIASES = {"input": (-5.0, -4.0), "forget": (4.0, 5.0)}  # published code: rates begin small, and weights stay


class MetaLSTM(MAML):
  """Learns to optimise: w_t = f_t w_(t-1) - i_t times the gradient, with gates of every coordinate (eq. 2 to 5).

  An LSTM that the coordinates share reads gradients and losses; the gates are sigmoids of its state, of the weight, and
  of the gate before. The initial weights are learned with it. Gradients and losses count as constants (section 3.4).

  Args:
    model: an `ExplicitModel`.
    loss: as of `MAML`.
    num_updates: as of `MAML`.
    **settings: as of `MAML`, but for `inner_lr`, `first_order` and `checkpoint_inner_steps`.
  """

  compiles = False

  def __init__(self, model, loss="mse", num_updates=5, **settings):
    super().__init__(model, loss, 1.0, num_updates, first_order=True, **settings)
    self._reader = KerasPart("optimizer", keras.layers.LSTMCell, (None, 4), units=UNITS)

  def initial_weights(self, seed=0):
    weights = super().initial_weights(seed)
    dtype = keras.config.floatx()

    def drawn(name, shape, low, high):
      return initialise(keras.initializers.RandomUniform(low, high), shape, dtype, seed, name)

    own = {name: drawn(name, w.shape, -0.01, 0.01) for name, w in self._reader.initial_weights(seed).items()}
    for gate, bounds in BIASES.items():
      own[f"optimizer/{gate}/kernel"] = drawn(f"optimizer/{gate}/kernel", (UNITS + 2, 1), -0.01, 0.01)
      own[f"optimizer/{gate}/bias"] = drawn(f"optimizer/{gate}/bias", (1,), *bounds)
    return weights | own

  @tracing.as_it_stands
  def adapt(self, weights, support_x, support_y, num_updates=None, seed=None):
    """As `MAML.adapt`: a list of dicts, after 0 to num_updates steps; for the last alone, `adapt_final`."""
    num_updates = self.num_updates if num_updates is None else num_updates
    return [self.adapt_final(weights, support_x, support_y, count) for count in range(num_updates + 1)]

  @tracing.as_it_stands
  def adapt_final(self, weights, support_x, support_y, num_updates, seed=None):
    support_x, support_y = over_tasks.as_tensors((support_x, support_y))
    adapted, _ = self._optimised(weights, support_x, support_y, None, num_updates)
    adapted = {name: value for name, value in adapted.items() if not name.startswith("optimizer/")}
    return self._give_task_axis(self._with_statistics(adapted, support_x), support_x)

  @tracing.as_it_stands
  def meta_loss(self, weights, batch, seed=None):
    batch = over_tasks.as_tensors(batch)
    adapted, _ = self._optimised(weights, batch.support_x, batch.support_y, batch.support_mask, self.num_updates)
    return self._loss_and_metrics(weights, adapted, [], batch)

  @tracing.as_it_stands
  def evaluate(self, weights, batch, num_updates=10, seed=None):
    batch = over_tasks.as_tensors(batch)
    names = ["loss", *losses.accuracy_names(self.loss)]

    def measure(adapted):
      measured = self._query_metrics(adapted, batch)
      return [measured[name] for name in names]

    support = batch.support_x, batch.support_y, batch.support_mask
    _, stacked = self._optimised(weights, *support, num_updates, measure, len(names))
    return dict(zip(names, stacked, strict=True))

  def _optimised(self, weights, x, y, mask, num_updates, measure=None, num_measured=0):
    """(weights after the last step, what `measure` gives after 0 to num_updates steps, stacked)."""
    start, rates = self._start(weights, x)
    loss_fn, names = self._support_loss(start, x, y, mask), list(rates)
    flat = _flat(start, names)
    state = {"theta": flat, "input": tf.zeros_like(flat), "forget": tf.zeros_like(flat)}
    hidden = tf.zeros([tf.size(flat), UNITS], flat.dtype)
    state |= {"hidden": hidden, "carry": hidden}
    num_updates = tf.cast(num_updates, tf.int32)
    arrays = [tf.TensorArray(flat.dtype, num_updates + 1) for _ in range(num_measured)]

    def record(step, state, arrays):
      values = measure(start | _unflat(state["theta"], start, names)) if arrays else []
      return [array.write(step, value) for array, value in zip(arrays, values, strict=True)]

    def body(step, state, arrays):
      adapted = _unflat(state["theta"], start, names)
      task_losses, gradients = inner_loop.losses_and_gradients(loss_fn, start | adapted, names)
      state = self._step(weights, state, tf.stop_gradient(_flat(gradients, names)), tf.stop_gradient(task_losses))
      return step + 1, state, record(step + 1, state, arrays)

    _, state, arrays = tf.while_loop(
      lambda step, *_: step < num_updates, body, (0, state, record(0, state, arrays)), parallel_iterations=1
    )
    return start | _unflat(state["theta"], start, names), [array.stack() for array in arrays]

  def _step(self, weights, state, gradients, task_losses):
    """One step for every coordinate: state of [T, P] and [T * P, units], gradients [T, P], losses [T]."""
    read = tf.concat([preprocessed(gradients), preprocessed(task_losses[:, tf.newaxis] + 0.0 * gradients)], axis=-1)
    recurrent = [state["hidden"], state["carry"]]
    _, (hidden, carry) = self._reader(weights, tf.reshape(read, [-1, 4]), recurrent)

    def gate(name):
      own = tf.stack([tf.reshape(state[of], [-1]) for of in ("theta", name)], axis=-1)
      kernel, bias = weights[f"optimizer/{name}/kernel"], weights[f"optimizer/{name}/bias"]
      return tf.reshape(tf.sigmoid(tf.matmul(tf.concat([hidden, own], axis=-1), kernel) + bias), tf.shape(gradients))

    gates = {name: gate(name) for name in BIASES}
    theta = gates["forget"] * state["theta"] - gates["input"] * gradients
    return {"theta": theta, "hidden": hidden, "carry": carry, **gates}


def preprocessed(x):
  """(log |x| / p, sign x) where |x| is at least exp(-p), else (-1, exp(p) x): [...] -> [..., 2] (appendix C)."""
  large = tf.abs(x) >= math.exp(-SMALLEST)
  size = tf.where(large, tf.math.log(tf.where(large, tf.abs(x), tf.ones_like(x))) / SMALLEST, -tf.ones_like(x))
  return tf.stack([size, tf.where(large, tf.sign(x), math.exp(SMALLEST) * x)], axis=-1)


def _flat(tensors, names):
  """Tensors [T, ...] side by side, [T, P]."""
  return tf.concat([tf.reshape(tensors[name], [tf.shape(tensors[name])[0], -1]) for name in names], axis=1)


def _unflat(flat, like, names):
  """The inverse, in the shapes of `like`."""
  sizes = [math.prod(like[name].shape[1:]) for name in names]
  parts = tf.split(flat, sizes, axis=1)
  return {n: tf.reshape(part, tf.shape(like[n])) for n, part in zip(names, parts, strict=True)}
