"""Models whose forward pass is also a pure function of explicit weights."""

from maml_tf.models.conv import ConvNet
from maml_tf.models.explicit import ExplicitModel
from maml_tf.models.feature_points import FeaturePointNet
from maml_tf.models.keras_model import KerasModel, from_keras
from maml_tf.models.mlp import MLP
from maml_tf.models.strided import StridedConvNet

__all__ = ["MLP", "ConvNet", "ExplicitModel", "FeaturePointNet", "KerasModel", "StridedConvNet", "from_keras"]
