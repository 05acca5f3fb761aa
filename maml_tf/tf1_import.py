"""Checkpoints of the published code (cbfinn/maml, TensorFlow 1) as SavedModels of this package."""

import pathlib

import tensorflow as tf

from maml_tf import export
from maml_tf.errors import UserError
from maml_tf.tasks import TaskBatch


def import_tf1_checkpoint(path, algorithm, output, metadata=None):
  """Turns a checkpoint of the published code (cbfinn/maml, TensorFlow 1) into a SavedModel, as `save` writes it.

  Args:
    path: the checkpoint's prefix, as in `.../model59000`.
    algorithm: `MAML` of a `models.ConvNet` of the checkpoint's sizes, with the step size to adapt with and the loss: a
      checkpoint holds none of them.
    output: folder to write; an older SavedModel there is replaced, anything else is not.
    metadata: JSON-able dict that travels with the artefact.

  Returns:
    Dict of name -> tensor, the weights.

  Raises:
    UserError: no checkpoint there, or not of that network; or something else than a SavedModel lies where it would be.
  """
  check_output(output)
  weights = read_tf1_checkpoint(path)
  model = algorithm.model
  export.check_shapes(path, {name: tuple(weight.shape) for name, weight in weights.items()}, model.weight_shapes)
  weights = {name: weights[name] for name in model.weight_shapes}
  x, y = tf.TensorSpec([None, *model.example_shape]), tf.TensorSpec([None], tf.int32)
  export.save_module(export.AdaptationModule(algorithm, weights, TaskBatch(x, y, x, y), metadata), output)
  return weights


def read_tf1_checkpoint(path):
  """The weights in a checkpoint of the published code: its convolutional network with batch normalisation.

  Args:
    path: the checkpoint's prefix, as in `.../model59000`.

  Returns:
    Dict of name -> tensor for `models.ConvNet` of the same sizes.

  Raises:
    UserError: no checkpoint there, or not of that network.
  """
  names = {"dense/kernel": "model/w5", "dense/bias": "model/b5"}
  for i in range(4):
    # The published code left its convolution biases unnamed, so TensorFlow numbered them.
    names[f"conv_{i}/kernel"] = f"model/conv{i + 1}"
    names[f"conv_{i}/bias"] = "model/Variable" if i == 0 else f"model/Variable_{i}"
    names[f"norm_{i}/beta"] = f"model/{i}/beta"
  try:
    reader = tf.train.load_checkpoint(str(path))
  except (ValueError, tf.errors.OpError) as error:
    raise UserError(f"{path}: no TensorFlow checkpoint here (expected {path}.index and {path}.data-...)") from error
  missing = [theirs for theirs in names.values() if not reader.has_tensor(theirs)]
  if missing:
    raise UserError(f"{path}: not the published code's convolutional network: it has no {missing[0]}")
  return {ours: tf.constant(reader.get_tensor(theirs)) for ours, theirs in names.items()}


def check_output(path):
  """Refuses to write a SavedModel in the place of what is none.

  Raises:
    UserError: a file, or a folder with something else in it.
  """
  path = pathlib.Path(path)
  if path.exists() and not path.is_dir():
    raise UserError(f"{path}: this is a file; name a folder to write the SavedModel to")
  if path.is_dir() and any(path.iterdir()) and not (path / "saved_model.pb").is_file():
    raise UserError(f"{path}: this folder holds something else than a SavedModel; name another, or empty it")
