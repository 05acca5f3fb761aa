"""Models as users bring them: trained, regularised, with branches, tables, several inputs and outputs."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from maml_tf import MAML, export, losses, models, tasks
from maml_tf.algorithms.reptile import Reptile
from maml_tf.errors import UserError
from maml_tf.training import learner as learners

L = keras.layers
GRAPH = pytest.mark.parametrize("graph", [False, True], ids=["eager", "graph"])
ONES = np.ones([2, 3, 1], np.float32)


def one_weight(value, *layers, **settings):
  dense = L.Dense(1, use_bias=False, kernel_initializer=keras.initializers.Constant(value), **settings)
  return models.from_keras(keras.Sequential([keras.Input((1,)), dense, *layers]), fresh=False)


def meta_gradients(maml, batch, graph):
  batch = tasks.TaskBatch(*(f if f is None else tf.nest.map_structure(tf.constant, f) for f in batch))
  loss, gradients = (tf.function(maml.meta_gradients) if graph else maml.meta_gradients)(maml.initial_weights(), batch)
  return float(loss), [np.ravel(gradient).tolist() for gradient in gradients.values()]


# --- shapes that broadcast ----------------------------------------------------------------------------------------

LOGITS = tf.constant([[[2.0, 0.0], [0.0, 1.0]]])


def test_labels_with_a_last_axis_are_what_they_are_in_keras():
  labels = tf.constant([[[0], [1]]])
  right = keras.losses.SparseCategoricalCrossentropy(from_logits=True)(labels[0], LOGITS[0])
  assert float(right) == pytest.approx(0.22009, abs=1e-5)
  for form in (labels, labels[..., 0]):
    assert float(losses.of_tasks(losses.crossentropy, form, LOGITS)[0]) == pytest.approx(float(right), abs=1e-6)
    assert float(losses.accuracy(form, LOGITS)[0]) == 1.0


@pytest.mark.parametrize("shape", [(1, 1), (1, 3), (1, 2, 3), (2, 2), (1, 1, 1), (1, 2, 1, 1)])
def test_labels_of_other_shapes_are_refused_with_both_shapes(shape):
  with pytest.raises(ValueError, match=r"labels have shape .*outputs \(1, 2, 2\)"):
    losses.of_tasks(losses.crossentropy, tf.zeros(shape, tf.int32), LOGITS)
  specs = [tf.TensorSpec([None] * len(shape), tf.int32), tf.TensorSpec([None, None, None])]
  with pytest.raises((ValueError, tf.errors.InvalidArgumentError)):
    tf.function(lambda y, x: losses.of_tasks(losses.crossentropy, y, x), specs)(tf.zeros(shape, tf.int32), LOGITS)


def test_one_logit_is_refused():
  with pytest.raises(ValueError, match="one logit"):
    losses.crossentropy(tf.zeros([1, 2], tf.int32), tf.zeros([1, 2, 1]))


@pytest.mark.parametrize("shape", [(1, 1), (1, 2, 1), (2,)])
def test_masks_of_other_shapes_are_refused(shape):
  with pytest.raises(ValueError, match=r"mask: it has shape .*expected one for each"):
    losses.per_task(tf.ones([1, 2]), tf.ones(shape, tf.bool))


@pytest.mark.parametrize(
  "loss", [lambda y, x: tf.reduce_mean((y - x) ** 2, -1), lambda y, x: (y - x) ** 2], ids=["reduced", "whole"]
)
@pytest.mark.parametrize("num_tasks", [1, 2])
def test_a_loss_that_broadcasts_is_refused(loss, num_tasks):
  labels, outputs = tf.ones([num_tasks, 2]), tf.ones([num_tasks, 2, 1])
  with pytest.raises(ValueError, match=r"labels have shape \(\d, 2\), outputs \(\d, 2, 1\)"):
    losses.of_tasks(loss, labels, outputs)


@GRAPH
def test_labels_that_are_no_class_are_named_before_training(graph):
  model = models.from_keras(keras.Sequential([keras.Input((1,)), L.Dense(2)]))
  maml = MAML(model, "crossentropy")
  labels = np.array([[0, 1, 1], [0, 7, 1]])
  batch = tasks.TaskBatch(ONES, labels * 0, ONES, labels)
  with pytest.raises(losses.LabelError, match=r"query_y: label 7 \(task 1, example 1\).*labels are 0 to 1"):
    maml.check_batch(batch)
  maml.check_batch(batch._replace(query_mask=labels < 7))
  if not graph:
    with pytest.raises(losses.LabelError, match="label 7"):
      maml.meta_gradients(maml.initial_weights(0), batch)


@pytest.mark.parametrize(
  ("field", "shape"), [("query_y", (2, 4)), ("support_y", (3, 3)), ("query_x", (1, 3, 1)), ("support_mask", (2, 3, 1))]
)
def test_fields_of_a_batch_belong_together(field, shape):
  batch = tasks.TaskBatch(ONES, ONES, ONES, ONES)._replace(**{field: np.ones(shape)})
  with pytest.raises(ValueError, match=rf"it has shape \({shape[0]}, .*expected"):
    tasks.check_batch(batch)


# --- regularisers and losses of the model -------------------------------------------------------------------------


@GRAPH
def test_regularisers_are_in_both_losses(graph):
  model = one_weight(2.0, kernel_regularizer=keras.regularizers.L2(1.0))
  batch = tasks.TaskBatch(ONES, ONES, ONES, ONES)
  for regularisation, adapted, loss, gradient in ((True, 1.4, 2.12, 2.16), (False, 1.8, 0.64, 1.28)):
    maml = MAML(model, inner_lr=0.1, regularisation=regularisation)
    steps = maml.adapt(model.initial_weights(), ONES, ONES)
    np.testing.assert_allclose(steps[-1]["dense_0/kernel"], np.full([2, 1, 1], adapted), rtol=1e-6)
    found = meta_gradients(maml, batch, graph)
    assert found[0] == pytest.approx(loss, rel=1e-6) and found[1] == [pytest.approx([gradient], rel=1e-6)]


class AddsLoss(L.Layer):
  def call(self, x):
    self.add_loss(keras.ops.mean(x**2))
    return x


@GRAPH
def test_added_losses_are_in_both_losses(graph):
  maml = MAML(one_weight(2.0, AddsLoss()), inner_lr=0.1)  # (w - 1)^2 + w^2: w' = 2 - 0.1 (2 + 4)
  batch = tasks.TaskBatch(ONES, ONES, ONES, ONES)
  assert meta_gradients(maml, batch, graph)[0] == pytest.approx(0.4**2 + 1.4**2, rel=1e-6)


# --- weights that a user brought ----------------------------------------------------------------------------------


def fitted():
  model = keras.Sequential([keras.Input((1,)), L.Dense(3), L.Dense(1)])
  model.compile("sgd", "mse")
  model.fit(np.ones([8, 1]), np.ones([8, 1]), verbose=0)
  return model


def test_training_begins_from_a_fitted_model():
  brought = fitted()
  model = models.from_keras(brought)
  learner = learners.SupervisedLearner(MAML(model), tasks.Sinusoid(num_support=2, num_query=2))
  for weights in (model.initial_weights(), MAML(model).initial_weights(3), learner.initial_state(5)["weights"]):
    for weight, variable in zip(weights.values(), brought.get_weights(), strict=True):
      np.testing.assert_array_equal(weight, variable)
  drawn = model.initial_weights(3)["dense_0/kernel"]
  assert not np.array_equal(drawn, brought.get_weights()[0])
  np.testing.assert_array_equal(
    MAML(models.from_keras(brought, fresh=True)).initial_weights(3)["dense_0/kernel"], drawn
  )


def test_a_model_as_its_initialisers_drew_it_is_fresh():
  inputs = keras.Input((4, 2))
  x = L.LSTM(3)(L.MultiHeadAttention(1, 2)(inputs, inputs))
  model = models.from_keras(keras.Model(inputs, L.Dense(2)(L.BatchNormalization()(x))))
  assert not model.keeps_values
  model.model.layers[-1].bias.assign([1, 1])
  assert models.from_keras(model.model).keeps_values


def test_weights_go_back_into_the_keras_model():
  brought = fitted()
  maml = MAML(models.from_keras(brought), inner_lr=0.1)
  adapted = maml.adapt(maml.initial_weights(), ONES[:1], 0 * ONES[:1])[-1]
  assert maml.to_keras(adapted) is brought
  np.testing.assert_allclose(brought(ONES[0]), maml.predict(adapted, ONES[:1])[0], rtol=1e-6)
  with pytest.raises(ValueError, match="pick one task's"):
    maml.to_keras(maml.adapt(maml.initial_weights(), ONES, ONES)[-1])
  house = models.MLP()
  assert MAML(house).to_keras(house.initial_weights(4)) is house
  np.testing.assert_array_equal(
    house.initial_weights(None)["dense_0/kernel"], house.initial_weights(4)["dense_0/kernel"]
  )


def test_statistics_of_the_support_set_go_with_them():
  model = models.from_keras(keras.Sequential([keras.Input((1,)), L.Dense(3), L.BatchNormalization(), L.Dense(1)]))
  maml = MAML(model, inner_lr=0.1, bn_mode="support")
  x = np.random.default_rng(0).normal(size=(1, 5, 1)).astype(np.float32)
  adapted = maml.adapt(maml.initial_weights(0), x, x)[-1]
  np.testing.assert_allclose(maml.to_keras(adapted)(ONES[0]), maml.predict(adapted, ONES[:1])[0], rtol=1e-5)
  with pytest.warns(UserWarning, match="moving statistics"):
    maml.to_keras(maml.initial_weights(0))


# --- branches, loops and tables -----------------------------------------------------------------------------------


class Branches(L.Layer):
  def call(self, x):
    return keras.ops.cond(keras.ops.sum(x) > 0, lambda: 2 * x, lambda: 3 * x)


class Loops(L.Layer):
  def call(self, x):
    return keras.ops.while_loop(lambda i, x: i < 1, lambda i, x: (i + 1, 2 * x), (0, x))[1]


@GRAPH
@pytest.mark.parametrize("layer", [Branches, Loops])
def test_control_flow(layer, graph):
  batch = tasks.TaskBatch(ONES, 0 * ONES, ONES, 0 * ONES)
  loss, gradients = meta_gradients(MAML(one_weight(1.0, layer()), inner_lr=0.05), batch, graph)
  assert loss == pytest.approx(1.44, rel=1e-6) and gradients == [pytest.approx([2.88], rel=1e-6)]


TABLES = {
  "strings": (lambda: L.StringLookup(vocabulary=["a", "b"]), np.array([[["a"]]], object), 1),
  "integers": (lambda: L.IntegerLookup(vocabulary=[5, 7]), np.array([[[5]]]), 1),
  "text": (
    lambda: L.TextVectorization(vocabulary=["a", "b"], output_sequence_length=1),
    np.array([[["a"]]], object),
    2,
  ),
}


class OneTask(tasks.TaskDistribution):
  def __init__(self, x):
    self.x = x

  def sample(self, seed, num_tasks):
    x, y = tf.repeat(tf.constant(self.x), num_tasks, 0), tf.zeros([num_tasks, 1, 1])
    return tasks.TaskBatch(x, y, x, y)


@pytest.mark.parametrize("kind", TABLES)
def test_tables_in_graphs_and_exports(kind, tmp_path):
  lookup, x, index = TABLES[kind]
  inputs = keras.Input((1,), dtype="int64" if kind == "integers" else "string")
  embedded = L.Embedding(4, 1, embeddings_initializer="ones")(lookup()(inputs))
  maml = MAML(models.from_keras(keras.Model(inputs, L.Flatten()(embedded))), inner_lr=0.1)
  right = [0.0, 0.0, 0.0, 0.0]
  right[index] = 1.28
  zeros = np.zeros([1, 1, 1], np.float32)
  for graph in (False, True):
    loss, gradients = meta_gradients(maml, tasks.TaskBatch(x, zeros, x, zeros), graph)
    assert loss == pytest.approx(0.64, rel=1e-6) and gradients == [pytest.approx(right, rel=1e-6)]
  learner = learners.SupervisedLearner(maml, OneTask(x), meta_batch_size=2)
  export.save(learner, learner.initial_state(0), tmp_path / "saved_model")
  loaded = tf.saved_model.load(str(tmp_path / "saved_model"))
  outputs = loaded.adapt_and_predict(tf.constant(x[0]), tf.zeros([1, 1]), tf.constant(x[0]), 1)
  np.testing.assert_allclose(outputs, [[0.8]], rtol=1e-6)


# --- several inputs and outputs -----------------------------------------------------------------------------------


def two_by_two(as_dicts):
  a, b = keras.Input((2,), name="a"), keras.Input((3,), name="b")
  hidden = L.Concatenate()([L.Dense(3)(a), L.Dense(2)(b)])
  r, c = L.Dense(2)(hidden), L.Dense(4)(hidden)
  return models.from_keras(keras.Model({"a": a, "b": b}, {"r": r, "c": c}) if as_dicts else keras.Model([a, b], [r, c]))


@GRAPH
@pytest.mark.parametrize("as_dicts", [False, True], ids=["tuples", "dicts"])
def test_several_inputs_and_outputs_are_one_concatenated_model(as_dicts, graph):
  rng = np.random.default_rng(0)
  xa, xb, r = (rng.normal(size=(3, 5, size)).astype("f") for size in (2, 3, 2))
  c = rng.integers(0, 4, (3, 5))
  x, y, loss = ({"a": xa, "b": xb}, {"r": r, "c": c}, {"r": "mse", "c": "crossentropy"})
  if not as_dicts:
    x, y, loss = tuple(x.values()), tuple(y.values()), tuple(loss.values())
  model = two_by_two(as_dicts)
  maml = MAML(model, loss, inner_lr=0.1, num_updates=2)
  found = meta_gradients(maml, tasks.TaskBatch(x, y, x, y), graph)

  class Joined(keras.Model):
    def __init__(self):
      super().__init__()
      self.inner = model.model

    def call(self, x):
      parts = x[:, :2], x[:, 2:]
      out = self.inner(dict(zip("ab", parts, strict=True)) if as_dicts else list(parts))
      return keras.ops.concatenate([out["r"], out["c"]] if as_dicts else out, -1)

  def both(labels, outputs):
    classes = tf.cast(labels[..., 2], tf.int32)
    return losses.mse(labels[..., :2], outputs[..., :2]) + losses.crossentropy(classes, outputs[..., 2:])

  joined_x, joined_y = np.concatenate([xa, xb], -1), np.concatenate([r, c[..., None].astype("f")], -1)
  joined = MAML(models.from_keras(Joined(), input_shape=(5,), fresh=False), both, inner_lr=0.1, num_updates=2)
  right = joined.meta_gradients(
    joined.model.initial_weights(None), tasks.TaskBatch(joined_x, joined_y, joined_x, joined_y)
  )
  if not np.array_equal(maml.initial_weights()["dense_0/kernel"], model.initial_weights(None)["dense_0/kernel"]):
    found = [float(v) for v in maml.meta_gradients(model.initial_weights(None), tasks.TaskBatch(x, y, x, y))[:1]]
  assert found[0] == pytest.approx(float(right[0]), rel=1e-5)
  maml.check_batch(tasks.TaskBatch(x, y, x, y))
  assert maml.evaluate(maml.initial_weights(), tasks.TaskBatch(x, y, x, y), 1)["loss"].shape == (2, 3)


def test_losses_nested_otherwise_are_refused():
  model = two_by_two(as_dicts=True)
  x = {"a": np.ones([1, 2, 2], "f"), "b": np.ones([1, 2, 3], "f")}
  y = {"r": np.ones([1, 2, 2], "f"), "c": np.zeros([1, 2], "i")}
  for loss, message in (("mse", "several outputs"), ({"r": "mse"}, r"one for each of \['r'\]")):
    maml = MAML(model, loss)
    with pytest.raises(ValueError, match=message):
      maml.meta_gradients(maml.initial_weights(), tasks.TaskBatch(x, y, x, y))


def test_reptile_joins_every_part_of_several_inputs_and_outputs():
  x = {"a": np.ones([2, 3, 2], "f"), "b": np.ones([2, 3, 3], "f")}
  y = {"r": np.ones([2, 3, 2], "f"), "c": np.zeros([2, 3], "i")}
  reptile = Reptile(two_by_two(as_dicts=True), {"r": "mse", "c": "crossentropy"}, 0.1)
  weights = reptile.initial_weights(0)
  _, gradients = reptile.meta_gradients(weights, tasks.TaskBatch(x, y, x, y))
  # Support and query examples are the same, so that joined they have the mean loss of either.
  (_, adapted) = reptile.adapt(weights, x, y, 1)
  for name, weight in weights.items():
    np.testing.assert_allclose(gradients[name], weight - tf.reduce_mean(adapted[name], 0), atol=1e-6)


def test_several_parts_are_refused_in_exports_and_generators_in_one_line():
  model = two_by_two(as_dicts=True)
  maml = MAML(model, {"r": "mse", "c": "crossentropy"})
  x = {"a": tf.TensorSpec([None, 2]), "b": tf.TensorSpec([None, 3])}
  y = {"r": tf.TensorSpec([None, 2]), "c": tf.TensorSpec([None], tf.int32)}
  with pytest.raises(UserError, match=r"support_x: it has several parts.*to_keras") as raised:
    export.AdaptationModule(maml, maml.initial_weights(), tasks.TaskBatch(x, y, x, y))
  assert "\n" not in str(raised.value)

  def pairs(rng):
    while True:
      yield ({"a": np.ones([3, 2])}, np.ones([3, 1]), {"a": np.ones([3, 2])}, np.ones([3, 1]))

  with pytest.raises(ValueError, match="from_generator: support_x has several parts, expected one array") as raised:
    tasks.from_generator(pairs)
  assert "\n" not in str(raised.value)


def test_regularisers_of_nested_models_and_of_activities_are_in_the_loss():
  """L = w^2 (zeros behind w on ones), regulariser r w^2: w' = w - 2 a (1 + r) w."""
  inner = keras.Sequential(
    [
      keras.Input((1,)),
      L.Dense(1, use_bias=False, kernel_initializer="ones", kernel_regularizer=keras.regularizers.L2(0.5)),
    ]
  )
  model = models.from_keras(keras.Sequential([keras.Input((1,)), inner]), fresh=False)
  maml = MAML(model, inner_lr=0.1)
  adapted = maml.adapt(model.initial_weights(None), ONES, 0 * ONES)[-1]
  np.testing.assert_allclose(np.ravel(next(iter(adapted.values()))), 1 - 0.2 * 1.5, rtol=1e-6)
  active = one_weight(1.0, activity_regularizer=keras.regularizers.L2(0.5))
  plain = MAML(active, inner_lr=0.1, regularisation=False).adapt(active.initial_weights(), ONES, 0 * ONES)[-1]
  with_it = MAML(active, inner_lr=0.1).adapt(active.initial_weights(), ONES, 0 * ONES)[-1]
  np.testing.assert_allclose(np.ravel(next(iter(plain.values()))), 0.8, rtol=1e-6)
  # Keras divides the activity's penalty by the examples: 0.5 w^2.
  np.testing.assert_allclose(np.ravel(next(iter(with_it.values()))), 0.7, rtol=1e-6)


def test_models_that_were_saved_and_loaded_begin_from_what_they_have(tmp_path):
  network = keras.Sequential([keras.Input((1,)), keras.Sequential([keras.Input((1,)), L.Dense(1)], name="nested")])
  network.compile("sgd", "mse")
  network.fit(np.ones([8, 1]), np.ones([8, 1]), epochs=1, verbose=0)
  network.save(tmp_path / "model.keras")
  loaded = keras.models.load_model(tmp_path / "model.keras")
  begun = models.from_keras(loaded).starting_weights(0)
  for ours, theirs in zip(begun.values(), network.trainable_weights, strict=True):
    np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int64, np.float32, bool])
def test_labels_of_every_type_that_keras_takes(dtype):
  labels = tf.constant(np.array([[0, 1]], dtype))
  assert float(losses.of_tasks(losses.crossentropy, labels, LOGITS)[0]) == pytest.approx(0.22009, abs=1e-5)
  assert float(losses.accuracy(labels, LOGITS)[0]) == 1.0
