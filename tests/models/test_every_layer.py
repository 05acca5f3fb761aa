"""Every layer that Keras exports, under a meta-gradient in float64: right, or refused by its name."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from maml_tf import MAML, models, tasks
from maml_tf.models import precision
from maml_tf.models.derivatives import NotTwiceDifferentiableError

L = keras.layers
VECTOR, SEQUENCE, IMAGE, VOLUME = (4,), (5, 4), (6, 6, 2), (4, 4, 4, 2)
CONV = dict(filters=2, kernel_size=2)

# Group -> (shape of the input, layer -> its arguments, or a function that builds it).
GROUPS = {
  "vectors": (VECTOR, {
    "Activation": ("gelu",), "ActivityRegularization": (0.1, 0.1), "AlphaDropout": (0.5,), "Dense": (3,),
    "Dropout": (0.5,), "ELU": (), "Flatten": (), "GaussianDropout": (0.5,), "GaussianNoise": (0.5,), "Identity": (),
    "Lambda": (keras.ops.tanh,), "LeakyReLU": (), "Normalization": dict(mean=0.5, variance=2.0), "PReLU": (),
    "ReLU": (), "RepeatVector": (2,), "Rescaling": (0.5, 0.1), "Reshape": ((2, 2),), "Softmax": (),
  }),
  "normalisation": (VECTOR, {
    "UnitNormalization": (), "BatchNormalization": (), "LayerNormalization": (), "RMSNormalization": (),
    "GroupNormalization": (2,), "SpectralNormalization": lambda: L.SpectralNormalization(L.Dense(3)),
    "EinsumDense": dict(equation="bi,ij->bj", output_shape=3, bias_axes="j"),
  }),
  "sequences": (SEQUENCE, {
    "AdaptiveAveragePooling1D": (2,), "AdaptiveMaxPooling1D": (2,), "AveragePooling1D": (2,), "Conv1D": CONV,
    "Conv1DTranspose": CONV, "Cropping1D": (1,), "GlobalAveragePooling1D": (), "GlobalMaxPooling1D": (),
    "MaxPooling1D": (2,), "Permute": ((2, 1),), "SeparableConv1D": CONV, "DepthwiseConv1D": (2,),
    "SpatialDropout1D": (0.5,), "UpSampling1D": (2,), "ZeroPadding1D": (1,), "Masking": (),
    "TimeDistributed": lambda: L.TimeDistributed(L.Dense(2)),
    "Pipeline": lambda: L.Pipeline([L.Rescaling(2.0)]),
  }),
  "recurrent": (SEQUENCE, {
    "GRU": (2,), "LSTM": (2,), "SimpleRNN": (2,), "Bidirectional": lambda: L.Bidirectional(L.GRU(2)),
    "RNN": lambda: L.RNN(L.SimpleRNNCell(2)), "GRUCell": lambda: L.RNN(L.GRUCell(2)),
    "LSTMCell": lambda: L.RNN(L.LSTMCell(2)), "SimpleRNNCell": lambda: L.RNN(L.SimpleRNNCell(2, "sigmoid")),
    "StackedRNNCells": lambda: L.RNN(L.StackedRNNCells([L.SimpleRNNCell(2), L.GRUCell(2)])),
  }),
  "several": (SEQUENCE, {
    "Add": (), "Average": (), "Maximum": (), "Minimum": (), "Multiply": (), "Subtract": (), "Concatenate": (),
    "Dot": dict(axes=(2, 2)), "Attention": dict(use_scale=True), "AdditiveAttention": (),
    "MultiHeadAttention": (2, 2), "GroupQueryAttention": (2, 2, 1),
  }),
  "images": (IMAGE, {
    "AdaptiveAveragePooling2D": (2,), "AdaptiveMaxPooling2D": (2,), "AveragePooling2D": (2,), "CenterCrop": (3, 3),
    "Conv2D": CONV, "Conv2DTranspose": CONV, "Cropping2D": (1,), "DepthwiseConv2D": (2,),
    "GlobalAveragePooling2D": (), "GlobalMaxPooling2D": (), "MaxPooling2D": (2,), "Resizing": (4, 7),
    "SeparableConv2D": CONV, "SpatialDropout2D": (0.5,), "UpSampling2D": dict(size=2, interpolation="bicubic"),
    "ZeroPadding2D": (1,), "ConvLSTM1D": CONV,
  }),
  "volumes": (VOLUME, {
    "Conv3D": CONV, "Conv3DTranspose": CONV, "Cropping3D": (1,), "GlobalAveragePooling3D": (), "GlobalMaxPooling3D": (),
    "SpatialDropout3D": (0.5,), "UpSampling3D": (2,), "ZeroPadding3D": (1,), "ConvLSTM2D": CONV,
  }),
  "spectra": ((32, 1), {"STFTSpectrogram": dict(fft_length=8, frame_length=8)}),
  "volumes in time": ((2, 3, 3, 3, 1), {"ConvLSTM3D": CONV}),
}  # fmt: skip

# Layers that take no floats to differentiate through, or that act in training only and are tested behind `Random`.
NOT_DIFFERENTIATED = {
  "CategoryEncoding", "Discretization", "HashedCrossing", "Hashing", "IntegerLookup", "StringLookup",
  "TextVectorization", "Embedding", "ReversibleEmbedding", "MaxNumBoundingBoxes",
}  # fmt: skip
AUGMENTATIONS = {
  "AugMix", "AutoContrast", "ContrastLimitedAdaptiveHistogramEqualization", "CutMix", "Equalization", "MixUp",
  "RandAugment", "Solarization",
}  # fmt: skip
# TensorFlow or Keras compute these in float32 only.
SINGLE = {
  "AdaptiveAveragePooling3D": ((4, 4, 4, 2), lambda: L.AdaptiveAveragePooling3D(2)),
  "AveragePooling3D": ((4, 4, 4, 2), lambda: L.AveragePooling3D(2)),
  "MaxPooling3D": ((4, 4, 4, 2), lambda: L.MaxPooling3D(2)),
  "AdaptiveMaxPooling3D": ((4, 4, 4, 2), lambda: L.AdaptiveMaxPooling3D(2)),
}
# float32 only, and a logarithm too steep for differences in that.
NOT_MEASURED = {"MelSpectrogram"}
NO_LAYERS = {"FlaxLayer", "InputLayer", "InputSpec", "JaxLayer", "Layer", "TFSMLayer", "TorchModuleWrapper", "Wrapper"}


@pytest.fixture(autouse=True)
def float64():
  keras.config.set_floatx("float64")
  keras.config.set_dtype_policy("float64")
  yield
  keras.config.set_floatx("float32")
  keras.config.set_dtype_policy("float32")


def built(name, arguments):
  if callable(arguments):
    return arguments()
  kind = getattr(L, name)
  return kind(**arguments) if isinstance(arguments, dict) else kind(*arguments)


def side_by_side(shape, layers, takes_pairs):
  """One model of all the layers, each behind weights of its own."""
  inputs, outputs = keras.Input(shape), []
  for name, arguments in layers.items():
    before = [L.Dense(shape[-1], name=f"before_{name}_{i}")(inputs) for i in range(2 if takes_pairs else 1)]
    layer = built(name, arguments)
    by_position = name in ("MultiHeadAttention", "GroupQueryAttention")
    outputs.append(L.Flatten()(layer(*before) if by_position or not takes_pairs else layer(before)))
  return models.from_keras(keras.Model(inputs, L.Concatenate()(outputs) if len(outputs) > 1 else outputs[0]))


def error(model, num_updates, dtype=np.float64, step=1e-5):
  """The relative error of the meta-gradient along a random direction, by central differences of fourth order."""
  rng = np.random.default_rng(0)
  x = rng.normal(size=(2, 1, 3, *model.example_shape)).astype(dtype)
  y = rng.normal(size=(2, 1, 3, *model.model.output_shape[1:])).astype(dtype)
  batch = tasks.TaskBatch(x[0], y[0], x[1], y[1])
  maml = MAML(model, lambda y, out: tf.reduce_sum((out - y) ** 2, -1), inner_lr=0.02, num_updates=num_updates)
  weights = {name: tf.cast(weight, dtype) for name, weight in maml.initial_weights(0).items()}
  line = {name: rng.normal(size=weight.shape).astype(dtype) for name, weight in weights.items()}

  def at(step):
    return float(maml.meta_loss({name: weight + step * line[name] for name, weight in weights.items()}, batch)[0])

  _, gradients = maml.meta_gradients(weights, batch)
  exact = sum(float(tf.reduce_sum(gradients[name] * line[name])) for name in weights)
  measured = (8 * (at(step) - at(-step)) - (at(2 * step) - at(-2 * step))) / (12 * step)
  return abs(exact - measured) / abs(measured)


@pytest.mark.parametrize("group", GROUPS)
def test_meta_gradients_through_every_layer(group):
  shape, layers = GROUPS[group]
  layers = {name: arguments for name, arguments in layers.items() if hasattr(L, name)}  # an older Keras has fewer
  model = side_by_side(shape, layers, takes_pairs=group == "several")
  for num_updates in (1, 2):
    assert error(model, num_updates) < 1e-6


def test_no_layer_is_left_out():
  covered = {name for _, layers in GROUPS.values() for name in layers}
  covered |= NOT_DIFFERENTIATED | AUGMENTATIONS | SINGLE.keys() | NOT_MEASURED | NO_LAYERS
  kinds = {getattr(L, name) for name in covered if hasattr(L, name)}  # a class may have several names
  exported = {n: v for n, v in vars(L).items() if isinstance(v, type) and not n.startswith(("_", "Random"))}
  assert [name for name, kind in exported.items() if kind not in kinds] == []


@pytest.mark.parametrize("name", SINGLE)
def test_layers_without_float64(name):
  keras.config.set_floatx("float32")
  keras.config.set_dtype_policy("float32")
  if not hasattr(L, name):
    pytest.skip("an older Keras")
  shape, build = SINGLE[name]
  model = keras.Sequential([keras.Input(shape), L.Dense(shape[-1]), build()])
  assert error(models.from_keras(model), 1, np.float32, step=1e-2) < 1e-2


class Augmented(keras.Model):
  """An augmentation behind weights: a model of Keras' functional kind takes it for a cycle where it changes nothing."""

  def __init__(self, augmentation):
    super().__init__()
    self.before, self.augmentation, self.output_shape = L.Conv2D(3, 1), augmentation, (None, 6, 6, 3)

  def call(self, x, training=None):
    return self.augmentation(self.before(x), training=training)


ARGUMENTS = {"RandomCrop": (6, 6), "RandomPosterization": (4,), "RandomTranslation": (0.5, 0.5)}
NO_FACTOR = AUGMENTATIONS - {"Solarization"} | {
  "RandomElasticTransform",
  "RandomErasing",
  "RandomFlip",
  "RandomGaussianBlur",
}


@pytest.mark.parametrize("name", sorted(n for n in dir(L) if n in AUGMENTATIONS or n.startswith("Random")))
def test_augmentations_change_nothing_and_are_right_or_refused(name):
  layer = getattr(L, name)(*ARGUMENTS.get(name, () if name in NO_FACTOR else (0.5,)), name="augmentation")
  try:
    model = models.from_keras(Augmented(layer), input_shape=(6, 6, 3))
    assert error(model, 1) < 1e-6
  except ValueError as refused:  # one that has no derivative at all cuts the loss off the weights
    assert "layer augmentation" in str(refused) or "does not depend on any of the weights" in str(refused)


def test_embeddings_are_right():
  model = keras.Sequential([keras.Input((2,)), L.Lambda(lambda x: keras.ops.cast(x > 0, "int32")), L.Embedding(3, 2)])
  assert error(models.from_keras(model), 2) < 1e-6


def test_low_rank_updates_are_right():
  dense = L.Dense(4)
  model = keras.Sequential([keras.Input((4,)), dense, L.Activation("tanh"), L.Dense(2)])
  dense.enable_lora(2)
  for variable in dense.trainable_variables:
    variable.assign(np.random.default_rng(1).normal(size=variable.shape))
  wrapped = models.from_keras(model, fresh=False)
  assert any("lora" in name for name in wrapped.weight_shapes)
  # Keras makes these kernels in float32 whatever the policy: that was all that hid in differences of 1e-3.
  with precision.in_float64(wrapped):
    assert error(wrapped, 2) < 1e-6


def test_rotary_embeddings_are_right():
  class Rotary(L.Layer):
    """As in KerasHub: angles in float32, cast."""

    def call(self, x):
      half = x.shape[-1] // 2
      positions = keras.ops.arange(x.shape[1], dtype="float32")
      angles = keras.ops.outer(positions, 100.0 ** -keras.ops.arange(half, dtype="float32"))
      cosine, sine = (
        keras.ops.cast(keras.ops.tile(f(angles), [1, 2]), x.dtype) for f in (keras.ops.cos, keras.ops.sin)
      )
      return x * cosine + keras.ops.concatenate([-x[..., half:], x[..., :half]], -1) * sine

  model = keras.Sequential([keras.Input(SEQUENCE), L.Dense(4, "tanh"), Rotary(), L.Dense(2)])
  assert error(models.from_keras(model), 2) < 1e-6


def test_renormalisation_is_refused():
  model = keras.Sequential([keras.Input((4,)), L.Dense(4), L.BatchNormalization(renorm=True, name="renormed")])
  with pytest.raises(NotTwiceDifferentiableError, match="layer renormed"):
    error(models.from_keras(model), 1)
