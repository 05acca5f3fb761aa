"""The convolutional network of Rainbow MNIST."""

import keras
import tensorflow as tf

from maml_tf.models import layers
from maml_tf.models.explicit import ExplicitModel, WeightSpec
from maml_tf.models.mlp import apply_norm, norm_specs

# (stride, whether a ReLU follows). Finn et al. 2019, published code; the paper's text has five layers.
RAINBOW_LAYERS = ((2, True), (1, False), (2, True), (2, True), (1, False), (2, True))


class StridedConvNet(ExplicitModel):
  """3 x 3 convolutions of given strides with batch statistics, the mean over positions, a linear classifier.

  Args:
    num_classes: number of logits.
    filters: of every convolution.
    input_shape: (height, width, channels).
    layers: of each convolution (stride, whether a ReLU follows).
  """

  has_statistics = True
  twice_differentiable = True

  def __init__(self, num_classes, filters=32, input_shape=(28, 28, 3), layers=RAINBOW_LAYERS, name=None):
    self._config = dict(num_classes=num_classes, filters=filters, input_shape=tuple(input_shape), layers=tuple(layers))
    specs, channels = {}, input_shape[-1]
    for i in range(len(layers)):
      specs[f"conv_{i}/kernel"] = WeightSpec((3, 3, channels, filters), keras.initializers.GlorotUniform())
      specs[f"conv_{i}/bias"] = WeightSpec((filters,), keras.initializers.Zeros())
      specs.update(norm_specs("batch_norm", i, filters))
      channels = filters
    specs["dense/kernel"] = WeightSpec((filters, num_classes), keras.initializers.RandomNormal(stddev=1.0))
    specs["dense/bias"] = WeightSpec((num_classes,), keras.initializers.Zeros())
    super().__init__(input_shape, specs, name=name)

  def forward(self, weights, x, normalise):
    for i, (stride, activates) in enumerate(self._config["layers"]):
      x = layers.conv2d(x, weights[f"conv_{i}/kernel"], stride=stride)
      x = apply_norm("batch_norm", weights, i, x, normalise, weights[f"conv_{i}/bias"])
      x = tf.nn.relu(x) if activates else x
    x = tf.reduce_mean(x, axis=[2, 3])
    return layers.dense(x, weights["dense/kernel"], weights["dense/bias"])

  def get_config(self):
    return {**self._config, "name": self.name}
