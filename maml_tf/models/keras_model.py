"""Any Keras model, unedited, as a model with explicit weights."""

import contextlib
import re
import threading

import keras
import tensorflow as tf

from maml_tf.models import explicit, layers

NORMALISATION = (
  keras.layers.BatchNormalization,
  keras.layers.LayerNormalization,
  keras.layers.GroupNormalization,
)


def from_keras(model, input_shape=None):
  """Wraps a Sequential, functional or subclassed Keras model with one input and one output, without editing it.

  Args:
    model: the model. Not built yet: it is built here, on zeros of `input_shape`.
    input_shape: shape of one example, needed only where the model does not know it.

  Returns:
    A `KerasModel`.

  Raises:
    ValueError: the input shape is unknown, or the model has several inputs.
  """
  return KerasModel(model, input_shape)


class KerasModel(explicit.ExplicitModel):
  """The explicit-weight view of a Keras model, through `stateless_call`.

  Trainable variables are the meta-parameters; frozen ones keep their values. The forward pass is deterministic:
  dropout and other layers that act in training only are inactive, but batch normalisation uses the statistics of
  the batch, as everywhere in this package. Weights of normalisation layers are meta-learned and not adapted, as in
  the published code; a dict as `inner_lr` adapts them all the same.

  Tasks are batched by `tf.vectorized_map` where every operation of the model allows it, by `tf.map_fn` where not
  (recurrent cells, convolutions with filters per task). Which is found out once, when first tracing.
  """

  def __init__(self, model, input_shape=None):
    if not model.built:
      if input_shape is None:
        raise ValueError(f"from_keras: {model.name} is not built yet; pass input_shape, the shape of one example")
      model(tf.zeros([1, *input_shape]))
    # The wrapper owns no weights: it must not run the variable creation of its base class.
    keras.Model.__init__(self, name=f"explicit_{model.name}")
    self.model = model
    self.example_shape = _example_shape(model, input_shape)
    self._named = _named_variables(model)
    names = {id(variable): name for name, (variable, _) in self._named.items()}
    self._trainable_names = [names[id(v)] for v in model.trainable_variables]
    self._specs = dict.fromkeys(self._trainable_names)
    self._batch_norms = {
      name.rpartition("/")[0]: layer
      for name, (_, layer) in self._named.items()
      if isinstance(layer, keras.layers.BatchNormalization) and name.endswith("/moving_mean")
    }
    self._vectorises = None
    self.built = True

  @property
  def weight_shapes(self):
    return {name: tuple(self._named[name][0].shape) for name in self._trainable_names}

  @property
  def adapted_names(self):
    return [n for n in self._trainable_names if not isinstance(self._named[n][1], NORMALISATION)]

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
      return {n: tf.convert_to_tensor(self._named[n][0].value) for n in self._trainable_names}
    twins = {}
    for name in self._trainable_names:
      layer = self._named[name][1]
      if id(layer) not in twins:
        twins[id(layer)] = _rebuilt(layer, seed, name.rpartition("/")[0])
    return {
      name: tf.convert_to_tensor(twins[id(self._named[name][1])][name.rpartition("/")[2]])
      for name in self._trainable_names
    }

  def call(self, inputs, training=None):
    return self.model(inputs, training=training)

  def get_config(self):
    return {"model": keras.saving.serialize_keras_object(self.model)}

  def _apply(self, weights, x, statistics):
    weights = {name: tf.convert_to_tensor(weights[name]) for name in self._trainable_names}
    self._check_dtypes(weights)
    x = tf.convert_to_tensor(x)
    if x.dtype.is_floating:
      x = tf.cast(x, self.model.compute_dtype)
    if not self._check_rank(x):
      return self._call_one_task(weights, x, statistics)

    shapes = self.weight_shapes
    statistics = {n: tf.convert_to_tensor(v) for n, v in (statistics or {}).items()}
    # `tf.map_fn` wants every element to have the task axis; what is shared stays outside, in the closure.
    varying = {n: w for n, w in weights.items() if w.shape.rank == len(shapes[n]) + 1}
    varying_statistics = {n: s for n, s in statistics.items() if s.shape.rank == 2}

    def one_task(elements):
      own_weights, own_statistics, x = elements
      return self._call_one_task(weights | own_weights, x, statistics | own_statistics)

    return self._map_tasks(one_task, (varying, varying_statistics, x))

  def _call_one_task(self, weights, x, statistics):
    fixed, keep = {}, {}
    for name, layer in self._batch_norms.items():
      moving = (layer.moving_mean, layer.moving_variance)
      for variable, kind in zip(moving, ("mean", "variance"), strict=True):
        key = f"{name}/{kind}"
        # From zero, Keras' moving average of one batch is (1 - momentum) times that batch's statistic.
        fixed[id(variable)] = statistics[key] if statistics else tf.zeros(variable.shape, variable.dtype)
        keep[id(variable)] = key, 1.0 - layer.momentum
    variables = self.model.non_trainable_variables
    values = [fixed.get(id(v), v) for v in variables]
    with exact_normalisation(batch_statistics=not statistics):
      outputs, updated = self.model.stateless_call(
        [weights[name] for name in self._trainable_names], values, x, training=False
      )
    used = dict(statistics or {})
    if not statistics:
      for variable, value in zip(variables, updated, strict=True):
        if id(variable) in keep:
          key, share = keep[id(variable)]
          used[key] = tf.convert_to_tensor(value) / share
    return outputs, used

  def _map_tasks(self, function, elements):
    if self._vectorises is None:
      self._vectorises = _can_vectorise(function, elements)
    if self._vectorises:
      return tf.vectorized_map(function, elements, fallback_to_while_loop=False)
    one = tf.nest.map_structure(lambda e: tf.TensorSpec(e.shape[1:], e.dtype), elements)
    signature = tf.function(function).get_concrete_function(one).structured_outputs
    signature = tf.nest.map_structure(lambda o: tf.TensorSpec(o.shape, o.dtype), signature)
    return tf.map_fn(function, elements, fn_output_signature=signature)

  def _check_dtypes(self, weights):
    for name, value in weights.items():
      expected = self._named[name][0].dtype
      if value.dtype.name != expected:
        raise ValueError(
          f"{self.model.name}: weight {name} is {value.dtype.name}, but the Keras model was built in {expected}; "
          f"cast the weights, or build its layers with dtype={value.dtype.name!r}"
        )


_patch_lock = threading.RLock()


@contextlib.contextmanager
def exact_normalisation(batch_statistics):
  """Within this scope, Keras' normalisation layers have exact derivatives of every order.

  `keras.ops.moments` is `tf.nn.moments` on TensorFlow, which stops the gradient through the mean; a meta-gradient
  through it is wrong by a large factor. There is no public switch, so it is replaced while a model is traced.

  Args:
    batch_statistics: whether batch normalisation uses the batch at hand although the model runs with
      training=False (a layer frozen with `trainable = False` uses its moving statistics, as in Keras).
  """
  backend_nn, batch_norm = keras.src.backend.nn, keras.layers.BatchNormalization
  with _patch_lock:
    original_moments, original_call = backend_nn.moments, batch_norm.call

    def moments(x, axes, keepdims=False, synchronized=False):
      del synchronized  # a task lives on one device
      wide = tf.cast(x, tf.float32) if x.dtype in (tf.float16, tf.bfloat16) else x
      mean, variance = layers.moments(wide, axes)
      if not keepdims:
        mean, variance = tf.squeeze(mean, axes), tf.squeeze(variance, axes)
      return tf.cast(mean, x.dtype), tf.cast(variance, x.dtype)

    def call(self, inputs, training=None, mask=None):
      return original_call(self, inputs, training=training or batch_statistics, mask=mask)

    backend_nn.moments, batch_norm.call = moments, call
    try:
      yield
    finally:
      backend_nn.moments, batch_norm.call = original_moments, original_call


def _can_vectorise(function, elements):
  """Whether `tf.vectorized_map` converts every operation of `function`; traced in a graph that is thrown away."""
  specs = tf.nest.map_structure(lambda e: tf.TensorSpec(e.shape, e.dtype), elements)
  probe = tf.function(lambda e: tf.vectorized_map(function, e, fallback_to_while_loop=False))
  level = tf.get_logger().level
  tf.get_logger().setLevel("ERROR")
  try:
    probe.get_concrete_function(specs)
  except Exception:  # the converters raise whatever they like: ValueError, NotImplementedError, AttributeError ...
    return False
  finally:
    tf.get_logger().setLevel(level)
  return True


def _example_shape(model, input_shape):
  if input_shape is not None:
    return tuple(input_shape)
  try:
    shape = model.input_shape
  except AttributeError:
    shape = (model.get_build_config() or {}).get("input_shape")
  if shape is None:
    raise ValueError(f"from_keras: {model.name} does not know its input shape; pass input_shape")
  if not all(size is None or isinstance(size, int) for size in shape):
    raise ValueError(f"from_keras: {model.name} has several inputs {shape}; one is supported")
  return tuple(shape[1:])


def _named_variables(model):
  """Dict of stable name -> (variable, layer that owns it), over the whole tree of layers.

  Keras numbers unnamed layers by a counter of the process. Here they are numbered among their siblings instead, so
  that the same code gives the same names in every process.
  """
  named, seen = {}, set()

  def visit(layer, prefix):
    seen.add(id(layer))
    for variable in layer._trainable_variables + layer._non_trainable_variables:
      named[f"{prefix}{variable.name}"] = (variable, layer)
    counts = {}
    for child in layer._layers:
      if id(child) in seen:
        continue
      kind = re.sub(r"(?<!^)(?=[A-Z][a-z])|(?<=[a-z0-9])(?=[A-Z])", "_", type(child).__name__).lower()
      automatic = re.fullmatch(rf"{keras.src.utils.naming.to_snake_case(type(child).__name__)}(_\d+)?", child.name)
      index = counts[kind] = counts.get(kind, -1) + 1
      visit(child, f"{prefix}{f'{kind}_{index}' if automatic else child.name}/")

  visit(model, "")
  return named


def _rebuilt(layer, seed, name):
  """Dict of variable name -> fresh value, from a copy of the layer whose initialisers have seeds of their own."""
  try:
    twin = type(layer).from_config(layer.get_config())
    for attribute, value in list(vars(twin).items()):
      if isinstance(value, keras.initializers.Initializer):
        seeded = explicit.initializer_with_seed(value, seed, f"{name}/{attribute}")
        setattr(twin, attribute, seeded)
    if not twin.built:
      twin.build_from_config(layer.get_build_config())
    fresh = {v.name: v for v in twin._trainable_variables + twin._non_trainable_variables}
    missing = [v.name for v in layer._trainable_variables if v.name not in fresh]
    if missing:
      raise ValueError(f"the copy has no {missing[0]}")
  except Exception as error:
    raise ValueError(
      f"initial_weights: layer {name or layer.name} cannot be made anew from its config ({error}); "
      "start from the model's current values with seed=None"
    ) from error
  return {variable: value.value for variable, value in fresh.items()}
