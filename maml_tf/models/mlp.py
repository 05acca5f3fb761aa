"""The fully connected networks of the paper: 1-40-40-1 for sinusoids, 256-128-64-64 for Omniglot."""

import itertools
import math

import keras
import tensorflow as tf

from maml_tf.models import layers
from maml_tf.models.explicit import ExplicitModel, WeightSpec

NORMS = (None, "batch_norm", "layer_norm")


class MLP(ExplicitModel):
  """ReLU network with initial weights from a truncated normal and zero biases.

  Source: Finn et al. 2017, section 5.1 and appendix A; cbfinn/maml, `construct_fc_weights` in maml.py.

  Args:
    output_dim: number of outputs (logits for a classifier).
    hidden: sizes of the hidden layers.
    input_shape: shape of one example; flattened.
    norm: None, "batch_norm" (shift only) or "layer_norm", before each ReLU. Norm weights are meta-learned and
      not adapted.
    stddev: deviation of the initial weights; the published code's is 0.01.
    head: False: without the last layer, so that the outputs are the last hidden layer's features.
  """

  twice_differentiable = True

  def __init__(
    self,
    output_dim: int = 1,
    hidden: tuple[int, ...] = (40, 40),
    input_shape: tuple[int, ...] = (1,),
    norm: str | None = None,
    stddev: float = 0.01,
    head: bool = True,
    name: str | None = None,
  ):
    check_norm(norm)
    self._config = dict(
      output_dim=output_dim, hidden=tuple(hidden), input_shape=input_shape, norm=norm, stddev=stddev, head=head
    )
    self._num_hidden, self._norm, self._head = len(hidden), norm, head
    sizes = [math.prod(input_shape), *hidden, *([output_dim] if head else [])]
    specs = {}
    for i, (size_in, size_out) in enumerate(itertools.pairwise(sizes)):
      specs[f"dense_{i}/kernel"] = WeightSpec((size_in, size_out), keras.initializers.TruncatedNormal(stddev=stddev))
      specs[f"dense_{i}/bias"] = WeightSpec((size_out,), keras.initializers.Zeros())
      if i < len(hidden):
        specs.update(norm_specs(norm, i, size_out))
    super().__init__(input_shape, specs, name=name)

  @property
  def num_outputs(self):
    return self._config["output_dim"]

  @property
  def has_statistics(self):
    return self._norm == "batch_norm"

  def forward(self, weights, x, normalise):
    x = tf.reshape(x, tf.concat([tf.shape(x)[:2], [math.prod(self.example_shape)]], 0))
    for i in range(self._num_hidden):
      x = layers.dense(x, weights[f"dense_{i}/kernel"], weights[f"dense_{i}/bias"])
      x = tf.nn.relu(apply_norm(self._norm, weights, i, x, normalise))
    if not self._head:
      return x
    last = self._num_hidden
    return layers.dense(x, weights[f"dense_{last}/kernel"], weights[f"dense_{last}/bias"])

  def get_config(self):
    return {**self._config, "name": self.name}


def check_norm(norm):
  if norm not in NORMS:
    raise ValueError(f"norm: expected one of {NORMS}, got {norm!r}")


def norm_specs(norm, index, channels):
  """The weights of one normalisation: meta-learned, not adapted (in cbfinn/maml they are outside `weights`)."""
  specs = {}
  if norm == "layer_norm":
    specs[f"norm_{index}/gamma"] = WeightSpec((channels,), keras.initializers.Ones(), adapted=False)
  if norm is not None:
    specs[f"norm_{index}/beta"] = WeightSpec((channels,), keras.initializers.Zeros(), adapted=False)
  return specs


def apply_norm(norm, weights, index, x, normalise, bias=None, pool=None):
  """The normalisation of one layer's x, or nothing, after its bias and before its pooling where these are given."""
  if norm == "batch_norm":
    return normalise(f"norm_{index}", x, weights[f"norm_{index}/beta"], bias, pool)
  if bias is not None:
    x = layers.add_bias(x, bias)
  if norm == "layer_norm":
    x = layers.layer_norm(x, weights[f"norm_{index}/gamma"], weights[f"norm_{index}/beta"])
  return x if pool is None else pool(x)
