"""Finds where TensorFlow would drop a second derivative without a word, in the graph of a gradient.

A meta-gradient differentiates a gradient. Operations that are registered as not differentiable, or that stop a
gradient, count there as constants: the first derivative may be right all the same (that of `ResizeBilinear`, say) and
the second is wrong. They are found by a walk over the traced gradient, between the weights and the result.
"""

import re

import tensorflow as tf
from tensorflow.python.framework import ops as registry

from maml_tf import tracing

# Not differentiable, and rightly so: their derivatives are zero.
CONSTANT = {"ZerosLike", "OnesLike", "Range", "LinSpace"}

CALLS = {"PartitionedCall", "StatefulPartitionedCall"}
LOOPS = {"While", "StatelessWhile"}
BRANCHES = {"If", "StatelessIf", "Case", "StatelessCase"}

# The name scope of `tf.reduce_logsumexp`, which may stop the gradient through the maximum: that cancels.
HARMLESS_SCOPE = "ReduceLogSumExp"


class NotTwiceDifferentiableError(ValueError):
  """A layer or a loss has no second derivative in TensorFlow, or a wrong one."""


def refuse_dropped(gradient, specs, layers, name, allow_stops=False):
  """An error that names the layer, where differentiating `gradient` again would drop something.

  Args:
    gradient: function of nested tensors as `specs` describes; the first of them is a dict of adapted weights. Returns
      the gradient of the inner loss with respect to these, a nest of tensors.
    specs: tuple of nested `tf.TensorSpec`.
    layers: dict of layer name -> name of its class, as they appear in name scopes.
    name: of the model, where the operation is in no layer.
    allow_stops: whether a layer may stop a gradient.

  Raises:
    NotTwiceDifferentiableError: there is such an operation.
  """

  def traced(*arguments):
    try:
      return gradient(*arguments)
    except LookupError as error:  # not even a first derivative
      kind, graph = str(error).rpartition(": ")[2], tf.compat.v1.get_default_graph()
      op = next((op for op in graph.get_operations() if op.type == kind), None)
      where = name if op is None else _where(op, layers, name)
      raise NotTwiceDifferentiableError(
        f"{where}: TensorFlow has no derivative of {kind}; write it with other operations, or adapt nothing before it"
      ) from error

  graph = tracing.function(traced).get_concrete_function(*specs).graph
  given = {id(tensor) for tensor in graph.inputs[: len(specs[0])]}
  found = [(op, why) for op, why in _walk(graph, given)[0] if not (allow_stops and op.type == "StopGradient")]
  if found:
    op, why = found[0]
    raise NotTwiceDifferentiableError(
      f"{_where(op, layers, name)}: {why}, so that a meta-gradient through it would be wrong; write it with other "
      "operations, put nothing adapted before it, or train with first_order=True"
      + (' (where it is meant: from_keras(stopped_gradients="keep"))' if op.type == "StopGradient" else "")
    )


def _walk(graph, given):
  """([(operation, why)], ids of the outputs that depend on the given tensors), for those between the two."""
  depends = set(given)
  found, inner = {}, {}
  for op in graph.get_operations():
    reached = [id(tensor) in depends for tensor in op.inputs]
    if not any(reached):
      continue
    bodies = _bodies(op, graph)
    if bodies:
      inner[op], outputs = _walk_bodies(op, bodies, reached)
    else:
      outputs = [_carries(tensor) for tensor in op.outputs]
    depends |= {id(tensor) for tensor, reaches in zip(op.outputs, outputs, strict=True) if reaches}
    if any(outputs):
      why = None if bodies else _dropped(op)
      found |= {op: why} if why else {}
  used = _ancestors(graph.outputs)
  direct = [(op, why) for op, why in found.items() if op in used]
  nested = [pair for op, pairs in inner.items() if op in used for pair in pairs]
  return direct + nested, {id(tensor) for tensor in graph.outputs if id(tensor) in depends}


def _walk_bodies(op, bodies, reached):
  """As `_walk`, for the functions that an operation calls: (findings, whether each output depends)."""
  outputs = [False] * len(op.outputs)
  passed = reached if op.type in CALLS | LOOPS else reached[1:]  # a branch does not see what chooses it
  while True:
    findings = []
    for body in bodies:
      given = {id(tensor) for tensor, reaches in zip(body.inputs, passed, strict=True) if reaches}
      more, after = _walk(body, given)
      findings += more
      now = [id(tensor) in after for tensor in body.outputs]
      outputs = [old or new for old, new in zip(outputs, now, strict=True)]
    if op.type not in LOOPS:
      return findings, outputs
    again = [old or new for old, new in zip(passed, outputs, strict=True)]
    if again == passed:
      return findings, outputs
    passed = again


def _bodies(op, graph):
  if op.type in CALLS:
    names = [op.get_attr("f")]
  elif op.type in LOOPS:
    names = [op.get_attr("body")]
  elif op.type in BRANCHES:
    names = op.get_attr("branches") if "Case" in op.type else [op.get_attr("then_branch"), op.get_attr("else_branch")]
  else:
    return []
  return [graph._get_function(name.name).graph for name in names]


def _carries(tensor):
  """Whether a derivative can pass: integers have none. (Variants are the lists that loops keep.)"""
  return tensor.dtype.is_floating or tensor.dtype.is_complex or tensor.dtype in (tf.variant, tf.resource)


def _ancestors(tensors):
  seen, stack = set(), [tensor.op for tensor in tensors]
  while stack:
    op = stack.pop()
    if op not in seen:
      seen.add(op)
      stack += [tensor.op for tensor in op.inputs]
  return seen


def _dropped(op):
  """Why the derivative of an operation is missing; None where it is there."""
  if not any(tensor.dtype.is_floating or tensor.dtype.is_complex for tensor in op.outputs) or op.type in CONSTANT:
    return None
  if op.type == "StopGradient":
    return None if _is_harmless_stop(op) else "it stops a gradient (tf.stop_gradient)"
  if op.type.startswith("FusedBatchNormGrad"):
    return f"TensorFlow's derivative of {op.type} stops the gradient through the mean"
  if _has_gradient_of_its_own(op):
    return None
  try:
    function = registry.gradient_registry.lookup(op.type)
  except LookupError:
    return f"TensorFlow has no derivative of {op.type}"
  return f"TensorFlow counts {op.type} as not differentiable" if function is None else None


def _is_harmless_stop(op):
  """A maximum that is subtracted for the sake of range, as in a softmax, cancels in every derivative."""
  source = op.inputs[0].op
  while source.type in ("Reshape", "Squeeze", "Identity", "ExpandDims", "SelectV2", "Select", "BroadcastTo"):
    source = source.inputs[-2 if source.type.startswith("Select") else 0].op
  return HARMLESS_SCOPE in op.name or source.type == "Max"


def _has_gradient_of_its_own(op):
  try:
    op.get_attr("_gradient_op_type")  # `tf.custom_gradient`
  except ValueError:
    return False
  return True


def _where(op, layers, name):
  """The innermost layer among an operation's name scopes, else the model."""
  scopes = op.name.split("/")[:-1]
  for scope in reversed(scopes):
    for candidate in (scope, re.sub(r"_\d+$", "", scope)):
      if candidate in layers:
        return f"layer {candidate} ({layers[candidate]}) of {name}"
  return name
