"""`models.from_keras`, against plain Keras copies, NumPy and finite differences."""

import contextlib
import threading

import keras
import numpy as np
import pytest
import tensorflow as tf

from maml_tf import MAML, export, models, tasks
from maml_tf.algorithms import checks
from maml_tf.models import exact, task_map
from maml_tf.training import learner as learners

T, N = 3, 4


def functional():
  inputs = keras.Input((5, 5, 2))
  x = keras.layers.Conv2D(3, 3, activation="tanh")(inputs)
  x = keras.layers.BatchNormalization()(x)
  return keras.Model(inputs, keras.layers.Dense(2)(keras.layers.Flatten()(x)))


class Subclassed(keras.Model):
  """A list of layers, and a weight of its own."""

  def __init__(self):
    super().__init__()
    self.hidden = [keras.layers.Dense(4, activation="tanh") for _ in range(2)]
    self.norm = keras.layers.BatchNormalization()
    self.head = keras.layers.Dense(2)
    self.scale = self.add_weight(shape=(4,), initializer="glorot_normal", name="scale")

  def call(self, x, training=None):
    for layer in self.hidden:
      x = layer(x)
    return self.head(self.norm(x, training=training) * self.scale)


def sequential():
  return keras.Sequential(
    [
      keras.layers.Dense(4, activation="tanh"),
      keras.layers.LayerNormalization(),
      keras.layers.Dropout(0.5),
      keras.layers.Dense(2),
    ]
  )


def recurrent():
  return keras.Sequential([keras.Input((3, 2)), keras.layers.LSTM(3), keras.layers.Dense(2)])


def attention():
  inputs = keras.Input((3, 4))
  x = keras.layers.MultiHeadAttention(num_heads=2, key_dim=2)(inputs, inputs)
  x = keras.layers.LayerNormalization()(x + inputs)
  return keras.Model(inputs, keras.layers.Dense(2)(keras.layers.GlobalAveragePooling1D()(x)))


def dense_batch_norm():
  layers = [keras.layers.Dense(4, activation="tanh"), keras.layers.BatchNormalization(), keras.layers.Dense(2)]
  return keras.Sequential([keras.Input((3,)), *layers])


SHAPES = {functional: (5, 5, 2), Subclassed: (3,), sequential: (3,), recurrent: (3, 2), attention: (3, 4)}
ARCHITECTURES = pytest.mark.parametrize("build", SHAPES, ids=lambda build: build.__name__)


@pytest.fixture
def float64():
  keras.config.set_floatx("float64")
  keras.config.set_dtype_policy("float64")
  yield
  keras.config.set_floatx("float32")
  keras.config.set_dtype_policy("float32")


@pytest.fixture
def mixed_precision():
  keras.config.set_dtype_policy("mixed_float16")
  yield
  keras.config.set_dtype_policy("float32")


def wrapped(build):
  return models.from_keras(build(), input_shape=SHAPES.get(build))


def normal(*shape, seed=0):
  return np.random.default_rng(seed).normal(size=shape).astype(keras.config.floatx())


def task_batch(shape):
  x = normal(2, T, N, *shape, seed=1)
  y = normal(2, T, N, 2, seed=2)
  return tasks.TaskBatch(x[0], y[0], x[1], y[1])


def weights_per_task(model):
  """Weights that differ between tasks, normalisation's own included."""
  weights = model.initial_weights(0)
  return {name: w[tf.newaxis] + 0.3 * normal(T, *w.shape, seed=i) for i, (name, w) in enumerate(weights.items())}


def relative_difference(actual, expected):
  difference = sum(float(tf.reduce_sum((actual[n] - expected[n]) ** 2)) for n in expected)
  return (difference / sum(float(tf.reduce_sum(v**2)) for v in expected.values())) ** 0.5


@ARCHITECTURES
@pytest.mark.parametrize("graph", [False, True], ids=["eager", "graph"])
def test_a_task_axis_equals_one_plain_keras_call_per_task(build, graph):
  model = wrapped(build)
  weights, x = weights_per_task(model), normal(T, N, *SHAPES[build], seed=7)
  outputs = (tf.function(model.apply) if graph else model.apply)(weights, x)

  copy = build()
  copy(x[0])
  uses_batch_norm = build in (functional, Subclassed)  # and no dropout, which training=True would switch on
  for task in range(T):
    for variable, name in zip(copy.trainable_variables, model.weight_shapes, strict=True):
      variable.assign(weights[name][task])
    np.testing.assert_allclose(outputs[task], copy(x[task], training=uses_batch_norm), atol=2e-6)


def test_weights_without_a_task_axis_are_shared():
  model = wrapped(functional)
  weights, x = model.initial_weights(0), normal(T, N, 5, 5, 2)
  shared = tf.function(model.apply)(weights, x)
  repeated = tf.function(model.apply)({n: tf.stack([w] * T) for n, w in weights.items()}, x)
  np.testing.assert_allclose(shared, repeated, atol=1e-6)
  for task in range(T):
    np.testing.assert_allclose(shared[task], model.apply(weights, x[task]), atol=1e-6)


def test_a_model_whose_call_takes_no_training_argument():
  class Plain(keras.Model):
    def __init__(self):
      super().__init__()
      self.norm = keras.layers.BatchNormalization()

    def call(self, x):
      return self.norm(x)

  model = models.from_keras(Plain(), input_shape=(3,))
  x = normal(N, 3)
  outputs = model.apply(model.initial_weights(0), x)
  np.testing.assert_allclose(outputs, (x - x.mean(axis=0)) / np.sqrt(x.var(axis=0) + 1e-3), atol=1e-5)


def test_a_plain_call_is_the_keras_model():
  model = wrapped(Subclassed)
  x = normal(N, 3)
  np.testing.assert_array_equal(model(x), model.model(x))


# --- meta-gradients -----------------------------------------------------------------------------------------------


def finite_difference_error(maml, weights, batch, directions=3, step=1e-5):
  """Norm of (directional derivatives - finite differences) over that of the finite differences."""
  _, gradients = maml.meta_gradients(weights, batch)
  exact, measured = [], []
  for k in range(directions):
    d = {name: normal(*w.shape, seed=100 * k + i) for i, (name, w) in enumerate(weights.items())}
    ahead, *_ = maml.meta_loss({n: w + step * d[n] for n, w in weights.items()}, batch)
    behind, *_ = maml.meta_loss({n: w - step * d[n] for n, w in weights.items()}, batch)
    exact.append(sum(float(tf.reduce_sum(gradients[n] * d[n])) for n in weights))
    measured.append(float(ahead - behind) / (2 * step))
  return np.linalg.norm(np.subtract(exact, measured)) / np.linalg.norm(measured)


@ARCHITECTURES
def test_meta_gradients_equal_finite_differences(build, float64):
  model = wrapped(build)
  maml = MAML(model, inner_lr=0.1, num_updates=1)
  assert finite_difference_error(maml, model.initial_weights(0), task_batch(SHAPES[build])) < 1e-6


def batch_norm_layers_in_float64():
  settings = dict(dtype="float64")
  inputs = keras.Input((5, 5, 2), **settings)
  x = keras.layers.Conv2D(3, 3, activation="tanh", **settings)(inputs)
  x = keras.layers.BatchNormalization(**settings)(x)
  x = keras.layers.Dense(2, **settings)(keras.layers.Flatten(**settings)(x))
  return models.from_keras(keras.Model(inputs, x))


def float64_batch():
  return tasks.TaskBatch(*(None if field is None else field.astype(np.float64) for field in task_batch((5, 5, 2))))


@pytest.mark.parametrize("num_updates", [1, 5])
@pytest.mark.parametrize("adapts_norm", [False, True], ids=["", "norm_adapted"])
def test_meta_gradients_through_batch_norm_equal_finite_differences(num_updates, adapts_norm):
  model = batch_norm_layers_in_float64()
  inner_lr = dict.fromkeys(model.weight_shapes, 0.1) if adapts_norm else 0.1
  maml = MAML(model, inner_lr=inner_lr, num_updates=num_updates)
  assert finite_difference_error(maml, as_float64(model), float64_batch()) < 1e-6


def as_float64(model):
  return {name: tf.cast(w, tf.float64) for name, w in model.initial_weights(0).items()}


def test_without_exact_moments_the_meta_gradient_is_wrong(monkeypatch):
  class OnlyBatchStatistics:
    """The same scope, with Keras' own moments left in place."""

    exact = staticmethod(exact.exact_normalisation)
    moments, tf_moments = keras.src.backend.nn.moments, tf.nn.moments

    @classmethod
    @contextlib.contextmanager
    def scope(cls, *settings):
      with cls.exact(*settings):
        keras.src.backend.nn.moments, tf.nn.moments = cls.moments, cls.tf_moments
        yield

  monkeypatch.setattr(exact, "exact_normalisation", OnlyBatchStatistics.scope)
  monkeypatch.setattr(checks, "refuse_dropped_derivatives", lambda *_: None)
  model = batch_norm_layers_in_float64()
  maml = MAML(model, inner_lr=0.1, num_updates=1)
  assert finite_difference_error(maml, as_float64(model), float64_batch()) > 1e-3


@ARCHITECTURES
def test_meta_gradients_in_a_graph_are_second_order_and_equal_the_eager_ones(build):
  model, batch = wrapped(build), task_batch(SHAPES[build])
  weights = model.initial_weights(0)
  maml = MAML(model, inner_lr=0.1, num_updates=1)
  loss, gradients = tf.function(maml.meta_gradients)(weights, batch)
  eager_loss, eager = maml.meta_gradients(weights, batch)
  _, first_order = MAML(model, inner_lr=0.1, num_updates=1, first_order=True).meta_gradients(weights, batch)
  np.testing.assert_allclose(loss, eager_loss, rtol=1e-5)
  assert relative_difference(gradients, eager) < 1e-4
  assert relative_difference(gradients, first_order) > 1e-2


def test_evaluation_inside_a_graph_with_free_sizes():
  model, batch = wrapped(functional), task_batch((5, 5, 2))
  maml, weights = MAML(model, inner_lr=0.1), model.initial_weights(0)
  specs = [tf.TensorSpec([None, None, *field.shape[2:]]) for field in batch[:4]]
  evaluate = tf.function(
    lambda *fields: maml.evaluate(weights, tasks.TaskBatch(*fields), 2)["loss"], input_signature=specs
  )
  np.testing.assert_allclose(evaluate(*batch[:4]), maml.evaluate(weights, batch, 2)["loss"], rtol=1e-4)


# --- how tasks are batched ----------------------------------------------------------------------------------------


def ways_taken(monkeypatch):
  """A list that collects the name of every batching function that is called from now on."""
  taken = []

  def spy(name):
    original = getattr(tf, name)
    monkeypatch.setattr(tf, name, lambda *args, **kwargs: taken.append(name) or original(*args, **kwargs))

  spy("vectorized_map")
  spy("map_fn")
  return taken


@pytest.mark.parametrize(
  ("build", "way"), [(dense_batch_norm, "vectorized_map"), (attention, "vectorized_map"), (functional, "map_fn")]
)
def test_a_traced_model_is_vectorised_where_its_operations_allow(build, way, monkeypatch):
  model = wrapped(build)
  weights, x = weights_per_task(model), normal(T, N, *model.example_shape)
  taken = ways_taken(monkeypatch)
  tf.function(model.apply)(weights, x)
  assert taken[-1] == way


def test_the_way_is_found_out_once(monkeypatch):
  model = wrapped(dense_batch_norm)
  weights, x = weights_per_task(model), normal(T, N, 3)
  tf.function(model.apply)(weights, x)
  taken = ways_taken(monkeypatch)
  tf.function(model.apply)(weights, x)
  assert taken == ["vectorized_map"]


def test_what_is_found_out_for_shared_filters_does_not_bind_those_per_task(monkeypatch):
  model = wrapped(functional)
  x = normal(T, N, 5, 5, 2)
  taken = ways_taken(monkeypatch)
  tf.function(model.apply)(model.initial_weights(0), x)
  assert taken[-1] == "vectorized_map"
  tf.function(model.apply)(weights_per_task(model), x)
  assert taken[-1] == "map_fn"


def test_both_ways_give_the_same_numbers(monkeypatch):
  batch, results = task_batch((3,)), {}
  for vectorises in (True, False):
    monkeypatch.setattr(task_map, "_can_vectorise", lambda *_, answer=vectorises: answer)
    model = wrapped(dense_batch_norm)
    taken = ways_taken(monkeypatch)
    maml = MAML(model, inner_lr=0.1, num_updates=2)
    results[vectorises] = tf.function(maml.meta_gradients)(model.initial_weights(0), batch)[1]
    assert set(taken) == {"vectorized_map" if vectorises else "map_fn"}
  assert relative_difference(results[True], results[False]) < 1e-5


# --- the substitute for Keras' moments ----------------------------------------------------------------------------


def keras_functions():
  return keras.src.backend.nn.moments, keras.layers.BatchNormalization.call


def test_keras_is_restored_after_use():
  before = keras_functions()
  model = wrapped(dense_batch_norm)
  momentum = model.model.layers[1].momentum
  model.apply(model.initial_weights(0), normal(N, 3))
  assert keras_functions() == before
  assert model.model.layers[1].momentum == momentum


def test_keras_is_restored_when_the_model_raises():
  class Failing(keras.Model):
    fails = False

    def build(self, shape):
      self.kernel = self.add_weight(shape=(3, 2))

    def call(self, x):
      if self.fails:
        raise RuntimeError("from the model")
      return x @ self.kernel

  before = keras_functions()
  model = models.from_keras(Failing(), input_shape=(3,))
  model.model.fails = True
  for x in (normal(N, 3), normal(T, N, 3)):
    with pytest.raises(RuntimeError, match="from the model"):
      model.apply(model.initial_weights(None), x)
  assert keras_functions() == before


def test_another_thread_keeps_keras_own_behaviour():
  plain = dense_batch_norm()
  x = normal(N, 3)
  expected, seen = plain(x, training=False), []
  with exact.exact_normalisation(batch_statistics=True):
    thread = threading.Thread(target=lambda: seen.append(plain(x, training=False)))
    thread.start()
    thread.join()
  np.testing.assert_array_equal(seen[0], expected)


def test_applying_changes_no_variable_of_the_model():
  model = wrapped(Subclassed)
  before = [v.value.numpy() for v in model.model.variables]
  model.apply(weights_per_task(model), normal(T, N, 3))
  for variable, value in zip(model.model.variables, before, strict=True):
    np.testing.assert_array_equal(variable.value, value)


# --- names --------------------------------------------------------------------------------------------------------


def test_names_do_not_depend_on_the_process_counter():
  expected = [
    "conv2d_0/kernel", "conv2d_0/bias", "batch_normalization_0/gamma", "batch_normalization_0/beta",
    "dense_0/kernel", "dense_0/bias",
  ]  # fmt: skip
  for _ in range(2):
    keras.layers.Dense(1)
    keras.layers.Conv2D(1, 1)
    assert list(wrapped(functional).weight_shapes) == expected


@ARCHITECTURES
def test_names_of_two_instances_agree(build):
  assert wrapped(build).weight_shapes == wrapped(build).weight_shapes


def test_names_of_bidirectional_layers_do_not_depend_on_the_process_counter():
  def build():
    return keras.Sequential([keras.Input((3, 2)), keras.layers.Bidirectional(keras.layers.GRU(2))])

  names = list(models.from_keras(build()).weight_shapes)
  assert names == list(models.from_keras(build()).weight_shapes)
  assert names[0] == "bidirectional_0/forward_gru_0/gru_cell_0/kernel"


def test_explicit_names_are_kept_also_in_nested_models():
  inner = keras.Sequential([keras.Input((3,)), keras.layers.Dense(4, name="embed"), keras.layers.Dense(3)], name="body")
  model = models.from_keras(keras.Sequential([keras.Input((3,)), inner, keras.layers.Dense(2, name="head")]))
  names = list(model.weight_shapes)
  assert names == [f"{layer}/{v}" for layer in ("body/embed", "body/dense_0", "head") for v in ("kernel", "bias")]


def test_layers_and_variables_of_the_same_name_stay_apart():
  class Twins(keras.Model):
    def __init__(self):
      super().__init__()
      self.layers_ = [keras.layers.Dense(3, name="same"), keras.layers.Dense(3, name="same")]
      self.a, self.b = self.add_weight(shape=()), self.add_weight(shape=())

    def call(self, x):
      return self.layers_[1](self.layers_[0](x)) * self.a * self.b

  names = list(models.from_keras(Twins(), input_shape=(3,)).weight_shapes)
  assert sorted(names) == ["same/bias", "same/kernel", "same_1/bias", "same_1/kernel", "variable_0", "variable_1"]


def test_a_shared_layer_is_one_set_of_weights():
  inputs = keras.Input((3,))
  shared = keras.layers.Dense(3)
  keras_model_ = keras.Model(inputs, keras.layers.Dense(2)(shared(shared(inputs))))
  model = models.from_keras(keras_model_)
  assert list(model.weight_shapes) == ["dense_0/kernel", "dense_0/bias", "dense_1/kernel", "dense_1/bias"]
  x = normal(N, 3)
  np.testing.assert_allclose(model.apply(model.initial_weights(None), x), keras_model_(x), atol=1e-6)


def test_a_config_gives_the_same_model_again():
  model = wrapped(functional)
  again = models.KerasModel.from_config(model.get_config())
  assert again.weight_shapes == model.weight_shapes
  assert again.example_shape == model.example_shape


# --- initial weights ----------------------------------------------------------------------------------------------


@ARCHITECTURES
def test_initial_weights_follow_the_seed_and_nothing_else(build):
  first, second = wrapped(build), wrapped(build)
  weights, other = first.initial_weights(3), first.initial_weights(4)
  for name, value in second.initial_weights(3).items():
    np.testing.assert_array_equal(value, weights[name])
    drawn = name.endswith(("kernel", "scale"))
    assert np.array_equal(value, other[name]) != drawn, name
  kernels = [np.ravel(w)[0] for name, w in weights.items() if name.endswith("kernel")]
  assert len(set(kernels)) == len(kernels)


def test_initial_weights_have_the_distribution_of_the_layers_initialisers():
  keras_model_ = keras.Sequential([keras.Input((50,)), keras.layers.Dense(80, kernel_initializer="he_normal")])
  kernel = models.from_keras(keras_model_).initial_weights(0)["dense_0/kernel"].numpy()
  assert kernel.std() == pytest.approx((2 / 50) ** 0.5, rel=0.05)


def test_the_forget_bias_of_an_lstm_starts_at_one():
  bias = wrapped(recurrent).initial_weights(5)["lstm_0/lstm_cell_0/bias"]
  np.testing.assert_array_equal(bias, [0, 0, 0, 1, 1, 1, 0, 0, 0, 0, 0, 0])


def test_seed_none_gives_the_current_values():
  model = wrapped(dense_batch_norm)
  model.model.layers[0].bias.assign([1, 2, 3, 4])
  np.testing.assert_array_equal(model.initial_weights(None)["dense_0/bias"], [1, 2, 3, 4])


class NeedsAnObject(keras.Model):
  """Own weights, and a constructor argument that its config cannot hold."""

  def __init__(self, activation_object):
    super().__init__()
    self.activation_object = activation_object
    self.kernel = self.add_weight(shape=(3, 2), initializer="glorot_uniform")

  def call(self, x):
    return self.activation_object(x @ self.kernel)


class DrawsItself(keras.Model):
  def __init__(self):
    super().__init__()
    self.kernel = keras.Variable(tf.random.normal([3, 2]))

  def call(self, x):
    return x @ self.kernel


@pytest.mark.parametrize("build", [lambda: NeedsAnObject(tf.tanh), DrawsItself], ids=["config", "own_draw"])
def test_a_layer_that_cannot_be_made_anew_is_an_error_that_says_what_to_do(build):
  model = models.from_keras(build(), input_shape=(3,))
  with pytest.raises(ValueError, match="seed=None"):
    model.initial_weights(0)
  assert model.initial_weights(None)["variable_0"].shape == (3, 2)


# --- normalisation ------------------------------------------------------------------------------------------------


def only_batch_norm(**settings):
  layer = keras.layers.BatchNormalization(**settings)
  return models.from_keras(keras.Sequential([keras.Input((3,)), layer])), layer


@pytest.mark.parametrize("graph", [False, True], ids=["eager", "graph"])
@pytest.mark.parametrize("momentum", [0.99, 1.0])
def test_statistics_are_those_of_each_task(graph, momentum):
  model, _ = only_batch_norm(momentum=momentum)
  x = normal(T, N, 3) + 5
  apply = tf.function(model.apply_with_statistics) if graph else model.apply_with_statistics
  _, statistics = apply(weights_per_task(model), x)
  assert set(statistics) == {"batch_normalization_0/mean", "batch_normalization_0/variance"}
  np.testing.assert_allclose(statistics["batch_normalization_0/mean"], x.mean(axis=1), rtol=1e-6)
  np.testing.assert_allclose(statistics["batch_normalization_0/variance"], x.var(axis=1), rtol=1e-4)


@pytest.mark.parametrize("graph", [False, True], ids=["eager", "graph"])
@pytest.mark.parametrize("shared", [False, True], ids=["per_task", "shared"])
def test_given_statistics_are_used(graph, shared):
  model, layer = only_batch_norm()
  weights, x = weights_per_task(model), normal(T, N, 3)
  mean, variance = normal(T, 3, seed=8), normal(T, 3, seed=9) ** 2 + 0.1
  if shared:
    mean, variance = mean[0], variance[0]
  statistics = {"batch_normalization_0/mean": mean, "batch_normalization_0/variance": variance}
  apply = tf.function(model.apply) if graph else model.apply
  outputs = apply(weights, x, statistics)
  mean, variance = (np.broadcast_to(v, [T, 3])[:, np.newaxis] for v in (mean, variance))
  gamma, beta = (np.array(w)[:, np.newaxis] for w in weights.values())
  np.testing.assert_allclose(outputs, (x - mean) / np.sqrt(variance + layer.epsilon) * gamma + beta, atol=1e-5)


def test_statistics_of_a_batch_reproduce_its_outputs():
  model = wrapped(functional)
  weights, x = weights_per_task(model), normal(T, N, 5, 5, 2)
  outputs, statistics = model.apply_with_statistics(weights, x)
  np.testing.assert_allclose(model.apply(weights, x, statistics), outputs, atol=1e-5)


def test_a_frozen_batch_norm_uses_its_moving_statistics():
  keras_model_ = dense_batch_norm()
  norm = keras_model_.layers[1]
  norm.moving_mean.assign([1, 2, 3, 4])
  norm.moving_variance.assign([0.5, 1, 2, 3])
  norm.trainable = False
  model = models.from_keras(keras_model_)
  x = normal(N, 3)
  outputs, statistics = model.apply_with_statistics(model.initial_weights(None), x)
  np.testing.assert_allclose(outputs, keras_model_(x, training=False), atol=1e-6)
  assert statistics == {}


def test_frozen_layers_are_no_meta_parameters_and_keep_their_values():
  keras_model_ = dense_batch_norm()
  keras_model_.layers[0].trainable = False
  model = models.from_keras(keras_model_)
  assert list(model.weight_shapes) == [
    "batch_normalization_0/gamma", "batch_normalization_0/beta", "dense_1/kernel", "dense_1/bias"
  ]  # fmt: skip
  x = normal(N, 3)
  hidden = np.tanh(x @ keras_model_.layers[0].kernel.value.numpy())
  _, statistics = model.apply_with_statistics(model.initial_weights(1), x)
  np.testing.assert_allclose(statistics["batch_normalization_0/mean"], hidden.mean(axis=0), atol=1e-6)


def test_normalisation_is_not_adapted_unless_asked_for():
  model = wrapped(dense_batch_norm)
  norm = {"batch_normalization_0/gamma", "batch_normalization_0/beta"}
  assert set(model.weight_shapes) - set(model.adapted_names) == norm
  weights, batch = model.initial_weights(0), task_batch((3,))
  for inner_lr, moves in ((0.1, False), (dict.fromkeys(model.weight_shapes, 0.1), True)):
    adapted = MAML(model, inner_lr=inner_lr).adapt(weights, batch.support_x, batch.support_y)[-1]
    for name in norm:
      assert bool(tf.reduce_any(adapted[name] != weights[name])) == moves


# --- layers that behave otherwise in training, masks, dtypes ------------------------------------------------------


def test_dropout_is_inactive():
  model = wrapped(sequential)
  weights, x = model.initial_weights(0), normal(T, N, 3)
  np.testing.assert_array_equal(model.apply(weights, x), model.apply(weights, x))


def test_masks_and_integer_inputs():
  def build():
    return keras.Sequential(
      [
        keras.Input((4,), dtype="int32"),
        keras.layers.Embedding(6, 3, mask_zero=True),
        keras.layers.GlobalAveragePooling1D(),
        keras.layers.Dense(2),
      ]
    )

  model = models.from_keras(build())
  weights = weights_per_task(model)
  x = np.array([[[1, 2, 0, 0], [3, 0, 0, 0]]] * T)
  outputs = tf.function(model.apply)(weights, x)
  embedding, kernel, bias = (np.array(w) for w in weights.values())
  for task in range(T):
    pooled = np.stack([(embedding[task][1] + embedding[task][2]) / 2, embedding[task][3]])
    np.testing.assert_allclose(outputs[task], pooled @ kernel[task] + bias[task], atol=1e-5)


def test_mixed_precision_returns_the_dtype_of_the_weights(mixed_precision):
  model = wrapped(dense_batch_norm)
  weights = model.initial_weights(0)
  assert {w.dtype for w in weights.values()} == {tf.float32}
  loss, _ = MAML(model, inner_lr=0.1).meta_gradients(weights, task_batch((3,)))
  assert loss.dtype == tf.float32
  assert np.isfinite(loss)


# --- errors -------------------------------------------------------------------------------------------------------


def test_an_unbuilt_model_needs_an_input_shape():
  with pytest.raises(ValueError, match="not built yet; pass input_shape"):
    models.from_keras(keras.Sequential([keras.layers.Dense(2)]))


def test_nothing_to_train_is_an_error():
  keras_model_ = dense_batch_norm()
  keras_model_.trainable = False
  with pytest.raises(ValueError, match="no trainable weights"):
    models.from_keras(keras_model_)


def test_inputs_of_the_wrong_rank_are_an_error():
  model = wrapped(dense_batch_norm)
  with pytest.raises(ValueError, match=r"expected inputs \[n, 3\] or \[T, n, 3\], got shape \(3,\)"):
    model.apply(model.initial_weights(0), normal(3))


def test_weights_of_the_wrong_dtype_are_an_error():
  model = wrapped(dense_batch_norm)
  with pytest.raises(ValueError, match=r"dense_0/kernel is float64, but .* built in float32; cast the weights"):
    model.apply(as_float64(model), normal(N, 3))


def test_weights_per_task_without_inputs_per_task_are_an_error():
  model = wrapped(dense_batch_norm)
  with pytest.raises(ValueError, match=r"dense_0/kernel has shape \(3, 3, 4\), expected \(3, 4\); .* a task axis"):
    model.apply(weights_per_task(model), normal(N, 3))


# --- the exported artefact ----------------------------------------------------------------------------------------


def test_an_exported_model_adapts_and_predicts_as_here(tmp_path):
  keras_model_ = keras.Sequential(
    [
      keras.Input((1,)),
      keras.layers.Dense(4, activation="tanh", trainable=False),  # a frozen variable has to travel too
      keras.layers.BatchNormalization(),
      keras.layers.Dropout(0.5),
      keras.layers.Dense(1),
    ]
  )
  model = models.from_keras(keras_model_)
  maml = MAML(model, inner_lr=0.1)
  sinusoid = tasks.Sinusoid(num_support=5, num_query=6)
  learner = learners.SupervisedLearner(maml, sinusoid)
  state = learner.initial_state(0)
  export.save(learner, state, tmp_path / "saved_model")
  batch = sinusoid.sample(tf.constant([1, 2]), 1)
  alone = MAML(model, inner_lr=0.1, bn_mode="support")  # as an artefact predicts: each example by itself
  adapted = alone.adapt_final(state["weights"], batch.support_x, batch.support_y, 3)
  expected = alone.predict(adapted, batch.query_x)[0]
  for layer in keras_model_.layers:  # the artefact must not read the variables of this process
    for variable in layer.variables:
      variable.assign(tf.zeros(variable.shape, variable.dtype))

  loaded = tf.saved_model.load(str(tmp_path / "saved_model"))
  actual = loaded.adapt_and_predict(batch.support_x[0], batch.support_y[0], batch.query_x[0], 3)
  np.testing.assert_allclose(actual, expected, atol=1e-5)
