"""SavedModels anew: the same weights and settings, other statistics for the query examples."""

import tensorflow as tf

from maml_tf import export
from maml_tf.errors import UserError
from maml_tf.experiments.config import from_record


def reexport(path, output, bn_mode="support", half=False):
  """Writes the SavedModel of an initialisation that a run of this package exported.

  Args:
    path: a SavedModel of `scripts/main.py`, of images or sine waves.
    output: folder to write; it may be `path` itself.
    bn_mode: as of `export.AdaptationModule`.
    half: keep the weights as float16.

  Raises:
    UserError: it is none, or that of a policy.
  """
  weights, metadata = export.load_initialization(path)
  if "config" not in metadata:
    raise UserError(f"{path}: it does not say how it was trained, so it cannot be made anew")
  config = from_record(metadata["config"])
  if config.domain.name == "policies":
    raise UserError(f"{path}: a policy normalises nothing by statistics; there is nothing to make anew")
  experiment = config.domain.load()(config)
  algorithm = experiment.algorithm(metadata.get("inner_lr", config.update_lr))
  kept = {n: v for n, v in metadata.items() if n not in ("format_version", "weights", "model_weights", "has_steps")}
  stored = tf.float16 if half else None
  module = export.AdaptationModule(algorithm, weights, experiment.example_specs(), kept, stored, bn_mode)
  export.save_module(module, output)
