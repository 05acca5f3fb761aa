"""Where the layer graph of a Keras model can be cut: before it what no inner step changes, behind it all the rest."""

import keras

from maml_tf.models import keras_tree


def cut(model, changed):
  """A Keras model as two, which share its layers: the second, of what the first gives, computes what the model does.

  Args:
    model: a Keras model.
    changed: ids of the variables that change from step to step.

  Returns:
    (body, rest), functional models; the body has no changing variable, and is as much as can be. None where it would
    have no weights, where the graph is not known (a subclassed model), or where the parts would not add up to the
    model: an output does not change, a mask may cross the cut, or a layer is on both sides.
  """
  if not _is_a_graph(model) or any(_makes_masks(layer) for _, layer in keras_tree.walk(model)):
    return None
  sources, changes, owners = _reached(model.outputs, changed)
  on_both_sides = {owners[t] for t in owners if changes[t]} & {owners[t] for t in owners if not changes[t]}
  between = {}
  for tensor, inputs in sources.items():
    between |= {id(source): source for source in inputs if changes[tensor] and not changes[id(source)]}
  whole_changes = all(changes[id(output)] for output in model.outputs)
  if on_both_sides or not whole_changes or set(between) <= {id(t) for t in model.inputs}:
    return None
  whole = model if isinstance(model, _FUNCTIONAL) else model._functional
  ends = list(between.values())
  ends = ends if len(ends) > 1 else ends[0]
  body, rest = keras.Model(whole._inputs_struct, ends), keras.Model(ends, whole._outputs_struct)
  return (body, rest) if body.variables else None


_FUNCTIONAL = keras.src.models.functional.Functional
_COMPUTE = {_FUNCTIONAL.call, keras.Sequential.call}


def _is_a_graph(model):
  """Whether calling the model is to run its graph, and nothing else."""
  return type(model).call in _COMPUTE and bool(getattr(model, "outputs", None))


def _makes_masks(layer):
  known = type(layer).compute_mask.__module__.startswith("keras.")
  return isinstance(layer, keras.layers.Masking) or bool(getattr(layer, "mask_zero", False)) or not known


def _reached(outputs, changed):
  """All tensors that the outputs are computed from, inputs first: by id, sources, whether it changes, operation."""
  sources, changes, owners, stack = {}, {}, {}, list(outputs)
  while stack:
    tensor = stack[-1]
    operation, node_index, _ = tensor._keras_history
    inputs = operation._inbound_nodes[node_index].input_tensors
    waiting = [source for source in inputs if id(source) not in changes]
    if waiting:
      stack += waiting
      continue
    stack.pop()
    own = any(id(variable) in changed for variable in getattr(operation, "variables", ()))
    sources[id(tensor)], owners[id(tensor)] = inputs, id(operation)
    changes[id(tensor)] = own or any(changes[id(source)] for source in inputs)
  return sources, changes, owners
