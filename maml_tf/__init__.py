"""Model-agnostic meta-learning (Finn et al. 2017) on TensorFlow 2 and Keras 3.

The public names load on first use, so that a command line can refuse bad input before TensorFlow is imported.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
  from maml_tf import evaluation, export, losses, models, tasks
  from maml_tf.front import MAML
  from maml_tf.gradient_check import check_meta_gradient
  from maml_tf.loading import load
  from maml_tf.pictures import predict_folder

__version__ = "0.1.0"
__all__ = [
  "MAML",
  "check_meta_gradient",
  "evaluation",
  "export",
  "load",
  "losses",
  "models",
  "predict_folder",
  "tasks",
]

# A public name that is no module, and the module that has it.
_HOMES = {
  "MAML": "maml_tf.front",
  "check_meta_gradient": "maml_tf.gradient_check",
  "load": "maml_tf.loading",
  "predict_folder": "maml_tf.pictures",
}


def __getattr__(name):
  if name in _HOMES:
    return getattr(importlib.import_module(_HOMES[name]), name)
  if name in __all__:
    return importlib.import_module(f"maml_tf.{name}")
  raise AttributeError(f"module 'maml_tf' has no attribute {name!r}")
