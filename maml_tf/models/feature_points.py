"""The convolutional network of visual regression: feature points, and a bias that is adapted."""

import itertools

import keras
import numpy as np
import tensorflow as tf

from maml_tf.models import layers
from maml_tf.models.explicit import ExplicitModel, WeightSpec


class FeaturePointNet(ExplicitModel):
  """Convolutions of stride 2, a spatial soft-argmax, a bias transformation, and two hidden layers.

  Source: Finn et al. 2019, section 5.3, and the visual tasks of its authors' code: 4 convolutions 5 x 5 x 16, a vector
  of 20 joined to the feature points (Finn et al. 2017b, "bias transformation"), 200-200 units.

  Args:
    output_dim: number of outputs.
    filters: of every convolution; each becomes a point, two numbers.
    input_shape: (height, width, channels).
    convolutions: how many.
    bias_size: length of the vector that is joined to the points.
    hidden: sizes of the hidden layers.
  """

  twice_differentiable = True

  def __init__(
    self,
    output_dim,
    filters=16,
    input_shape=(125, 125, 3),
    convolutions=4,
    bias_size=20,
    hidden=(200, 200),
    name=None,
  ):
    self._config = dict(
      output_dim=output_dim, filters=filters, input_shape=tuple(input_shape), convolutions=convolutions,
      bias_size=bias_size, hidden=tuple(hidden),
    )  # fmt: skip
    specs, channels = {}, input_shape[-1]
    for i in range(convolutions):
      specs[f"conv_{i}/kernel"] = WeightSpec((5, 5, channels, filters), keras.initializers.GlorotUniform())
      specs[f"conv_{i}/bias"] = WeightSpec((filters,), keras.initializers.Zeros())
      channels = filters
    specs["transformation/bias"] = WeightSpec((bias_size,), keras.initializers.Zeros())
    sizes = [2 * filters + bias_size, *hidden, output_dim]
    for i, shape in enumerate(itertools.pairwise(sizes)):
      specs[f"dense_{i}/kernel"] = WeightSpec(shape, keras.initializers.GlorotUniform())
      specs[f"dense_{i}/bias"] = WeightSpec(shape[1:], keras.initializers.Zeros())
    super().__init__(input_shape, specs, name=name)

  def forward(self, weights, x, normalise):
    del normalise
    for i in range(self._config["convolutions"]):
      x = tf.nn.relu(layers.conv2d(x, weights[f"conv_{i}/kernel"], weights[f"conv_{i}/bias"], stride=2))
    x = _with_vector(spatial_soft_argmax(x), weights["transformation/bias"])
    last = len(self._config["hidden"])
    for i in range(last + 1):
      x = layers.dense(x, weights[f"dense_{i}/kernel"], weights[f"dense_{i}/bias"])
      x = x if i == last else tf.nn.relu(x)
    return x

  def get_config(self):
    return {**self._config, "name": self.name}


def spatial_soft_argmax(x):
  """The expected place of each channel, as a softmax over positions weighs it: [T, n, H, W, C] -> [T, n, 2 C].

  Places are in [-1, 1], of rows for all channels first, then of columns (Levine et al. 2016).
  """
  height, width, channels = x.shape[2:]
  sizes = tf.shape(x)
  weights = tf.nn.softmax(tf.reshape(x, [sizes[0], sizes[1], height * width, channels]), axis=2)
  rows, columns = np.meshgrid(np.linspace(-1, 1, height), np.linspace(-1, 1, width), indexing="ij")
  places = [tf.constant(places.reshape(-1, 1), x.dtype) for places in (rows, columns)]
  return tf.concat([tf.reduce_sum(weights * place, axis=2) for place in places], axis=-1)


def _with_vector(x, vector):
  """x [T, n, d] with the vector, [b] or [T, b], behind every example."""
  vector = tf.reshape(vector, [-1, 1, vector.shape[-1]])
  return tf.concat([x, tf.broadcast_to(vector, [*tf.unstack(tf.shape(x)[:2]), vector.shape[-1]])], axis=-1)
