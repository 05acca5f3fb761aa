"""Every layer that Keras exports, under a meta-gradient in float64: right, or refused by its name."""

import keras
import numpy as np
import pytest

from maml_tf import MAML, check_meta_gradient, models, tasks
from maml_tf.models.derivatives import NotTwiceDifferentiableError

L = keras.layers
VECTOR, SEQUENCE, IMAGE, VOLUME = (4,), (5, 4), (6, 6, 2), (4, 4, 4, 2)
CONV = dict(filters=2, kernel_size=2)

# Shape of the input, and arguments where there are some: what each needs to be built small.
LAYERS = {
  VECTOR: {
    "Activation": ("gelu",), "ActivityRegularization": (0.1, 0.1), "AlphaDropout": (0.5,), "Dense": (3,), "Dropout": (0.5,), "ELU": (),
    "Flatten": (), "GaussianDropout": (0.5,), "GaussianNoise": (0.5,), "Identity": (), "Lambda": (keras.ops.tanh,), "LeakyReLU": (),
    "Normalization": dict(mean=0.5, variance=2.0), "PReLU": (), "ReLU": (), "RepeatVector": (2,), "Rescaling": (0.5, 0.1), "Reshape": ((2, 2),),
    "Softmax": (), "UnitNormalization": (), "BatchNormalization": (), "LayerNormalization": (), "RMSNormalization": (), "GroupNormalization": (2,),
    "SpectralNormalization": lambda: L.SpectralNormalization(L.Dense(3)),
    "EinsumDense": dict(equation="bi,ij->bj", output_shape=3, bias_axes="j"),
  },
  SEQUENCE: {
    "AdaptiveAveragePooling1D": (2,), "AdaptiveMaxPooling1D": (2,), "AveragePooling1D": (2,), "Conv1D": CONV, "Conv1DTranspose": CONV,
    "Cropping1D": (1,), "GlobalAveragePooling1D": (), "GlobalMaxPooling1D": (), "MaxPooling1D": (2,), "Permute": ((2, 1),),
    "SeparableConv1D": CONV, "DepthwiseConv1D": (2,), "SpatialDropout1D": (0.5,), "UpSampling1D": (2,), "ZeroPadding1D": (1,), "Masking": (),
    "TimeDistributed": lambda: L.TimeDistributed(L.Dense(2)), "Pipeline": lambda: L.Pipeline([L.Rescaling(2.0)]),
  },
  "recurrent": {
    "GRU": (2,), "LSTM": (2,), "SimpleRNN": (2,), "Bidirectional": lambda: L.Bidirectional(L.GRU(2)),
    "RNN": lambda: L.RNN(L.SimpleRNNCell(2)), "GRUCell": lambda: L.RNN(L.GRUCell(2)), "LSTMCell": lambda: L.RNN(L.LSTMCell(2)),
    "SimpleRNNCell": lambda: L.RNN(L.SimpleRNNCell(2, activation="sigmoid")),
    "StackedRNNCells": lambda: L.RNN(L.StackedRNNCells([L.SimpleRNNCell(2), L.GRUCell(2)])),
  },
  IMAGE: {
    "AdaptiveAveragePooling2D": (2,), "AdaptiveMaxPooling2D": (2,), "AveragePooling2D": (2,), "CenterCrop": (3, 3), "Conv2D": CONV,
    "Conv2DTranspose": CONV, "Cropping2D": (1,), "DepthwiseConv2D": (2,), "GlobalAveragePooling2D": (), "GlobalMaxPooling2D": (),
    "MaxPooling2D": (2,), "Resizing": (4, 7), "SeparableConv2D": CONV, "SpatialDropout2D": (0.5,),
    "UpSampling2D": dict(size=2, interpolation="bicubic"), "ZeroPadding2D": (1,),
  },
  VOLUME: {
    "AdaptiveAveragePooling3D": (2,), "AdaptiveMaxPooling3D": (2,), "AveragePooling3D": (2,), "Conv3D": CONV, "Conv3DTranspose": CONV,
    "Cropping3D": (1,), "GlobalAveragePooling3D": (), "GlobalMaxPooling3D": (), "MaxPooling3D": (2,), "SpatialDropout3D": (0.5,),
    "UpSampling3D": (2,), "ZeroPadding3D": (1,), "ConvLSTM2D": CONV,
  },
}  # fmt: skip
# With arguments of another form: a function that applies the layer to [x, y], each of shape SEQUENCE.
SEVERAL = {
  **{
    name: getattr(L, name)() for name in ("Add", "Average", "Maximum", "Minimum", "Multiply", "Subtract", "Concatenate")
  },
  "Dot": L.Dot(axes=(2, 2)),
  "Attention": L.Attention(use_scale=True),
  "AdditiveAttention": L.AdditiveAttention(),
  "MultiHeadAttention": lambda pair: L.MultiHeadAttention(2, 2)(*pair),
  "GroupQueryAttention": lambda pair: L.GroupQueryAttention(2, 2, 1)(*pair),
}

# Right by refusing: a layer whose gradient is stopped by definition, and one whose derivative TensorFlow lacks.
REFUSED = {"BatchNormalization(renorm=True)": lambda: L.BatchNormalization(renorm=True)}
