"""The convolutional networks of the paper: strided for Omniglot, max-pooling for miniImageNet."""

import keras
import tensorflow as tf

from maml_tf.models import layers
from maml_tf.models.explicit import ExplicitModel, WeightSpec
from maml_tf.models.mlp import apply_norm, check_norm, norm_specs

NUM_BLOCKS = 4


class ConvNet(ExplicitModel):
  """Four blocks of 3 x 3 convolution, normalisation, ReLU (and 2 x 2 max-pooling), then a linear classifier.

  Source: Finn et al. 2017, section 5.2; cbfinn/maml, `construct_conv_weights` and `forward_conv` in maml.py. There the
  choice between the two heads hangs on the data set; here it follows `max_pool` unless `global_pool` says otherwise.

  Args:
    num_classes: number of logits.
    filters: of every convolution.
    input_shape: (height, width, channels).
    norm: "batch_norm" (shift only, statistics of the batch), "layer_norm" or None.
    max_pool: False: convolutions of stride 2 (Omniglot); True: stride 1 and pooling (miniImageNet).
    global_pool: True: the mean over positions and a classifier drawn from N(0, 1), as for Omniglot; False: all
      positions and a Glorot-uniform classifier, as for miniImageNet. None: `not max_pool`.
    head: False: without the classifier, so that the outputs are its features.
  """

  twice_differentiable = True

  def __init__(
    self,
    num_classes: int,
    filters: int = 64,
    input_shape: tuple[int, int, int] = (28, 28, 1),
    norm: str | None = "batch_norm",
    max_pool: bool = False,
    global_pool: bool | None = None,
    head: bool = True,
    name: str | None = None,
  ):
    check_norm(norm)
    self._config = dict(
      num_classes=num_classes, filters=filters, input_shape=tuple(input_shape), norm=norm,
      max_pool=max_pool, global_pool=global_pool, head=head,
    )  # fmt: skip
    self._norm, self._max_pool, self._head = norm, max_pool, head
    self._global_pool = not max_pool if global_pool is None else global_pool
    height, width, channels = input_shape
    specs = {}
    for i in range(NUM_BLOCKS):
      specs[f"conv_{i}/kernel"] = WeightSpec((3, 3, channels, filters), keras.initializers.GlorotUniform())
      specs[f"conv_{i}/bias"] = WeightSpec((filters,), keras.initializers.Zeros())
      specs.update(norm_specs(norm, i, filters))
      channels = filters
      height, width = (height // 2, width // 2) if max_pool else (-(-height // 2), -(-width // 2))
    if height < 1 or width < 1:
      raise ValueError(f"input_shape: {tuple(input_shape)} is too small for {NUM_BLOCKS} poolings")
    if self._global_pool:
      features, initializer = filters, keras.initializers.RandomNormal(stddev=1.0)
    else:
      features, initializer = height * width * filters, keras.initializers.GlorotUniform()
    if head:
      specs["dense/kernel"] = WeightSpec((features, num_classes), initializer)
      specs["dense/bias"] = WeightSpec((num_classes,), keras.initializers.Zeros())
    super().__init__(input_shape, specs, name=name)

  @property
  def num_outputs(self):
    return self._config["num_classes"]

  @property
  def has_statistics(self):
    return self._norm == "batch_norm"

  def forward(self, weights, x, normalise):
    pool = layers.max_pool if self._max_pool else None
    for i in range(NUM_BLOCKS):
      x = layers.conv2d(x, weights[f"conv_{i}/kernel"], stride=1 if self._max_pool else 2)
      x = apply_norm(self._norm, weights, i, x, normalise, weights[f"conv_{i}/bias"], pool)
      x = tf.nn.relu(x)  # the same as before pooling, on a quarter of the values
    if self._global_pool:
      x = tf.reduce_mean(x, axis=[2, 3])
    else:
      x = tf.reshape(x, tf.concat([tf.shape(x)[:2], [x.shape[2] * x.shape[3] * x.shape[4]]], 0))
    return layers.dense(x, weights["dense/kernel"], weights["dense/bias"]) if self._head else x

  def get_config(self):
    return {**self._config, "name": self.name}
