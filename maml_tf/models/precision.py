"""A Keras model that was built in one precision, computing in float64 for a while: for finite differences."""

import contextlib

import keras

from maml_tf.models import keras_tree


@contextlib.contextmanager
def in_float64(model):
  """Within this scope an `ExplicitModel` takes float64 weights and computes with them.

  House models do so anyway. A Keras model has its precision in its layers, its variables and its `Input`s; these are
  told otherwise, and told back. No value is touched.
  """
  keras_model = getattr(model, "model", None)
  if keras_model is None:
    yield
    return
  layers = [layer for _, layer in keras_tree.walk(keras_model)]
  variables = {id(v): v for v in keras_model.variables}
  operations = [op for layer in layers for op in (layer, *getattr(layer, "operations", ()))]
  tensors = [
    t for op in operations for node in op._inbound_nodes for t in node.outputs
  ]  # `Input`s, and where it is cut
  inputs = {id(t): t for t in tensors}
  floats = [holder for holder in (*variables.values(), *inputs.values()) if keras.backend.is_float_dtype(holder.dtype)]
  before = [(layer, "_dtype_policy", layer._dtype_policy) for layer in layers]
  before += [(holder, "_dtype", holder._dtype) for holder in floats]
  floatx = keras.config.floatx()
  model.forget_parts()
  try:
    keras.config.set_floatx("float64")
    for layer in layers:
      layer._dtype_policy = keras.dtype_policies.DTypePolicy("float64")
    for holder in floats:
      holder._dtype = "float64"
    yield
  finally:
    model.forget_parts()
    keras.config.set_floatx(floatx)
    for owner, name, value in before:
      setattr(owner, name, value)
