"""Any Keras model, unedited, as a model with explicit weights."""

import contextlib
import re
import warnings

import keras
import tensorflow as tf

from maml_tf.models import exact, explicit, keras_tree, shapes
from maml_tf.models.task_map import TaskMap


def from_keras(model, input_shape=None, fresh=None, stopped_gradients="refuse"):
  """Wraps a Sequential, functional or subclassed Keras model without editing it.

  Args:
    model: the model. Not built yet: it is built here, on zeros of `input_shape`.
    input_shape: shape of one example, needed only where the model does not know it; for several inputs nested as the
      model takes them.
    fresh: whether training draws the initial weights anew from its seed (True) or begins from the model's own values
      (False). None: from its own values where it arrives built and they are not what its initialisers have drawn, so
      that it was trained or loaded.
    stopped_gradients: "refuse": a layer that calls `tf.stop_gradient` between weights and outputs cannot be trained by
      second derivatives; "keep": it can, and what it stops counts as a constant there.

  Returns:
    A `KerasModel`; a model that has explicit weights already is returned as it is.

  Raises:
    ValueError: the input shape is unknown, or nothing in it is trainable.
  """
  if stopped_gradients not in ("refuse", "keep"):
    raise ValueError(f"stopped_gradients: expected refuse or keep, got {stopped_gradients!r}")
  if isinstance(model, explicit.ExplicitModel):
    return model
  return KerasModel(model, input_shape, fresh, stopped_gradients)


class KerasModel(explicit.ExplicitModel):
  """The explicit-weight view of a Keras model, through `stateless_call`.

  Trainable variables are the meta-parameters; frozen ones keep their values. The forward pass is deterministic:
  dropout and other layers that act in training only are inactive, but batch normalisation uses the statistics of
  the batch, as everywhere in this package (a layer frozen by `trainable = False` its moving ones, as in Keras).
  Weights of normalisation layers are meta-learned and not adapted, as in the published code; a dict as `inner_lr`
  adapts them all the same.

  Tasks are batched by `tf.vectorized_map` where every operation of the model allows it, by `tf.map_fn` where not (a
  convolution with filters per task, for one). Which is found out once, when first tracing.
  """

  def __init__(self, model, input_shape=None, fresh=None, stopped_gradients="refuse"):
    arrived_built = model.built
    if not arrived_built:
      if input_shape is None:
        raise ValueError(f"from_keras: {model.name} is not built yet; pass input_shape, the shape of one example")
      model(shapes.map_shapes(shapes.zeros_of_one, input_shape))
    if not model.trainable_variables:
      raise ValueError(f"from_keras: {model.name} has no trainable weights, so there is nothing to meta-learn")
    # The wrapper owns no weights: it must not run the variable creation of its base class.
    keras.Model.__init__(self, name=f"explicit_{model.name}")
    self.model = model
    # A tuple, or tuples nested as the model takes its inputs: in a function, or Keras would wrap dicts and lists.
    shape = _example_shape(model, input_shape)
    self._shape_of_example = lambda: shape
    self.stopped_gradients = stopped_gradients
    self._named = keras_tree.named_variables(model)
    names = {id(owned.variable): name for name, owned in reversed(self._named.items())}
    self._trainable_names = [names[id(v)] for v in model.trainable_variables]
    self._moving = {
      re.sub("moving_(mean|variance)$", r"\1", name): name
      for name, owned in self._named.items()
      if isinstance(owned.layer, keras.layers.BatchNormalization)
      and owned.layer.trainable
      and re.search("/moving_(mean|variance)$", name)
    }
    self._over_tasks = TaskMap(unrolls=bool(keras_tree.lookup_tables(model)))
    self.keeps_values = not fresh
    if fresh is None:
      self.keeps_values = arrived_built and not keras_tree.is_as_drawn(self._named)
    self.built = True

  @property
  def example_shape(self):
    """Shape of one example, without batch or task axes; nested as the inputs where there are several."""
    return self._shape_of_example()

  @property
  def layer_kinds(self):
    """Dict of layer name, as in the name scopes of a graph, -> name of its class."""
    return {layer.name: type(layer).__name__ for _, layer in keras_tree.walk(self.model) if layer is not self.model}

  @property
  def weight_shapes(self):
    return {name: tuple(self._named[name].variable.shape) for name in self._trainable_names}

  @property
  def adapted_names(self):
    return [n for n in self._trainable_names if not isinstance(self._named[n].layer, keras_tree.NORMALISATION)]

  @property
  def fixed_variables(self):
    """What `apply` reads beside its weights, TensorFlow variables and tables: an exporter has to track them."""
    variables = [variable.value for variable in self.model.non_trainable_variables]
    return variables + keras_tree.lookup_tables(self.model)

  def initial_weights(self, seed="own"):
    """Values of every meta-parameter, dict of name -> tensor in layer order.

    Args:
      seed: an integer draws them anew from each layer's own initialisers; None: the model's current values. Not given:
        `starting_weights(0)`.

    Raises:
      ValueError: a layer cannot be made anew from its config (use seed=None, the current values, instead).
    """
    if seed == "own":
      return self.starting_weights(0)
    if seed is None:
      return {n: tf.convert_to_tensor(self._named[n].variable.value) for n in self._trainable_names}
    fresh = {}
    for name in self._trainable_names:
      if name not in fresh:
        fresh |= keras_tree.rebuilt(self._named, self._named[name].layer, seed)
    return {name: fresh[name] for name in self._trainable_names}

  def starting_weights(self, seed):
    """What training begins from: the model's own values where a user brought them (`keeps_values`), else fresh ones."""
    return self.initial_weights(None if self.keeps_values else seed)

  @property
  def has_statistics(self):
    return bool(self._moving)

  def to_keras(self, weights, statistics=None):
    """Puts plain weights into the Keras model, and statistics into its moving ones; returns that model."""
    self._check_weights({name: tf.convert_to_tensor(weights[name]) for name in self._trainable_names}, False)
    for name in self._trainable_names:
      self._named[name].variable.assign(weights[name])
    if self._moving and not statistics:
      warnings.warn(
        f"{self.model.name}: its batch normalisation keeps its moving statistics, and Keras predicts by them; adapt "
        'with bn_mode="support" to have those of the support set put there',
        stacklevel=4,
      )
    for key, name in self._moving.items() if statistics else ():
      self._named[name].variable.assign(statistics[key])
    return self.model

  def call(self, inputs, training=None):
    return self.model(inputs, training=training)

  def get_config(self):
    return {
      "model": keras.saving.serialize_keras_object(self.model),
      "input_shape": self.example_shape,
      "keeps_values": self.keeps_values,
    }

  @classmethod
  def from_config(cls, config, custom_objects=None):
    model = keras.saving.deserialize_keras_object(config["model"], custom_objects)
    return cls(model, config["input_shape"], fresh=not config.get("keeps_values", False))

  def apply_with_penalty(self, weights, x, statistics=None):
    weights = {name: tf.convert_to_tensor(weights[name]) for name in self._trainable_names}
    statistics = {name: tf.convert_to_tensor(value) for name, value in (statistics or {}).items()}
    x = tf.nest.map_structure(self._convert_input, x)
    has_tasks = self._check_rank(x)
    self._check_weights(weights, has_tasks)
    if not has_tasks:
      return _in_order(self._call_one_task(weights, x, statistics))

    # `tf.map_fn` wants every element to have the task axis; what is shared stays outside, in the closure.
    plain = self.weight_shapes
    own_weights = {n: w for n, w in weights.items() if w.shape.rank > len(plain[n])}
    own_statistics = {n: s for n, s in statistics.items() if s.shape.rank == 2}

    def one_task(elements):
      own_weights, own_statistics, x = elements
      return self._call_one_task(weights | own_weights, x, statistics | own_statistics)

    elements = own_weights, own_statistics, x
    return _in_order(self._over_tasks(one_task, elements, uses_statistics=bool(statistics)))

  def _call_one_task(self, weights, x, statistics):
    """{"outputs", "statistics"} and, where the model has regularisers or adds losses, {"penalty"}, their sum."""
    variables = self.model.non_trainable_variables
    moving = {key: id(self._named[name].variable) for key, name in self._moving.items()}
    given = {moving[key]: statistics[key] for key in moving} if statistics else {}
    # `stateless_call` goes past `__call__`, which would have dropped an argument that the model does not take.
    arguments = {"training": False} if keras_tree.takes(self.model.call, "training") else {}
    with exact.exact_normalisation(batch_statistics=not statistics), _differentiable_kernels(self.model):
      outputs, updated, added = self.model.stateless_call(
        [weights[name] for name in self._trainable_names],
        [given.get(id(v), v) for v in variables],
        x,
        return_losses=True,
        **arguments,
      )
    after = {id(v): value for v, value in zip(variables, updated, strict=True)}
    used = statistics or {key: tf.convert_to_tensor(after[variable]) for key, variable in moving.items()}
    dtype = next(iter(weights.values())).dtype
    outputs = tf.nest.map_structure(lambda output: _in_dtype(output, dtype), outputs)
    if len(flat := tf.nest.flatten(outputs)) == 1:
      outputs = flat[0]
    result = {"outputs": outputs, "statistics": used}
    if added:
      result["penalty"] = tf.add_n([tf.cast(tf.reduce_sum(loss), dtype) for loss in added])
    return result

  def _convert_input(self, x):
    """As Keras does: a model with an `Input` converts to the dtype of that, others cast floats to their own."""
    x = tf.convert_to_tensor(x)
    casts = x.dtype.is_floating and getattr(self.model, "inputs", None) is None
    return tf.cast(x, self.model.compute_dtype) if casts else x

  def _check_weights(self, weights, has_tasks):
    plain = self.weight_shapes
    for name, value in weights.items():
      expected = self._named[name].variable.dtype
      if value.dtype.name != expected:
        raise ValueError(
          f"{self.model.name}: weight {name} is {value.dtype.name}, but the Keras model was built in {expected}; "
          f"cast the weights, or build its layers with dtype={value.dtype.name!r}"
        )
      if value.shape.rank - len(plain[name]) not in ((0, 1) if has_tasks else (0,)):
        raise ValueError(
          f"{self.model.name}: weight {name} has shape {tuple(value.shape)}, expected {plain[name]}"
          + (" or that with a leading task axis" if has_tasks else "; for a weight per task, give x a task axis too")
        )


@contextlib.contextmanager
def _differentiable_kernels(model):
  """Within this scope, recurrent layers do without cuDNN, whose kernels have no second derivative."""
  recurrent = [(layer, layer.use_cudnn) for _, layer in keras_tree.walk(model) if getattr(layer, "use_cudnn", False)]
  for layer, _ in recurrent:
    layer.use_cudnn = False
  try:
    yield
  finally:
    for layer, use_cudnn in recurrent:
      layer.use_cudnn = use_cudnn


def _in_order(result):
  return result["outputs"], result["statistics"], result.get("penalty")


def _in_dtype(output, dtype):
  # Under mixed precision a model may end in float16; the losses are computed in the dtype of the weights.
  return tf.cast(output, dtype) if output.dtype.is_floating else output


def _example_shape(model, input_shape):
  if input_shape is not None:
    return shapes.map_shapes(tuple, input_shape)
  try:
    shape = model.input_shape
  except AttributeError:  # a subclassed model knows only what it was built with
    config = model.get_build_config() or {}
    shape = config.get("input_shape", config.get("shapes_dict"))
  if shape is None:
    raise ValueError(f"from_keras: {model.name} does not know its input shape; pass input_shape")
  structure = getattr(model, "_inputs_struct", None)
  if structure is not None:  # a functional model: as it was given its `Input`s, where `input_shape` is a flat list
    shape = tf.nest.map_structure(lambda tensor: tuple(tensor.shape), structure)
  if isinstance(shape, list) and len(shape) == 1:
    shape = shape[0]
  return shapes.map_shapes(lambda sizes: tuple(sizes[1:]), shape)
