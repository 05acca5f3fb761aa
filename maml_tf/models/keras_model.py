"""Any Keras model, unedited, as a model with explicit weights."""

import functools
import re
import warnings
from typing import Any

import keras
import tensorflow as tf

from maml_tf.models import explicit, keras_cut, keras_tree, shapes
from maml_tf.models.keras_forward import Forward


def from_keras(
  model: keras.Model, input_shape: Any = None, fresh: bool | None = None, stopped_gradients: str = "refuse"
) -> explicit.ExplicitModel:
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
  convolution with filters per task, for one), which is found out once, when first tracing; and in a large model.
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
    shape = example_shape(model, input_shape)
    self._shape_of_example = lambda: shape
    self.stopped_gradients = stopped_gradients
    self._named = keras_tree.named_variables(model)
    names = {id(owned.variable): name for name, owned in reversed(self._named.items())}
    self._moving = {
      re.sub("moving_(mean|variance)$", r"\1", name): name
      for name, owned in self._named.items()
      if isinstance(owned.layer, keras.layers.BatchNormalization)
      and owned.layer.trainable
      and re.search("/moving_(mean|variance)$", name)
    }
    moving = {key: self._named[name].variable for key, name in self._moving.items()}
    self._forward_of = functools.partial(Forward, names=names, moving=moving)
    self._forward = self._forward_of(model)
    self._trainable_names = self._forward.names
    self._parts = functools.cache(self._find_parts)  # a function again: Keras would track a dict of models
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
      return self._forward.one_task(weights, x, statistics)
    ranks = {name: len(shape) for name, shape in self.weight_shapes.items()}
    return self._forward.all_tasks(weights, ranks, x, statistics)

  @property
  def is_large(self):
    return self._forward.is_large

  loops_over_steps = is_large

  def parts(self, changed):
    return self._parts(frozenset(changed) & set(self._trainable_names))

  def forget_parts(self):
    """For a change of the layers' dtypes, which the parts have taken over."""
    self._parts.cache_clear()

  def _find_parts(self, changed):
    found = keras_cut.cut(self.model, {id(self._named[name].variable) for name in changed}) if changed else None
    if not found:
      return None
    body, rest = (
      Part(self, self._forward_of(network, twice=twice), example_shape(network, None))
      for network, twice in zip(found, (False, True), strict=True)  # no inner step differentiates the body
    )
    # A loop over steps has no gradient of what comes from outside: features that are meta-learned.
    rest.loops_over_steps = rest.is_large and not body.learned
    return body, rest

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


class Part:
  """A part of a `KerasModel`, as `ExplicitModel.parts` gives it: the forward pass is its own, all else the model's.

  Args:
    whole: `KerasModel`.
    forward: `Forward` of the part.
    example_shape: of its inputs.

  Attributes:
    learned: names of the meta-learned weights in it.
  """

  def __init__(self, whole, forward, example_shape):
    self._whole, self._forward, self.example_shape = whole, forward, example_shape
    self.has_statistics, self.is_large, self.learned = forward.has_statistics, forward.is_large, forward.names

  def __getattr__(self, name):
    return getattr(self._whole, name)

  def parts(self, changed):
    return None

  def apply_with_penalty(self, weights, x, statistics=None):
    """As the model's, at inputs of this part."""
    plain = self._whole.weight_shapes
    weights = {name: tf.convert_to_tensor(weights[name]) for name in self.learned}
    if not shapes.task_axis(self._whole.name, x, self.example_shape):
      return self._forward.one_task(weights, x, statistics or {})
    return self._forward.all_tasks(weights, {n: len(plain[n]) for n in weights}, x, statistics or {})


def example_shape(model, input_shape):
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
