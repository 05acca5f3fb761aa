"""Matching and siamese networks against NumPy, and as methods of the experiments."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from finite_differences import relative_error
from meta_batches import image_batch

from maml_tf import export, models, tasks
from maml_tf.algorithms.matching import FullContext, Matching, class_scores
from maml_tf.algorithms.siamese import Siamese, balanced, pair_logits
from maml_tf.errors import UserError
from maml_tf.experiments.config import readable_name, resolve
from maml_tf.over_tasks import meta_gradients
from maml_tf.training import optimizers
from maml_tf.training.learner import SupervisedLearner

MADE = {
  "matching": lambda model, **settings: Matching(model, **settings),
  "full context": lambda model, **settings: Matching(model, full_context=True, **settings),
  "siamese": lambda model, **settings: Siamese(model, **settings),
}


def embedding(norm="batch_norm"):
  return models.ConvNet(3, filters=4, input_shape=(16, 16, 1), norm=norm, head=False)


def normal(*shape, seed=0):
  return np.random.default_rng(seed).normal(size=shape)


def softmax(x):
  exponentials = np.exp(x - x.max(-1, keepdims=True))
  return exponentials / exponentials.sum(-1, keepdims=True)


def cosines(queries, support):
  lengths = np.linalg.norm(queries, axis=-1)[:, None] * np.linalg.norm(support, axis=-1)[None]
  return queries @ support.T / lengths


# Matching networks ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [1.0, 10.0])
def test_a_class_has_the_attention_of_its_examples(scale):
  """Vinyals et al. 2016, eq. 1: sum over the support set of softmax(cosine) times the label."""
  matching = Matching(embedding(), attention_scale=scale)
  support, queries = normal(2, 6, 5), normal(2, 4, 5, seed=1)
  labels = np.array([[0, 1, 2, 0, 1, 2], [2, 2, 1, 0, 0, 0]])
  learned = matching.learn({}, tf.constant(support), tf.constant(labels), None)
  logits = matching.compare({}, learned, tf.constant(queries)).numpy()
  for t in range(2):
    attention = softmax(scale * cosines(queries[t], support[t]))
    np.testing.assert_allclose(softmax(logits[t]), attention @ np.eye(3)[labels[t]], rtol=1e-9)


def test_with_one_example_a_class_it_is_a_softmax_of_cosines():
  matching, support, queries = Matching(embedding(), attention_scale=3.0), normal(1, 3, 5), normal(1, 4, 5, seed=1)
  learned = matching.learn({}, tf.constant(support), tf.constant([[0, 1, 2]]), None)
  logits = matching.compare({}, learned, tf.constant(queries))
  np.testing.assert_allclose(logits[0], 3.0 * cosines(queries[0], support[0]), rtol=1e-9)


def test_masked_examples_get_no_attention():
  matching, queries = Matching(embedding()), tf.constant(normal(1, 4, 5, seed=1))
  support, labels, mask = normal(1, 5, 5), np.array([[0, 1, 0, 1, 1]]), np.array([[True, True, True, False, True]])
  masked, kept = (
    matching.compare(
      {}, matching.learn({}, tf.constant(support[:, chosen]), tf.constant(labels[:, chosen]), m), queries
    )
    for chosen, m in ((slice(None), tf.constant(mask)), (mask[0], None))
  )
  np.testing.assert_allclose(masked, kept, rtol=1e-9)
  with tf.GradientTape() as tape:
    scores = tf.zeros([1, 2, 3])
    tape.watch(scores)
    out = class_scores(scores, tf.constant([[[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]]]))
  np.testing.assert_allclose(tape.gradient(out, scores), [[[1, 1, 0], [1, 1, 0]]], atol=1e-7)


def sigmoid(x):
  return 1 / (1 + np.exp(-x))


def lstm_step(x, hidden, carry, kernel, recurrent, bias):
  """An LSTM cell with a forget gate, in Keras' order of gates: input, forget, candidate, output."""
  gate_in, forget, candidate, out = np.split(x @ kernel + hidden @ recurrent + bias, 4, axis=-1)
  carry = sigmoid(forget) * carry + sigmoid(gate_in) * np.tanh(candidate)
  return sigmoid(out) * np.tanh(carry), carry


def test_full_context_is_a_bidirectional_reader_and_attention(float64):
  """Appendix A by NumPy, on two tasks; the weights are drawn anew, so that no bias is left at 0."""
  context = FullContext(3, steps=2)
  weights = {n: normal(*w.shape, seed=i) for i, (n, w) in enumerate(context.initial_weights(0).items())}
  support, queries = normal(2, 4, 3), normal(2, 5, 3, seed=9)
  given = {n: tf.constant(w) for n, w in weights.items()}
  read = context.of_support(given, tf.constant(support))
  parts = {p: [weights[f"context/{p}/{n}"] for n in ("kernel", "recurrent_kernel", "bias")]
           for p in ("forward", "backward", "query")}  # fmt: skip
  embedded = context.of_queries(given, tf.constant(queries), read)
  for t in range(2):
    expected = support[t].copy()
    for part, order in (("forward", range(4)), ("backward", range(3, -1, -1))):
      hidden, carry = np.zeros(3), np.zeros(3)
      for i in order:
        hidden, carry = lstm_step(support[t, i], hidden, carry, *parts[part])
        expected[i] += hidden
    np.testing.assert_allclose(read[t], expected, rtol=1e-9)
    for query, found in zip(queries[t], embedded[t], strict=True):
      hidden, carry, reading = np.zeros(3), np.zeros(3), np.zeros(3)
      for _ in range(2):
        hidden, carry = lstm_step(np.concatenate([query, reading]), hidden, carry, *parts["query"])
        hidden = hidden + query
        reading = softmax(expected @ hidden) @ expected
      np.testing.assert_allclose(found, hidden, rtol=1e-9)


def test_fresh_context_weights_follow_from_the_seed_and_open_the_forget_gate():
  first, again, other = (FullContext(3, 2).initial_weights(seed) for seed in (0, 0, 1))
  for name, weight in first.items():
    np.testing.assert_array_equal(weight, again[name])
  assert np.abs(first["context/forward/kernel"] - other["context/forward/kernel"]).max() > 0
  np.testing.assert_array_equal(first["context/query/bias"], np.repeat([0, 1, 0, 0], 3))


def test_full_context_refuses_masks():
  matching = MADE["full context"](embedding(None))
  with pytest.raises(ValueError, match="support_mask: full context"):
    matching.learn({}, tf.zeros([1, 2, 4]), tf.constant([[0, 1]]), tf.constant([[True, False]]))


# Siamese networks -----------------------------------------------------------------------------------------------------


def test_pairs_are_the_same_by_weighted_distances():
  """Koch et al. 2015, section 3.1, and their binary cross-entropy by the definition."""
  left, right, kernel, bias = normal(2, 3, 4), normal(2, 5, 4, seed=1), normal(4, 1, seed=2), normal(1, seed=3)
  weights = {"metric/kernel": tf.constant(kernel), "metric/bias": tf.constant(bias)}
  logits = pair_logits(weights, tf.constant(left), tf.constant(right))
  expected = (np.abs(left[:, :, None] - right[:, None]) @ kernel)[..., 0] + bias
  np.testing.assert_allclose(logits, expected, rtol=1e-9)
  own = {n: tf.stack([w, w]) for n, w in weights.items()}  # as a task has them
  np.testing.assert_allclose(pair_logits(own, tf.constant(left), tf.constant(right)), expected, rtol=1e-9)
  same = (np.arange(15).reshape(1, 3, 5) % 4 == 0).astype(float).repeat(2, 0)
  loss = balanced(logits, tf.constant(same), tf.ones_like(logits))
  for t in range(2):
    p = sigmoid(expected[t])
    alike, different = -np.log(p)[same[t] == 1].mean(), -np.log(1 - p)[same[t] == 0].mean()
    np.testing.assert_allclose(loss[t], (alike + different) / 2, rtol=1e-9)


def test_masked_queries_make_no_pairs(float64):
  siamese, batch = Siamese(embedding(None)), image_batch()
  weights, mask = siamese.initial_weights(0), np.array([[True] * 4 + [False] * 2] * 2)
  rubbish = batch._replace(query_x=np.where(mask[..., None, None, None], batch.query_x, 7.0), query_mask=mask)
  found, kept = (siamese.meta_loss(weights, b)[0] for b in (
    rubbish, batch._replace(query_x=batch.query_x[:, :4], query_y=batch.query_y[:, :4])))  # fmt: skip
  np.testing.assert_allclose(found, kept, rtol=1e-9)


# Both -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MADE)
def test_its_gradient_is_that_of_finite_differences(float64, name):
  algorithm, batch = MADE[name](embedding("layer_norm")), image_batch()
  weights = algorithm.initial_weights(0)
  weights |= {n: w + 0.1 * normal(*w.shape, seed=i) for i, (n, w) in enumerate(weights.items())}
  gradients = meta_gradients(algorithm.meta_loss, weights, batch).gradients
  meta_loss = tf.function(lambda w: algorithm.meta_loss(w, batch)[0], autograph=False)
  assert relative_error(meta_loss, weights, gradients) < 1e-5
  assert all(np.abs(g).max() > 0 for n, g in gradients.items() if n.startswith(("context", "metric/kernel")))


@pytest.mark.parametrize("name", MADE)
@pytest.mark.parametrize("bn_mode", ["transductive", "support"])
def test_evaluation_equals_adapting_and_predicting(float64, name, bn_mode):
  algorithm, batch = MADE[name](embedding(), bn_mode=bn_mode), image_batch(num_tasks=3)
  weights = algorithm.initial_weights(0)
  task = algorithm.adapt(weights, batch.support_x, batch.support_y)
  measured = algorithm.measure(algorithm.predict(task, batch.query_x), batch)
  evaluated = algorithm.evaluate(weights, batch)
  for metric in ("loss", "accuracy"):
    assert evaluated[metric].shape == (1, 3)
    np.testing.assert_allclose(evaluated[metric][0], measured[metric], rtol=1e-9)
  alone = [algorithm.predict(task, batch.query_x[:, i : i + 1]) for i in range(2)]
  if bn_mode == "support":
    np.testing.assert_allclose(tf.concat(alone, 1), algorithm.predict(task, batch.query_x)[:, :2], rtol=1e-9)


class Blots(tasks.TaskDistribution):
  """Three classes, each a bright square in one of nine places, under noise."""

  compiles = False

  def sample(self, seed, num_tasks):
    from maml_tf import randomness

    keys = randomness.uniform(randomness.fold(seed, "places"), [num_tasks, 9], 0.0, 1.0, tf.float32)
    places = tf.one_hot(tf.math.top_k(keys, 3).indices, 9)
    squares = tf.reshape(places, [num_tasks, 3, 3, 3])
    clean = tf.repeat(tf.repeat(squares, 4, axis=2), 4, axis=3)[..., tf.newaxis]

    def noisy(stream):
      noise = randomness.uniform(randomness.fold(seed, stream), [num_tasks, 3, 12, 12, 1], -0.7, 0.7, tf.float32)
      return clean + noise

    labels = tf.tile(tf.range(3)[tf.newaxis], [num_tasks, 1])
    return tasks.TaskBatch(noisy("support"), labels, noisy("query"), labels)


@pytest.mark.parametrize("name", MADE)
def test_it_learns_and_exports_the_four_functions(tmp_path, name):
  model = models.MLP(3, hidden=(24,), input_shape=(12, 12, 1), stddev=0.1, head=False)
  algorithm = MADE[name](model, bn_mode="support")
  learner = SupervisedLearner(algorithm, Blots(), meta_batch_size=8, optimizer=optimizers.Adam(0.003))
  state, seed = learner.initial_state(0), tf.constant([5, 0])

  @tf.function(autograph=False)
  def train(state):
    return tf.while_loop(
      lambda i, _: i < 150, lambda i, s: (i + 1, learner.train_step(s, tf.stack([0, i]))[0]), (0, state)
    )[1]

  before = np.mean(learner.evaluate(state, seed, 100)["accuracy"])
  state = train(state)
  after = np.mean(learner.evaluate(state, seed, 100)["accuracy"])
  assert after > max(0.8, before), (before, after)
  export.save(learner, state, tmp_path / "model")
  module = tf.saved_model.load(str(tmp_path / "model"))
  batch = Blots().sample(seed, 1)
  expected = algorithm.predict(algorithm.adapt(state["weights"], batch.support_x, batch.support_y), batch.query_x)[0]
  x, y, query = batch.support_x[0], batch.support_y[0], batch.query_x[0]
  np.testing.assert_allclose(module.adapt_and_predict(x, y, query, 0), expected, rtol=1e-4, atol=1e-5)
  np.testing.assert_allclose(module.predict(module.adapt(x, y, 3), query[:1]), expected[:1], rtol=1e-4, atol=1e-5)
  assert set(module.initialization()) == set(state["weights"])


@pytest.mark.parametrize("learner", ["matching", "siamese"])
@pytest.mark.parametrize("given", [
  {"stop_grad": True}, {"update_lr": 0.1}, {"num_updates": 3}, {"eval_updates": 3}, {"bn_mode": "running"},
  {"mixed_precision": True}, {"loss_reduction": "mean"}, {"cg_iterations": 3},
], ids=str)  # fmt: skip
def test_settings_that_they_do_not_have_are_refused(learner, given):
  with pytest.raises(UserError, match=f"^--{next(iter(given))}=") as error:
    resolve("omniglot", learner=learner, **given)
  assert "\n" not in str(error.value)


def test_their_own_settings_are_theirs_and_nobody_elses():
  assert ".fce." in readable_name(resolve("omniglot", learner="matching", full_context=True, attention_steps=2))
  for given in ({"learner": "matching", "attention_steps": 2}, {"learner": "siamese", "full_context": True}):
    with pytest.raises(UserError, match="expected no such flag"):
      resolve("omniglot", **given)
  for learner in ("matching", "siamese"):
    with pytest.raises(UserError, match=f"^--learner={learner}: expected"):
      resolve("sinusoid", learner=learner)
  with pytest.raises(UserError, match="loss=mse"):
    Matching(embedding(), "mse")
  assert keras.config.floatx() == "float32"
