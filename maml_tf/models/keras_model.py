"""Any Keras model, unedited, as a model with explicit weights."""

import contextlib
import dataclasses
import inspect
import logging
import re
import threading
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from maml_tf import tracing
from maml_tf.models import explicit, layers

NORMALISATION = tuple(
  getattr(keras.layers, name)
  for name in ("BatchNormalization", "LayerNormalization", "GroupNormalization", "RMSNormalization")
  if hasattr(keras.layers, name)  # Keras gained the last one in version 3.9
)

BASE_CONFIG = ("name", "trainable", "dtype")


def from_keras(model, input_shape=None):
  """Wraps a Sequential, functional or subclassed Keras model with one input and one output, without editing it.

  Args:
    model: the model. Not built yet: it is built here, on zeros of `input_shape`.
    input_shape: shape of one example, needed only where the model does not know it.

  Returns:
    A `KerasModel`; a model that has explicit weights already is returned as it is.

  Raises:
    ValueError: the input shape is unknown, the model has several inputs, or nothing in it is trainable.
  """
  if isinstance(model, explicit.ExplicitModel):
    return model
  return KerasModel(model, input_shape)


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

  def __init__(self, model, input_shape=None):
    if not model.built:
      if input_shape is None:
        raise ValueError(f"from_keras: {model.name} is not built yet; pass input_shape, the shape of one example")
      model(tf.zeros([1, *(1 if size is None else size for size in input_shape)]))
    if not model.trainable_variables:
      raise ValueError(f"from_keras: {model.name} has no trainable weights, so there is nothing to meta-learn")
    # The wrapper owns no weights: it must not run the variable creation of its base class.
    keras.Model.__init__(self, name=f"explicit_{model.name}")
    self.model = model
    self.example_shape = _example_shape(model, input_shape)
    self._named = _named_variables(model)
    names = {id(owned.variable): name for name, owned in reversed(self._named.items())}
    self._trainable_names = [names[id(v)] for v in model.trainable_variables]
    self._moving = {
      re.sub("moving_(mean|variance)$", r"\1", name): name
      for name, owned in self._named.items()
      if isinstance(owned.layer, keras.layers.BatchNormalization)
      and owned.layer.trainable
      and re.search("/moving_(mean|variance)$", name)
    }
    self._over_tasks = _TaskMap()
    self.built = True

  @property
  def weight_shapes(self):
    return {name: tuple(self._named[name].variable.shape) for name in self._trainable_names}

  @property
  def adapted_names(self):
    return [n for n in self._trainable_names if not isinstance(self._named[n].layer, NORMALISATION)]

  @property
  def fixed_variables(self):
    """The TensorFlow variables that `apply` reads beside its weights: an exporter has to track them."""
    return [variable.value for variable in self.model.non_trainable_variables]

  def initial_weights(self, seed=0):
    """As the base class; a fresh start draws from each layer's own initialisers.

    Raises:
      ValueError: a layer cannot be made anew from its config (use seed=None, the current values, instead).
    """
    if seed is None:
      return {n: tf.convert_to_tensor(self._named[n].variable.value) for n in self._trainable_names}
    fresh = {}
    for name in self._trainable_names:
      if name not in fresh:
        fresh |= _rebuilt(self._named, self._named[name].layer, seed)
    return {name: fresh[name] for name in self._trainable_names}

  def call(self, inputs, training=None):
    return self.model(inputs, training=training)

  def get_config(self):
    return {"model": keras.saving.serialize_keras_object(self.model), "input_shape": self.example_shape}

  @classmethod
  def from_config(cls, config, custom_objects=None):
    return cls(keras.saving.deserialize_keras_object(config["model"], custom_objects), config["input_shape"])

  def _apply(self, weights, x, statistics):
    weights = {name: tf.convert_to_tensor(weights[name]) for name in self._trainable_names}
    statistics = {name: tf.convert_to_tensor(value) for name, value in (statistics or {}).items()}
    x = self._convert_inputs(x)
    has_tasks = self._check_rank(x)
    self._check_weights(weights, has_tasks)
    if not has_tasks:
      return self._call_one_task(weights, x, statistics)

    # `tf.map_fn` wants every element to have the task axis; what is shared stays outside, in the closure.
    shapes = self.weight_shapes
    own_weights = {n: w for n, w in weights.items() if w.shape.rank > len(shapes[n])}
    own_statistics = {n: s for n, s in statistics.items() if s.shape.rank == 2}

    def one_task(elements):
      own_weights, own_statistics, x = elements
      return self._call_one_task(weights | own_weights, x, statistics | own_statistics)

    return self._over_tasks(one_task, (own_weights, own_statistics, x), uses_statistics=bool(statistics))

  def _call_one_task(self, weights, x, statistics):
    variables = self.model.non_trainable_variables
    moving = {key: id(self._named[name].variable) for key, name in self._moving.items()}
    given = {moving[key]: statistics[key] for key in moving} if statistics else {}
    # `stateless_call` goes past `__call__`, which would have dropped an argument that the model does not take.
    arguments = {"training": False} if _takes(self.model.call, "training") else {}
    with exact_normalisation(batch_statistics=not statistics), _differentiable_kernels(self.model):
      outputs, updated = self.model.stateless_call(
        [weights[name] for name in self._trainable_names], [given.get(id(v), v) for v in variables], x, **arguments
      )
    after = {id(v): value for v, value in zip(variables, updated, strict=True)}
    used = statistics or {key: tf.convert_to_tensor(after[variable]) for key, variable in moving.items()}
    return self._check_outputs(outputs, next(iter(weights.values())).dtype), used

  def _convert_inputs(self, x):
    """As Keras does: a model with an `Input` converts to the dtype of that, others cast floats to their own."""
    x = tf.convert_to_tensor(x)
    casts = x.dtype.is_floating and getattr(self.model, "inputs", None) is None
    return tf.cast(x, self.model.compute_dtype) if casts else x

  def _check_outputs(self, outputs, dtype):
    flat = tf.nest.flatten(outputs)
    if len(flat) != 1:
      raise ValueError(f"from_keras: {self.model.name} returns {len(flat)} outputs; one is supported")
    # Under mixed precision a model may end in float16; the losses are computed in the dtype of the weights.
    return tf.cast(flat[0], dtype) if flat[0].dtype.is_floating else flat[0]

  def _check_weights(self, weights, has_tasks):
    shapes = self.weight_shapes
    for name, value in weights.items():
      expected = self._named[name].variable.dtype
      if value.dtype.name != expected:
        raise ValueError(
          f"{self.model.name}: weight {name} is {value.dtype.name}, but the Keras model was built in {expected}; "
          f"cast the weights, or build its layers with dtype={value.dtype.name!r}"
        )
      if value.shape.rank - len(shapes[name]) not in ((0, 1) if has_tasks else (0,)):
        raise ValueError(
          f"{self.model.name}: weight {name} has shape {tuple(value.shape)}, expected {shapes[name]}"
          + (" or that with a leading task axis" if has_tasks else "; for a weight per task, give x a task axis too")
        )


class _TaskMap:
  """Applies a function of one task to all of them: vectorised where TensorFlow can, in a loop where not.

  Eagerly it is always a loop: to vectorise is to trace, which would happen anew at every call and take longer.
  """

  def __init__(self):
    self._loop_signatures = {}

  def __call__(self, function, elements, **settings):
    """`function` over the first axis of the nested `elements`; `settings` is what else its operations depend on."""
    key = self._key(elements, settings)
    if key not in self._loop_signatures:
      vectorises = not tf.executing_eagerly() and _can_vectorise(function, elements)
      self._loop_signatures[key] = None if vectorises else _output_signature(function, elements)
    if self._loop_signatures[key] is None:
      return tf.vectorized_map(function, elements, fallback_to_while_loop=False)
    return tf.map_fn(tracing.as_it_stands(function), elements, fn_output_signature=self._loop_signatures[key])

  @staticmethod
  def _key(elements, settings):
    # Which weights have a task axis decides too: a convolution vectorises with shared filters only.
    names = tuple(tuple(sorted(part)) for part in elements if isinstance(part, dict))
    specs = tuple((e.dtype, *e.shape[1:]) for e in tf.nest.flatten(elements))
    return tf.executing_eagerly(), names, specs, tuple(settings.items())


def _can_vectorise(function, elements):
  """Whether `tf.vectorized_map` converts every operation of `function`; traced in a graph that is thrown away."""
  specs = tf.nest.map_structure(lambda e: tf.TensorSpec(e.shape, e.dtype), elements)
  probe = tracing.function(lambda e: tf.vectorized_map(function, e, fallback_to_while_loop=False))
  level = tf.get_logger().level
  tf.get_logger().setLevel(logging.CRITICAL + 1)  # a failure is an answer here, not an error
  try:
    probe.get_concrete_function(specs)
  except Exception:  # the converters raise whatever they like: ValueError, NotImplementedError, AttributeError ...
    return False
  finally:
    tf.get_logger().setLevel(level)
  return True


def _output_signature(function, elements):
  """What `function` returns for one element, as nested `tf.TensorSpec`."""
  one = tf.nest.map_structure(lambda e: tf.TensorSpec(e.shape[1:], e.dtype), elements)
  outputs = tracing.function(function).get_concrete_function(one).structured_outputs
  return tf.nest.map_structure(lambda o: tf.TensorSpec(o.shape, o.dtype), outputs)


_patch_lock = threading.RLock()


@contextlib.contextmanager
def exact_normalisation(batch_statistics):
  """Within this scope, Keras' normalisation layers have exact derivatives of every order.

  `keras.ops.moments` is `tf.nn.moments` on TensorFlow, which stops the gradient through the mean; a meta-gradient
  through it is wrong by a large factor. There is no public switch, so it is replaced while a model is traced, for
  the thread that traces it.

  Args:
    batch_statistics: whether batch normalisation uses the batch at hand, and leaves its plain mean and variance in
      the moving ones, although the model runs with training=False. (A layer frozen with `trainable = False` uses its
      moving statistics, as in Keras.)
  """
  backend_nn, batch_norm, thread = keras.src.backend.nn, keras.layers.BatchNormalization, threading.get_ident()
  with _patch_lock:
    original_moments, original_call = backend_nn.moments, batch_norm.call

    def moments(x, axes, keepdims=False, synchronized=False):
      if threading.get_ident() != thread:
        return original_moments(x, axes, keepdims, synchronized=synchronized)
      x = tf.convert_to_tensor(x)
      wide = tf.cast(x, tf.float32) if x.dtype in (tf.float16, tf.bfloat16) else x
      mean, variance = layers.moments(wide, axes)
      if not keepdims:
        mean, variance = tf.squeeze(mean, axes), tf.squeeze(variance, axes)
      return tf.cast(mean, x.dtype), tf.cast(variance, x.dtype)

    def call(self, inputs, training=None, mask=None):
      if threading.get_ident() != thread:
        return original_call(self, inputs, training=training, mask=mask)
      momentum, self.momentum = self.momentum, 0.0
      try:
        return original_call(self, inputs, training=batch_statistics, mask=mask)
      finally:
        self.momentum = momentum

    backend_nn.moments, batch_norm.call = moments, call
    try:
      yield
    finally:
      backend_nn.moments, batch_norm.call = original_moments, original_call


@contextlib.contextmanager
def _differentiable_kernels(model):
  """Within this scope, recurrent layers do without cuDNN, whose kernels have no second derivative."""
  recurrent = [(layer, layer.use_cudnn) for _, layer in _walk(model) if getattr(layer, "use_cudnn", False)]
  for layer, _ in recurrent:
    layer.use_cudnn = False
  try:
    yield
  finally:
    for layer, use_cudnn in recurrent:
      layer.use_cudnn = use_cudnn


def _example_shape(model, input_shape):
  if input_shape is not None:
    return tuple(input_shape)
  try:
    shape = model.input_shape
  except AttributeError:  # a subclassed model knows only what it was built with
    config = model.get_build_config() or {}
    shape = config.get("input_shape", config.get("shapes_dict"))
  if shape is None:
    raise ValueError(f"from_keras: {model.name} does not know its input shape; pass input_shape")
  if isinstance(shape, list) and len(shape) == 1:
    shape = shape[0]
  if isinstance(shape, dict) or not all(size is None or isinstance(size, int) for size in shape):
    raise ValueError(f"from_keras: {model.name} has several inputs, {shape}; one is supported: concatenate them")
  return tuple(shape[1:])


@dataclasses.dataclass(frozen=True, eq=False)
class _Owned:
  """A variable and the layer it belongs to. (Keras would track a bare one, were it an attribute of the wrapper.)"""

  variable: Any
  layer: Any


def _named_variables(model):
  """Dict of stable name -> `_Owned`, over the whole tree of layers."""
  named = {}
  for path, layer in _walk(model):
    variables = _own_variables(layer)
    for name, variable in zip(_stable_names(variables), variables, strict=True):
      named[path + name] = _Owned(variable, layer)
  return named


def _own_variables(layer):
  return layer._trainable_variables + layer._non_trainable_variables


def _walk(layer, path="", seen=None):
  """(path, layer) for every layer of the tree, each once."""
  seen = set() if seen is None else seen
  seen.add(id(layer))
  yield path, layer
  children = list(layer._layers)
  for name, child in zip(_stable_names(children), children, strict=True):
    if id(child) not in seen:
      yield from _walk(child, f"{path}{name}/", seen)


def _stable_names(siblings):
  """Names of layers or variables that are the same in every process, each different.

  Keras numbers the unnamed ones by a counter of the process. Here they are numbered among their siblings instead.
  """
  names, counts = [], {}
  for sibling in siblings:
    name = sibling.name
    kind = keras.src.utils.naming.to_snake_case(type(sibling).__name__)
    # `Bidirectional` puts a direction before the name of the layer that it copies.
    automatic = re.fullmatch(rf"((?:forward_|backward_)?{kind})(_\d+)?", name)
    if automatic:
      name = f"{automatic[1]}_{counts.get(automatic[1], 0)}"
      counts[automatic[1]] = counts.get(automatic[1], 0) + 1
    unique, number = name, 1
    while unique in names:
      unique, number = f"{name}_{number}", number + 1
    names.append(unique)
  return names


def _rebuilt(named, layer, seed):
  """Dict of name -> fresh value, for the variables of one layer."""
  names = {id(owned.variable): name for name, owned in named.items() if owned.layer is layer}
  originals = [v for v in _own_variables(layer) if id(v) in names]
  full_names = [names[id(v)] for v in originals]
  try:
    values, again = (_fresh_values(layer, originals, full_names, seed) for _ in range(2))
    for name, value, other in zip(full_names, values, again, strict=True):
      if not np.array_equal(value, other):
        raise ValueError(f"{name} is drawn by something else than a Keras initialiser with a seed")
  except Exception as error:
    raise ValueError(
      f"initial_weights: layer {full_names[0].rpartition('/')[0] or layer.name} ({type(layer).__name__}) cannot be "
      f"made anew from its config ({error}); start from the model's current values with seed=None"
    ) from error
  return dict(zip(full_names, values, strict=True))


def _fresh_values(layer, originals, names, seed):
  """The values that a copy of the layer starts with, every initialiser's seed derived from (seed, weight's name)."""
  if not tf.executing_eagerly():
    raise ValueError("a function is being traced, which must not create variables: call this outside")
  kind, path = type(layer), names[0].rpartition("/")[0]

  def add_weight(self, shape=None, initializer=None, *args, name=None, **kwargs):
    initializer = keras.initializers.get("glorot_uniform" if initializer is None else initializer)
    if isinstance(initializer, keras.initializers.Initializer):
      count = len(_own_variables(self))
      initializer = explicit.initializer_with_seed(initializer, seed, f"{path}/{name or count}")
    return kind.add_weight(self, shape, initializer, *args, name=name, **kwargs)

  copy = type(kind.__name__, (kind,), {"add_weight": add_weight, "__module__": kind.__module__})
  # Keras adds these even where a subclass's constructor does not take them.
  config = {k: v for k, v in layer.get_config().items() if k not in BASE_CONFIG or _takes(kind.__init__, k)}
  twin = copy.from_config(config)
  for attribute, value in list(vars(twin).items()):
    # Some layers wrap an initialiser in a function of their own (the forget bias of an LSTM).
    if isinstance(value, keras.initializers.Initializer):
      setattr(twin, attribute, explicit.initializer_with_seed(value, seed, f"{path}/{attribute}"))
  if not twin.built:
    twin.build_from_config(layer.get_build_config())
  found, expected = ([tuple(v.shape) for v in variables] for variables in (_own_variables(twin), originals))
  if found != expected:
    raise ValueError(f"the copy has weights of shapes {found}, expected {expected}")
  return [tf.cast(new.value, old.dtype) for new, old in zip(_own_variables(twin), originals, strict=True)]


def _takes(function, argument):
  parameters = inspect.signature(function).parameters.values()
  return any(p.name == argument or p.kind is p.VAR_KEYWORD for p in parameters)
