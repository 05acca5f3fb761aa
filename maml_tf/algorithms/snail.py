"""SNAIL (Mishra, Rohaninejad, Chen and Abbeel 2018): temporal convolutions and causal attention."""

import keras
import tensorflow as tf

from maml_tf.algorithms.features import shared
from maml_tf.algorithms.lstm import head_outputs, head_weights
from maml_tf.algorithms.reader import Reader
from maml_tf.models import layers
from maml_tf.models.explicit import initialise

# Mishra et al. 2018, appendix A: (size of keys, size of values) around two temporal convolutions of 128 filters.
ATTENTION = ((64, 32), (256, 128), (512, 256))
NEVER = -1e9  # a score whose exponential is 0


class SNAIL(Reader):
  """Attention, TC, attention, TC, attention, and a linear layer at each position (Mishra et al. 2018, section 3).

  Everything is causal and each block adds channels to those that it was given. So a support example's channels do not
  depend on the queries: adapting computes them once, block by block, and a query is one position more.

  Args:
    model: as of `Reader`.
    loss: as of `Reader`.
    bn_mode: as of `Reader`.
    temporal_filters: D, of every dense block of a temporal convolution.
    temporal_blocks: dense blocks of each temporal convolution, with dilations 1, 2, 4, ...; it spans 2 to that power
      positions. The paper has ceil(log2 T) of them, for sequences of length T.
    attention: (size of keys, size of values) of the three attention blocks.
    num_outputs: as of `Reader`.
  """

  def __init__(
    self,
    model,
    loss="mse",
    bn_mode="transductive",
    temporal_filters=128,
    temporal_blocks=4,
    attention=ATTENTION,
    num_outputs=None,
  ):
    super().__init__(model, loss, bn_mode, num_outputs)
    convolution = [Dilated(2**i, temporal_filters) for i in range(temporal_blocks)]
    first, second, third = (Attention(*sizes) for sizes in attention)
    blocks = [first, *convolution, second, *convolution, third]
    self.blocks = [(f"snail/{index}", block) for index, block in enumerate(blocks)]

  @property
  def learned(self):
    """The channels of the support examples before each block."""
    return tuple(f"channels/{index}" for index in range(len(self.blocks)))

  def initial_weights(self, seed=0):
    weights, channels = super().initial_weights(seed), self.item_size
    for name, block in self.blocks:
      for part, shape in block.shapes(channels).items():
        weights[f"{name}/{part}"] = fresh(f"{name}/{part}", shape, seed)
      channels += block.added
    return weights | head_weights("snail/head", channels, self.num_outputs, seed)

  def read(self, weights, items):
    before = {}
    for kept, (name, block) in zip(self.learned, self.blocks, strict=True):
      before[kept] = items
      items = tf.concat([items, block.of_support(part_of(weights, name, block), items)], axis=-1)
    return before

  def answer(self, weights, learned, questions):
    x = questions
    for kept, (name, block) in zip(self.learned, self.blocks, strict=True):
      x = tf.concat([x, block.of_queries(part_of(weights, name, block), learned[kept], x)], axis=-1)
    return head_outputs(weights, "snail/head", x)


class Dilated:
  """A dense block: a causal convolution over two positions, `dilation` apart, with a gate (figure 2a).

  tanh(filter) * sigmoid(gate); both have a kernel [2, C, D] for the earlier and the present position.
  """

  def __init__(self, dilation, filters):
    self.dilation, self.added = dilation, filters

  def shapes(self, channels):
    kernel = (2, channels, self.added)
    return {"filter": kernel, "filter_bias": (self.added,), "gate": kernel, "gate_bias": (self.added,)}

  def of_support(self, weights, x):
    """[T, n, C] -> [T, n, D]; before the first example there are zeros."""
    return self._gated(weights, tf.pad(x, [[0, 0], [self.dilation, 0], [0, 0]])[:, : tf.shape(x)[1]], x)

  def of_queries(self, weights, support, x):
    """The same at position n, whatever stands there: support [T, n, C], x [T, q, C] -> [T, q, D]."""
    padded = tf.pad(support, [[0, 0], [self.dilation, 0], [0, 0]])
    return self._gated(weights, padded[:, tf.shape(support)[1]][:, tf.newaxis], x)

  def _gated(self, weights, earlier, x):
    def convolved(name):
      kernel = weights[name]
      return layers.add_bias(tf.matmul(earlier, kernel[0]) + tf.matmul(x, kernel[1]), weights[f"{name}_bias"])

    return tf.tanh(convolved("filter")) * tf.sigmoid(convolved("gate"))


class Attention:
  """Causal soft attention of every position to itself and to those before it (figure 2b)."""

  def __init__(self, key_size, value_size):
    self.key_size, self.added = key_size, value_size

  def shapes(self, channels):
    sizes = {"query": self.key_size, "key": self.key_size, "value": self.added}
    kernels = {name: (channels, size) for name, size in sizes.items()}
    return kernels | {f"{name}_bias": (size,) for name, size in sizes.items()}

  def of_support(self, weights, x):
    """[T, n, C] -> [T, n, V]."""
    query, key, value = self._projected(weights, x)
    seen = tf.linalg.band_part(tf.ones([tf.shape(x)[1]] * 2, x.dtype), -1, 0)
    scores = tf.matmul(query, key, transpose_b=True) * self._scale()
    return tf.matmul(tf.nn.softmax(scores + NEVER * (1.0 - seen)), value)

  def of_queries(self, weights, support, x):
    """Each query's, to the support set [T, n, C] and to itself [T, q, C]: [T, q, V]."""
    query, own_key, own_value = self._projected(weights, x)
    _, key, value = self._projected(weights, support)
    scores = tf.matmul(query, key, transpose_b=True)
    own = tf.reduce_sum(query * own_key, axis=-1, keepdims=True)
    attention = tf.nn.softmax(tf.concat([scores, own], axis=-1) * self._scale())
    return tf.matmul(attention[..., :-1], value) + attention[..., -1:] * own_value

  def _projected(self, weights, x):
    return [layers.dense(x, weights[name], weights[f"{name}_bias"]) for name in ("query", "key", "value")]

  def _scale(self):
    return self.key_size**-0.5


def part_of(weights, name, block):
  """A block's own weights, plain."""
  ranks = {part: len(shape) for part, shape in block.shapes(0).items()}
  return {part: shared(weights[f"{name}/{part}"], rank) for part, rank in ranks.items()}


def fresh(name, shape, seed):
  """A kernel by Keras' initialiser, a bias of zeros."""
  dtype = keras.config.floatx()
  return (
    tf.zeros(shape, dtype)
    if len(shape) == 1
    else initialise(keras.initializers.GlorotUniform(), shape, dtype, seed, name)
  )
