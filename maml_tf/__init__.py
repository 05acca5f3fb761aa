"""Model-agnostic meta-learning (Finn et al. 2017) on TensorFlow 2 and Keras 3.

The public names load on first use, so that a command line can refuse bad input before TensorFlow is imported.
"""

import importlib

__version__ = "0.1.0"
__all__ = ["MAML", "check_meta_gradient", "evaluation", "export", "losses", "models", "tasks"]


def __getattr__(name):
  if name == "MAML":
    return importlib.import_module("maml_tf.algorithms.maml").MAML
  if name == "check_meta_gradient":
    return importlib.import_module("maml_tf.gradient_check").check_meta_gradient
  if name in __all__:
    return importlib.import_module(f"maml_tf.{name}")
  raise AttributeError(f"module 'maml_tf' has no attribute {name!r}")
