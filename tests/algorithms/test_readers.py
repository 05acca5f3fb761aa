"""SNAIL and LSTM readers against NumPy and Keras' own layers, and as methods of the experiments."""

import clusters
import keras
import numpy as np
import pytest
import tensorflow as tf

from maml_tf import models, over_tasks
from maml_tf.algorithms.lstm import LSTMReader
from maml_tf.algorithms.reader import shuffled
from maml_tf.algorithms.snail import SNAIL, Attention, Dilated, part_of
from maml_tf.errors import UserError
from maml_tf.experiments.config import resolve

SMALL = dict(temporal_filters=8, temporal_blocks=2, attention=((8, 8), (16, 16), (16, 16)))
MADE = {
  "lstm": lambda model, **settings: LSTMReader(model, "crossentropy", recurrent_size=32, **settings),
  "snail": lambda model, **settings: SNAIL(model, "crossentropy", **SMALL, **settings),
}


def normal(*shape, seed=0):
  return np.random.default_rng(seed).normal(size=shape)


def random_weights(algorithm, scale=0.4):
  return {
    n: tf.constant(scale * normal(*w.shape, seed=i)) for i, (n, w) in enumerate(algorithm.initial_weights(0).items())
  }


def sigmoid(x):
  return 1 / (1 + np.exp(-x))


def softmax(x):
  exponentials = np.exp(x - x.max(-1, keepdims=True))
  return exponentials / exponentials.sum(-1, keepdims=True)


def of_task(batch, task, query):
  """The sequence that a query ends, by the definition: features, one-hot label, 1; the query's without a label."""
  labels = np.eye(clusters.WAYS)[batch.support_y[task].numpy()]
  support = np.concatenate([batch.support_x[task], labels, np.ones([len(labels), 1])], axis=1)
  last = np.concatenate([batch.query_x[task, query], np.zeros(clusters.WAYS + 1)])
  return np.concatenate([support, last[np.newaxis]])


# The LSTM -------------------------------------------------------------------------------------------------------------


def test_the_lstm_reads_the_support_set_and_then_a_query(float64):
  algorithm = LSTMReader(clusters.bare(), "crossentropy", recurrent_size=3)
  weights, batch = random_weights(algorithm), clusters.sampled()
  outputs = algorithm.predict(algorithm.adapt(weights, batch.support_x, batch.support_y), batch.query_x)
  kernel, recurrent, bias = (w.numpy() for n, w in weights.items() if n.startswith("reader/lstm_cell"))
  for task in range(2):
    for query in range(10):
      hidden, carry = np.zeros(3), np.zeros(3)
      for item in of_task(batch, task, query):
        gate_in, forget, candidate, out = np.split(item @ kernel + hidden @ recurrent + bias, 4)
        carry = sigmoid(forget) * carry + sigmoid(gate_in) * np.tanh(candidate)
        hidden = sigmoid(out) * np.tanh(carry)
      expected = hidden @ weights["reader/head/kernel"].numpy() + weights["reader/head/bias"]
      np.testing.assert_allclose(outputs[task, query], expected, rtol=1e-9)


# SNAIL ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dilation", [1, 2, 8])
def test_a_dense_block_is_two_causal_convolutions_of_keras(float64, dilation):
  block, x, queries = Dilated(dilation, 4), normal(2, 6, 3), normal(2, 5, 3, seed=1)
  weights = {n: tf.constant(normal(*s, seed=i)) for i, (n, s) in enumerate(block.shapes(3).items())}

  def convolved(name, inputs):
    layer = keras.layers.Conv1D(4, 2, padding="causal", dilation_rate=dilation)
    layer.build(inputs.shape)
    layer.set_weights([weights[name], weights[f"{name}_bias"]])
    return layer(inputs).numpy()

  expected = np.tanh(convolved("filter", x)) * sigmoid(convolved("gate", x))
  np.testing.assert_allclose(block.of_support(weights, tf.constant(x)), expected, rtol=1e-9)
  found = block.of_queries(weights, tf.constant(x), tf.constant(queries))
  for query in range(5):
    longer = np.concatenate([x, queries[:, query : query + 1]], axis=1)
    expected = np.tanh(convolved("filter", longer)) * sigmoid(convolved("gate", longer))
    np.testing.assert_allclose(found[:, query], expected[:, -1], rtol=1e-9)


def test_attention_is_causal_and_a_query_sees_itself(float64):
  block, x, queries = Attention(5, 2), normal(2, 6, 3), normal(2, 4, 3, seed=1)
  weights = {n: tf.constant(normal(*s, seed=i)) for i, (n, s) in enumerate(block.shapes(3).items())}
  attention = keras.layers.Attention(score_mode="dot")

  def read(inputs):
    query, key, value = (inputs @ weights[n].numpy() + weights[f"{n}_bias"].numpy() for n in ("query", "key", "value"))
    return attention([query / np.sqrt(5), value, key], use_causal_mask=True).numpy()

  np.testing.assert_allclose(block.of_support(weights, tf.constant(x)), read(x), rtol=1e-6)
  found = block.of_queries(weights, tf.constant(x), tf.constant(queries))
  for query in range(4):
    longer = np.concatenate([x, queries[:, query : query + 1]], axis=1)
    np.testing.assert_allclose(found[:, query], read(longer)[:, -1], rtol=1e-6)


def test_snail_with_kept_channels_is_snail_on_whole_sequences(float64):
  """The last position of each whole sequence, support set and one query, through all blocks."""
  algorithm = SNAIL(clusters.bare(), "crossentropy", **SMALL)
  weights, batch = random_weights(algorithm), clusters.sampled()
  outputs = algorithm.predict(algorithm.adapt(weights, batch.support_x, batch.support_y), batch.query_x)
  for query in (0, 7):
    x = tf.constant(np.stack([of_task(batch, task, query) for task in range(2)]))
    for name, block in algorithm.blocks:
      x = tf.concat([x, block.of_support(part_of(weights, name, block), x)], axis=-1)
    expected = x[:, -1] @ weights["snail/head/kernel"] + weights["snail/head/bias"]
    np.testing.assert_allclose(outputs[:, query], expected, rtol=1e-9)


# Both -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MADE)
def test_queries_do_not_see_each_other_and_order_can_be_drawn(float64, name):
  algorithm, batch = MADE[name](clusters.bare()), clusters.sampled()
  weights = random_weights(algorithm)
  task = algorithm.adapt(weights, batch.support_x, batch.support_y)
  alone = [algorithm.predict(task, batch.query_x[:, i : i + 1]) for i in range(3)]
  np.testing.assert_allclose(tf.concat(alone, 1), algorithm.predict(task, batch.query_x)[:, :3], rtol=1e-9)
  with pytest.raises(ValueError, match="support_mask"):
    algorithm.evaluate(weights, batch._replace(support_mask=tf.ones([2, 5], tf.bool)))


def test_an_order_of_the_support_set_keeps_labels_with_examples():
  batch = clusters.Clusters(shots=2).sample(tf.constant([3, 1]), 4)
  changed = shuffled(batch, tf.constant([0, 7]))
  assert not np.array_equal(changed.support_y, batch.support_y)
  for task in range(4):
    pairs = [
      {(int(y), *map(float, x)) for x, y in zip(b.support_x[task], b.support_y[task], strict=True)}
      for b in (batch, changed)
    ]
    assert pairs[0] == pairs[1] and len(pairs[0]) == 10
  chunk = shuffled(over_tasks.tasks_of(batch, 2, 2), over_tasks.seed_from(tf.constant([0, 7]), 2))
  np.testing.assert_array_equal(chunk.support_y, changed.support_y[2:])


@pytest.mark.parametrize(("name", "iterations"), [("lstm", 1000), ("snail", 250)])
def test_it_learns_resumes_and_exports_the_four_functions(tmp_path, name, iterations):
  who = clusters.learner(MADE[name](clusters.network()))
  state = clusters.trained(who, iterations, tmp_path / "run")
  assert clusters.accuracy(who, state) > 0.6  # chance: 0.2
  clusters.check_artefact(who, state, tmp_path / "model")


@pytest.mark.parametrize("name", MADE)
@pytest.mark.parametrize(("datasource", "outputs"), [("sinusoid", 1), ("omniglot", 5)])
def test_the_experiments_make_it(name, datasource, outputs):
  _, answers = clusters.from_command_line(datasource, name)
  assert answers.shape == (1, 3, outputs) and np.isfinite(answers).all()


@pytest.mark.parametrize("name", MADE)
@pytest.mark.parametrize("given", [
  {"stop_grad": True}, {"update_lr": 0.1}, {"num_updates": 3}, {"eval_updates": 3}, {"bn_mode": "running"},
  {"loss_reduction": "mean"}, {"attention_scale": 3.0},
], ids=str)  # fmt: skip
def test_settings_that_they_do_not_have_are_refused(name, given):
  with pytest.raises(UserError, match=f"^--{next(iter(given))}=") as error:
    resolve("omniglot", learner=name, **given)
  assert "\n" not in str(error.value)
  with pytest.raises(UserError, match=f"^--learner={name}: expected"):
    resolve("point", learner=name)


def test_a_model_that_does_not_say_its_outputs_needs_their_number():
  network = keras.Sequential([keras.Input((4,)), keras.layers.Dense(6, "relu", dtype="float32")])
  with pytest.raises(UserError, match="num_outputs=None"):
    LSTMReader(models.from_keras(network), "crossentropy")
  algorithm = LSTMReader(models.from_keras(network), "crossentropy", num_outputs=3)
  assert algorithm.item_size == 10
  with pytest.raises(ValueError, match="support_y: label 3"):
    algorithm.check_batch(clusters.sampled(tf.float32))
