"""`maml_tf.load`: a SavedModel that `MAML.save` or a run wrote, ready to adapt."""

import os
from typing import Any

import numpy as np
import tensorflow as tf

from maml_tf import export, saved_models
from maml_tf.errors import UserError


class Trained:
  """A trained initialisation without the code that trained it.

  Attributes:
    path: folder of the SavedModel.
    module: what `tf.saved_model.load` gives.
    weights: the initialisation, dict of name -> tensor.
    metadata: dict that travels with it: docs/predicting.md.
    num_updates: gradient steps where none are named.
  """

  def __init__(self, path: str, module: Any, weights: dict[str, tf.Tensor], metadata: dict):
    self.path, self.module, self.weights, self.metadata = str(path), module, weights, metadata
    self.num_updates: int = metadata.get("default_steps", metadata.get("config", {}).get("num_updates", 1))
    self._specs = module.signatures["adapt_and_predict"].structured_input_signature[1]

  @property
  def input_shape(self) -> tuple[int, ...]:
    """Shape of one input."""
    return tuple(self._specs["support_x"].shape[1:])

  @property
  def outputs(self) -> int | None:
    """Number of outputs of one example: the classes, of a classifier; None where the artefact does not say it."""
    shape = self.module.signatures["adapt_and_predict"].structured_outputs["outputs"].shape
    return shape[-1] if shape.rank else None

  @property
  def classifies(self) -> bool:
    return self._specs["support_y"].dtype.is_integer

  def adapt(self, support_x, support_y, num_updates: int | None = None) -> Any:
    """Learns one task from its support set.

    Args:
      support_x: [n, ...].
      support_y: [n, ...]; integers from 0 for a classifier.
      num_updates: gradient steps; None: as in training.

    Returns:
      What `predict` takes: adapted weights, dict of name -> tensor.

    Raises:
      ValueError: shapes do not fit, or a label is no class.
    """
    x, y = self._input("support_x", support_x), self._as("support_y", support_y)
    if x.shape[0] != y.shape[0] or x.shape[0] == 0:
      raise ValueError(f"adapt: support_x has {x.shape[0]} examples, support_y {y.shape[0]} labels; as many are needed")
    if self.classifies and self.outputs and not tf.reduce_all((y >= 0) & (y < self.outputs)):
      raise ValueError(f"adapt: support_y holds a label that is no class, expected 0 to {self.outputs - 1}")
    return self.module.adapt(x, y, self.num_updates if num_updates is None else num_updates)

  def predict(self, task: Any, x) -> tf.Tensor:
    """Outputs [n, ...] (logits, of a classifier) at x [n, ...] of what `adapt` returned, or of `weights`."""
    return self.module.predict(task, self._input("x", x))

  def _input(self, name, x):
    x = self._as("support_x", x)
    if x.shape.rank != len(self.input_shape) + 1 or not x.shape[1:].is_compatible_with(self.input_shape):
      wanted = ", ".join(["n", *("?" if size is None else str(size) for size in self.input_shape)])
      raise ValueError(f"{name}: expected [{wanted}], got {list(x.shape)}")
    return x

  def _as(self, name, values):
    return tf.cast(np.asarray(values), self._specs[name].dtype)


def load(path: str | os.PathLike) -> Trained:
  """Reads a SavedModel that `MAML.save`, or a run, wrote.

  Args:
    path: its folder, or a run's.

  Raises:
    UserError: there is none, of another format, damaged, or of a policy.
  """
  path = saved_models.find(path)
  module, weights, metadata = export.load_module(path)
  if "adapt_and_predict" not in getattr(module, "signatures", {}):
    raise UserError(f"{path}: this SavedModel has no adapt_and_predict (a policy's has not: docs/environments.md)")
  return Trained(path, module, weights, metadata)
