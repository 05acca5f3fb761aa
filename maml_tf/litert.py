"""LiteRT (TensorFlow Lite): a SavedModel as one file that adapts and predicts on a phone, with built-in operations."""

import os
import pathlib
import tempfile
from typing import Any

import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from maml_tf import export, saved_models
from maml_tf.errors import UserError


def convert(saved_model: str | os.PathLike, support_size: int) -> bytes:
  """A LiteRT model of an exported artefact.

  It has two signatures. `adapt(support_x, support_y, num_updates)` gives the adapted weights, by name (a slash becomes
  an underscore); `predict(x, ...)` takes these and gives `outputs`. The gradient steps are in the file: it trains on
  the device.

  Args:
    saved_model: its folder, or a run's.
    support_size: examples to adapt on. It is fixed: with a free one, gradients of broadcasts need operations that
      LiteRT does not have built in.

  Returns:
    Bytes of the file.

  Raises:
    UserError: there is no such artefact, or LiteRT lacks an operation that it needs.
  """
  if support_size < 1:
    raise UserError(f"support_size={support_size}: expected 1 or more")
  path = saved_models.find(saved_model)
  module, _, _ = export.load_module(path)
  if "adapt_and_predict" not in getattr(module, "signatures", {}):
    raise UserError(f"{path}: no artefact that adapts to labelled examples, so there is nothing to convert")
  with tempfile.TemporaryDirectory() as folder:
    tf.saved_model.save(_Holder(module), folder, signatures=_signatures(module, support_size))
    _without_missing_operations(pathlib.Path(folder, "saved_model.pb"))
    converter = tf.lite.TFLiteConverter.from_saved_model(folder, signature_keys=["adapt", "predict"])
    converter.experimental_enable_resource_variables = True
    try:
      return converter.convert()
    except Exception as error:  # the converter's own, of many lines
      missing = sorted({line.strip() for line in str(error).split("\n") if line.strip().startswith("tf.")})
      reason = f": {'; '.join(missing)}" if missing else ""
      raise UserError(f"{path}: LiteRT has no operation for a part of it{reason}") from error


class _Holder(tf.Module):
  """Keeps the artefact's variables with the signatures that use them."""

  def __init__(self, module: Any):
    super().__init__()
    self.module = module


def _signatures(module, support_size):
  specs = module.signatures["adapt_and_predict"].structured_input_signature[1]

  def spec(name, size):
    sizes = [] if name == "num_updates" else [size, *specs[name].shape[1:]]
    return tf.TensorSpec(sizes, specs[name].dtype, name=name)

  @tf.function(
    autograph=False, input_signature=[spec(n, support_size) for n in ("support_x", "support_y", "num_updates")]
  )
  def adapt(support_x, support_y, num_updates):
    task = module.adapt(support_x, support_y, num_updates)
    return {name.replace("/", "_"): value for name, value in task.items()}

  task = adapt.get_concrete_function().structured_outputs
  names = {name.replace("/", "_"): name for name in _names_of_task(module, spec, support_size)}
  weights = {name: tf.TensorSpec(value.shape, value.dtype, name=name) for name, value in task.items()}
  x = tf.TensorSpec(specs["query_x"].shape, specs["query_x"].dtype, name="x")

  @tf.function(autograph=False, input_signature=[x, weights])
  def predict(x, weights):
    return {"outputs": module.predict({names[name]: value for name, value in weights.items()}, x)}

  return {"adapt": adapt, "predict": predict}


def _names_of_task(module, spec, support_size):
  """Names of what the artefact's `adapt` returns."""
  arguments = [spec(name, support_size) for name in ("support_x", "support_y", "num_updates")]
  return list(tf.function(module.adapt, autograph=False).get_concrete_function(*arguments).structured_outputs)


def _without_missing_operations(path):
  """Puts built-in operations in place of those that LiteRT's converter does not know, in a SavedModel's functions."""
  saved = saved_model_pb2.SavedModel.FromString(path.read_bytes())
  for graph in saved.meta_graphs:
    library, added = graph.graph_def.library, {}
    for function in library.function:
      for op, make in (("ReluGrad", _relu_gradient), ("Conv2DBackpropFilter", _filter_gradient)):
        _replace(function, op, make, added)
    library.function.extend(added.values())
  path.write_bytes(saved.SerializeToString())


def _replace(function, op, make, added):
  """Calls of `make(node)`, a concrete function of the same inputs, in place of an operation of one output.

  Args:
    function: `FunctionDef`.
    op: name of the operation.
    make: function of a `NodeDef`.
    added: dict of name -> `FunctionDef`, to which those that are called are added.
  """
  renamed = {}
  for node in (node for node in function.node_def if node.op == op):
    made = make(node)
    definition = made.function_def
    added[definition.signature.name] = definition
    for inner in made.graph._functions.values():
      added[inner.cached_definition.signature.name] = inner.cached_definition
    node.op = "PartitionedCall"
    node.attr.clear()
    node.attr["f"].func.name = definition.signature.name
    node.attr["Tin"].list.type.extend(argument.type for argument in definition.signature.input_arg)
    node.attr["Tout"].list.type.extend(argument.type for argument in definition.signature.output_arg)
    renamed |= {f"{node.name}:{_OUTPUTS[op]}:0": f"{node.name}:output:0"}
  for node in function.node_def:
    for index, source in enumerate(node.input):
      node.input[index] = renamed.get(source, source)
  for name, source in function.ret.items():
    function.ret[name] = renamed.get(source, source)


_OUTPUTS = {"ReluGrad": "backprops", "Conv2DBackpropFilter": "output"}


def _relu_gradient(node):
  tensor = tf.TensorSpec(None, tf.as_dtype(node.attr["T"].type))

  @tf.function(autograph=False, input_signature=[tensor, tensor])
  def gradient(gradients, features):
    return tf.where(features > 0, gradients, tf.zeros_like(gradients))

  return gradient.get_concrete_function()


def _filter_gradient(node):
  """The gradient of a convolution's filters is a convolution too, of the images with the gradients for filters.

  Channels take the place of images there, and the stride that of a dilation.
  """
  images = tf.TensorSpec([None] * 4, tf.as_dtype(node.attr["T"].type))
  (_, *strides, _), same = node.attr["strides"].list.i, node.attr["padding"].s == b"SAME"

  @tf.function(autograph=False, input_signature=[images, tf.TensorSpec([4], tf.int32), images])
  def gradient(x, filter_sizes, gradients):
    needed = (tf.shape(gradients)[1:3] - 1) * strides + filter_sizes[:2]
    missing = tf.maximum(needed - tf.shape(x)[1:3], 0) if same else tf.zeros_like(needed)
    sides = tf.stack([missing // 2, missing - missing // 2], 1)
    x = tf.pad(x, tf.concat([[[0, 0]], sides, [[0, 0]]], 0))[:, : needed[0], : needed[1]]
    x, filters = tf.transpose(x, [3, 1, 2, 0]), tf.transpose(gradients, [1, 2, 0, 3])
    found = tf.nn.conv2d(x, filters, 1, "VALID", dilations=list(strides))
    return tf.transpose(found, [1, 2, 0, 3])

  return gradient.get_concrete_function()
