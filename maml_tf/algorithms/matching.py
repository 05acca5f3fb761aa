"""Matching networks (Vinyals, Blundell, Lillicrap, Kavukcuoglu and Wierstra 2016): attention over the support set."""

import keras
import tensorflow as tf

from maml_tf.algorithms.features import features_of, shared
from maml_tf.algorithms.metric import Metric, members
from maml_tf.models.explicit import initialise

ABSENT = -1e30  # a score whose exponential is 0, and which has a gradient


class Matching(Metric):
  """The probability of a class is the attention that its support examples get (Vinyals et al. 2016, eq. 1 and 2).

  Attention is a softmax over cosines, times `attention_scale`. With full context embeddings, a bidirectional LSTM reads
  the support features in their order, and an LSTM with attention looks at them `attention_steps` times for each query
  (section 2.1.2, appendix A.1 and A.2); both are as wide as the features.

  Args:
    model: as of `Metric`.
    loss: as of `Metric`.
    bn_mode: as of `Metric`.
    attention_scale: what cosines are multiplied by. The paper has 1, with which no probability on 5 ways is above 0.65.
    full_context: embed support and query examples in the context of the support set.
    attention_steps: K, with full context.

  Raises:
    UserError: as of `Metric`; or features of unknown size with full context.
  """

  learned = ("support_features", "support_members")

  def __init__(
    self,
    model,
    loss="crossentropy",
    bn_mode="transductive",
    attention_scale=10.0,
    full_context=False,
    attention_steps=3,
  ):
    super().__init__(model, loss, bn_mode)
    self.attention_scale = attention_scale
    self.context = FullContext(features_of(model), attention_steps) if full_context else None

  def initial_weights(self, seed=0):
    weights = super().initial_weights(seed)
    return weights if self.context is None else weights | self.context.initial_weights(seed)

  def learn(self, weights, features, labels, mask):
    if self.context is not None:
      if mask is not None:
        raise ValueError("support_mask: full context reads whole support sets; give every task as many examples")
      features = self.context.of_support(weights, features)
    return {"support_features": features, "support_members": members(labels, features.dtype, mask)}

  def compare(self, weights, learned, features):
    if self.context is not None:
      features = self.context.of_queries(weights, features, learned["support_features"])
    cosines = tf.einsum("tqd,tnd->tqn", _directions(features), _directions(learned["support_features"]))
    return class_scores(self.attention_scale * cosines, learned["support_members"])


def class_scores(scores, member):
  """log of the sum of exp(score) over the support examples of each class, whose softmax is the attention of the class.

  Args:
    scores: [T, q, n].
    member: [T, n, N], 1 where an example is of a class.

  Returns:
    [T, q, N].
  """
  theirs = tf.where(member[:, tf.newaxis] > 0, scores[..., tf.newaxis], tf.constant(ABSENT, scores.dtype))
  return tf.reduce_logsumexp(theirs, axis=2)


class FullContext:
  """Full context embeddings (Vinyals et al. 2016, appendix A).

  Args:
    size: D, of the features.
    steps: K, readings of the support set for each query.
  """

  def __init__(self, size, steps):
    self.size, self.steps = size, steps
    dtype = keras.config.floatx()
    forward = keras.layers.LSTM(size, return_sequences=True, dtype=dtype)
    self._reader = keras.layers.Bidirectional(forward, merge_mode="sum", dtype=dtype)
    self._reader.build((None, None, size))
    self._cell = keras.layers.LSTMCell(size, dtype=dtype)
    self._cell.build((None, 2 * size))
    names = [f"{way}/{weight}" for way in ("forward", "backward") for weight in _LSTM]
    self._names = {"reader": [f"context/{n}" for n in names], "cell": [f"context/query/{n}" for n in _LSTM]}

  def initial_weights(self, seed):
    """Dict of name -> tensor: Keras' own initialisers of an LSTM, from seeds of their own."""
    variables = zip(self._names["reader"], self._reader.trainable_variables, strict=True)
    variables = [*variables, *zip(self._names["cell"], self._cell.trainable_variables, strict=True)]
    return {name: self._initial(name, variable.shape, seed) for name, variable in variables}

  def of_support(self, weights, features):
    """g(x_i, S) = forward h_i + backward h_i + g'(x_i) (A.2): [T, n, D] -> [T, n, D]."""
    return _called(self._reader, self._of("reader", weights), features) + features

  def of_queries(self, weights, features, support):
    """f(x, S), the state after K steps of an LSTM that reads the support set by attention (A.1, eq. 3 to 6).

    The recurrent state [h, r] of eq. 3 is a state h, and a reading r that joins the input: the same sums.

    Args:
      weights: dict.
      features: f'(x), [T, q, D].
      support: g(x_i, S), [T, n, D].

    Returns:
      [T, q, D].
    """
    variables, shape = self._of("cell", weights), tf.shape(features)
    flat = tf.reshape(features, [-1, self.size])
    hidden, carry, reading = tf.zeros_like(flat), tf.zeros_like(flat), tf.zeros_like(flat)
    for _ in range(self.steps):
      inputs = tf.concat([flat, reading], axis=-1)
      _, (hidden, carry) = _called(self._cell, variables, inputs, [hidden, carry])
      hidden += flat
      attention = tf.nn.softmax(tf.einsum("tqd,tnd->tqn", tf.reshape(hidden, shape), support))
      reading = tf.reshape(tf.einsum("tqn,tnd->tqd", attention, support), [-1, self.size])
    return tf.reshape(hidden, shape)

  def _of(self, part, weights):
    return [shared(weights[name], 1 if name.endswith("bias") else 2) for name in self._names[part]]

  def _initial(self, name, shape, seed):
    kinds = {"kernel": keras.initializers.GlorotUniform(), "recurrent_kernel": keras.initializers.Orthogonal()}
    kind = name.rpartition("/")[2]
    if kind == "bias":  # an open forget gate
      return tf.repeat(tf.one_hot(1, 4, dtype=keras.config.floatx()), self.size)
    return initialise(kinds[kind], shape, keras.config.floatx(), seed, name)


_LSTM = ("kernel", "recurrent_kernel", "bias")


def _called(layer, weights, *inputs):
  """A Keras layer's outputs with these weights; its others, seeds of a dropout that is not there, are zeros."""
  others = [tf.zeros(variable.shape, variable.dtype) for variable in layer.non_trainable_variables]
  return layer.stateless_call(weights, others, *inputs)[0]


def _directions(features):
  """Features of length 1; one of zeros stays so."""
  return features * tf.math.rsqrt(tf.reduce_sum(features**2, axis=-1, keepdims=True) + 1e-12)
