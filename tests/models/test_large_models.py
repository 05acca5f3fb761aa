"""Large Keras models: what no inner step changes is computed once, and the meta-gradient stays exact."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from maml_tf import MAML, models, over_tasks, tasks, tracing
from maml_tf.algorithms.anil import head_only
from maml_tf.models import keras_cut

SIZE, WAYS, STEPS, RATE = 32, 3, 2, 0.1


def mobilenet(frozen):
  keras.utils.set_random_seed(0)
  body = keras.applications.MobileNetV2((SIZE, SIZE, 3), alpha=0.35, include_top=False, weights=None, pooling="avg")
  for layer in body.layers:
    layer.momentum = 0.0  # so that one batch gives moving statistics, without which nothing would reach the end
  body(np.random.default_rng(1).random((6, SIZE, SIZE, 3)), training=True)
  body.trainable = not frozen
  return keras.Sequential([keras.Input((SIZE, SIZE, 3)), body, keras.layers.Dense(WAYS)])


def images(num_tasks=2, queries=1):
  rng = np.random.default_rng(0)
  arrays = []
  for count in (1, queries):
    arrays.append(rng.random((num_tasks, WAYS * count, SIZE, SIZE, 3)))
    arrays.append(np.tile(np.repeat(np.arange(WAYS), count), (num_tasks, 1)))
  return tasks.TaskBatch(*map(tf.constant, arrays))


def plain_loop(network, batch):
  """Meta-loss and meta-gradient of the head's adaptation by Keras and tapes alone: the whole network in every step.

  Layers that are frozen use their moving statistics, the others those of the batch: as Keras trains.
  """
  trainable = [variable.value for variable in network.trainable_variables]
  fixed = network.non_trainable_variables

  def loss_of(weights, x, y):
    logits, _ = network.stateless_call(weights, fixed, x, training=True)
    return tf.reduce_mean(keras.losses.sparse_categorical_crossentropy(y, logits, from_logits=True))

  total, sums = 0.0, [tf.zeros_like(weight) for weight in trainable]
  num_tasks = len(batch.support_x)
  for support_x, support_y, query_x, query_y in zip(*batch[:4], strict=True):
    with tf.GradientTape(watch_accessed_variables=False) as outer:
      outer.watch(trainable)
      head = trainable[-2:]
      for _ in range(STEPS):
        with tf.GradientTape(watch_accessed_variables=False) as inner:
          inner.watch(head)
          loss = loss_of([*trainable[:-2], *head], support_x, support_y)
        head = [weight - RATE * g for weight, g in zip(head, inner.gradient(loss, head), strict=True)]
      loss = loss_of([*trainable[:-2], *head], query_x, query_y)
    found = outer.gradient(loss, trainable)
    total, sums = total + loss / num_tasks, [s + g / num_tasks for s, g in zip(sums, found, strict=True)]
  return total, sums


@pytest.mark.parametrize("frozen", [True, False], ids=["frozen", "anil"])
def test_the_meta_gradient_is_that_of_the_whole_network_in_every_step(float64, frozen):
  network, batch = mobilenet(frozen), images()
  model = models.from_keras(network, fresh=False)
  maml = MAML(model, "crossentropy", head_only(model, RATE), num_updates=STEPS)
  calls = counted(keras.layers.DepthwiseConv2D)
  with calls:
    loss, gradients = tracing.function(maml.meta_gradients)(model.initial_weights(None), batch)
  assert calls.count == 2 * 17  # 17 blocks, traced for the support set and for the queries
  expected_loss, expected = plain_loop(network, batch)
  np.testing.assert_allclose(loss, expected_loss, rtol=1e-12)
  largest = max(np.abs(by_hand).max() for by_hand in expected)
  for (name, gradient), by_hand in zip(gradients.items(), expected, strict=True):
    np.testing.assert_allclose(gradient, by_hand, rtol=1e-8, atol=1e-12 * largest, err_msg=name)


class counted:
  """Counts the calls of a layer's class."""

  def __init__(self, kind):
    self.kind, self.count = kind, 0

  def __enter__(self):
    self._original = original = self.kind.call

    def call(layer, *args, **kwargs):
      self.count += 1
      return original(layer, *args, **kwargs)

    self.kind.call = call

  def __exit__(self, *_):
    self.kind.call = self._original


def small(**options):
  """Two branches of a body, a head of two layers."""
  x = keras.Input((6,))
  left = keras.layers.Dense(5, "tanh", name="left")(x)
  right = keras.layers.Dense(5, "tanh", name="right", **options)(x)
  middle = keras.layers.Dense(4, "tanh", name="middle")(keras.layers.Multiply()([left, right]))
  return keras.Model(x, keras.layers.Dense(WAYS, name="head")(keras.layers.Concatenate()([middle, right])))


def rows(num_tasks=4):
  rng = np.random.default_rng(1)
  x = [rng.normal(size=(num_tasks, WAYS * n, 6)) for n in (1, 2)]
  y = [np.tile(np.repeat(np.arange(WAYS), n), (num_tasks, 1)) for n in (1, 2)]
  return tasks.TaskBatch(*map(tf.constant, (x[0], y[0], x[1], y[1])))


def meta_gradient(model, rates, cut, **settings):
  maml = MAML(model, "crossentropy", rates, num_updates=3, **settings)
  if not cut:
    maml.model = model = _Whole(model)
  loss, gradients = tracing.function(maml.meta_gradients)(model.initial_weights(None), rows())
  return {"loss": loss, **gradients, **maml.evaluate(model.initial_weights(None), rows(), 2)}


class _Whole:
  """A model that is not cut."""

  def __init__(self, model):
    self._model = model

  def __getattr__(self, name):
    return getattr(self._model, name)

  def parts(self, changed):
    return None


@pytest.mark.parametrize(
  ("changed", "settings"),
  [
    (("head", "middle"), {}),
    (("right",), {"first_order": True}),
    (("head",), {"checkpoint_inner_steps": True}),
    (("left",), {"bn_mode": "support"}),
  ],
  ids=["two layers", "a branch", "recomputed", "support"],
)
def test_wherever_it_is_cut_the_numbers_are_the_same(float64, changed, settings):
  model = models.from_keras(small(), fresh=False)
  rates = {name: 0.2 for name in model.adapted_names if name.split("/")[0] in changed}
  with_cut, without = (meta_gradient(model, rates, cut, **settings) for cut in (True, False))
  for name, value in without.items():
    np.testing.assert_allclose(with_cut[name], value, rtol=1e-10, atol=1e-14, err_msg=name)


def parts_of(network, *names):
  ids = {id(v) for v in network.variables if v.path.split("/")[-2] in names}
  assert ids
  return keras_cut.cut(network, ids)


def test_the_cut_is_where_the_changing_weights_begin():
  network = small()
  body, rest = parts_of(network, "head")
  assert {v.path.split("/")[-2] for v in body.variables} == {"left", "right", "middle"}
  assert {v.path.split("/")[-2] for v in rest.variables} == {"head"}
  body, rest = parts_of(network, "middle")
  assert {v.path.split("/")[-2] for v in body.variables} == {"left", "right"}
  assert len(body.outputs) == 2  # their product, and one of them for the head
  x = np.random.default_rng(0).normal(size=(2, 6))
  np.testing.assert_allclose(rest(body(x)), network(x), rtol=1e-6)


def test_there_is_no_cut_where_the_parts_would_not_add_up():
  inputs = keras.Input((6,))
  shared = keras.layers.Dense(6, name="shared")
  head = keras.layers.Dense(3, name="head")
  assert parts_of(keras.Model(inputs, head(shared(shared(inputs)))), "head") is not None
  assert parts_of(keras.Model(inputs, shared(head_of_six(shared(inputs)))), "six") is None  # on both sides
  two = keras.Model(inputs, [shared(inputs), head(shared(inputs))])
  assert parts_of(two, "head") is None  # an output that does not change
  assert parts_of(keras.Model(inputs, head(inputs)), "head") is None  # nothing before it
  ids = keras.Input((4,), dtype="int32")
  embedded = keras.layers.Embedding(9, 3, mask_zero=True)(ids)
  assert parts_of(keras.Model(ids, head(keras.layers.LSTM(6)(embedded))), "head") is None  # a mask

  class Own(keras.Model):
    def __init__(self):
      super().__init__()
      self.one, self.head = keras.layers.Dense(3), keras.layers.Dense(3, name="head")

    def call(self, x):
      return self.head(self.one(x))

  own = Own()
  own(np.zeros((1, 6)))
  assert keras_cut.cut(own, {id(own.head.kernel)}) is None  # no graph


def head_of_six(x):
  return keras.layers.Dense(6, name="six")(x)


def test_regularisers_of_the_body_keep_it_whole(float64):
  model = models.from_keras(small(kernel_regularizer=keras.regularizers.L2(0.1)), fresh=False)
  rates = {name: 0.2 for name in model.adapted_names if name.startswith("head")}
  with_cut, without = (meta_gradient(model, rates, cut) for cut in (True, False))
  for name, value in without.items():
    np.testing.assert_allclose(with_cut[name], value, rtol=1e-10, atol=1e-14, err_msg=name)


def test_embeddings_one_task_at_a_time(float64):
  """Their gradients are rows and indices at first; the embedding is in the body, and meta-learned."""
  ids = keras.Input((4,), dtype="int32")
  features = keras.layers.GlobalAveragePooling1D()(keras.layers.Embedding(9, 6)(ids))
  model = models.from_keras(keras.Model(ids, keras.layers.Dense(WAYS, name="head")(features)), fresh=False)
  maml = MAML(model, "crossentropy", head_only(model, RATE), num_updates=STEPS)
  rng = np.random.default_rng(0)
  x = [rng.integers(0, 9, (4, WAYS, 4)) for _ in range(2)]
  y = np.tile(np.arange(WAYS), (4, 1))
  batch = tasks.TaskBatch(*map(tf.constant, (x[0], y, x[1], y)))
  weights = model.initial_weights(None)
  whole, chunked = (
    tracing.function(lambda w, c=chunk: over_tasks.meta_gradients(maml.meta_loss, w, batch, c))(weights)
    for chunk in (None, 1)
  )
  for name, gradient in whole.gradients.items():
    np.testing.assert_allclose(chunked.gradients[name], gradient, rtol=1e-10, atol=1e-14)
