"""The meta-learner LSTM against gradient descent and NumPy, and as a method of the experiments."""

import math

import clusters
import numpy as np
import pytest
import tensorflow as tf
from finite_differences import relative_error
from meta_batches import mlp, regression_batch, spread

from maml_tf import MAML, models
from maml_tf.algorithms.metalstm import BIASES, UNITS, MetaLSTM, preprocessed
from maml_tf.errors import UserError
from maml_tf.experiments.config import resolve
from maml_tf.over_tasks import meta_gradients


def made(scale=0.3):
  algorithm = MetaLSTM(mlp(), "mse", num_updates=2)
  fresh = algorithm.initial_weights(0)
  own = {
    n: tf.constant(scale * np.random.default_rng(i).normal(size=w.shape)) for i, (n, w) in enumerate(fresh.items())
  }
  return algorithm, own | spread(algorithm.model.initial_weights(0))


def test_with_gates_that_stand_still_it_is_gradient_descent(float64):
  """Forget gate 1 and input gate alpha, whatever is read."""
  algorithm, batch, rate = MetaLSTM(mlp(), "mse", num_updates=3), regression_batch(), 0.05
  weights = algorithm.initial_weights(0) | spread(algorithm.model.initial_weights(0))
  for gate, bias in (("forget", 40.0), ("input", math.log(rate / (1 - rate)))):
    weights[f"optimizer/{gate}/kernel"] = tf.zeros([UNITS + 2, 1], tf.float64)
    weights[f"optimizer/{gate}/bias"] = tf.constant([bias], tf.float64)
  plain = MAML(mlp(), "mse", rate, 3, first_order=True)
  own = {n: weights[n] for n in plain.model.weight_shapes}
  np.testing.assert_allclose(
    algorithm.evaluate(weights, batch, 3)["loss"], plain.evaluate(own, batch, 3)["loss"], rtol=1e-9
  )
  adapted = algorithm.adapt(weights, batch.support_x, batch.support_y)
  for found, expected in zip(adapted, plain.adapt(own, batch.support_x, batch.support_y), strict=True):
    assert set(found) == set(expected)
    for name in expected:
      np.testing.assert_allclose(found[name], expected[name], rtol=1e-9, atol=1e-12)


def test_a_step_by_numpy(float64):
  """Eq. 2 to 5 for one coordinate after another, of two steps."""
  algorithm, weights = made()
  rng = np.random.default_rng(5)
  theta, steps = rng.normal(size=[2, 3]), [(rng.normal(size=[2, 3]), rng.uniform(size=2)) for _ in range(2)]
  zeros = tf.zeros([6, UNITS], tf.float64)
  state = {"theta": tf.constant(theta), "hidden": zeros, "carry": zeros}
  state |= {gate: tf.zeros([2, 3], tf.float64) for gate in BIASES}
  for gradients, errors in steps:
    state = algorithm._step(weights, state, tf.constant(gradients), tf.constant(errors))
  w = {n: v.numpy() for n, v in weights.items() if n.startswith("optimizer/")}

  def sigmoid(x):
    return 1 / (1 + np.exp(-x))

  def two_numbers(x):
    return [math.log(abs(x)) / 10, np.sign(x)]

  for task in range(2):
    for place in range(3):
      value, gates, hidden, carry = theta[task, place], {"input": 0.0, "forget": 0.0}, np.zeros(UNITS), np.zeros(UNITS)
      for gradients, errors in steps:
        read = np.array([*two_numbers(gradients[task, place]), *two_numbers(errors[task])])
        parts = read @ w["optimizer/kernel"] + hidden @ w["optimizer/recurrent_kernel"] + w["optimizer/bias"]
        gate_in, forget, candidate, out = np.split(parts, 4)
        carry = sigmoid(forget) * carry + sigmoid(gate_in) * np.tanh(candidate)
        hidden = sigmoid(out) * np.tanh(carry)
        gates = {
          name: sigmoid(
            np.array([*hidden, value, before]) @ w[f"optimizer/{name}/kernel"] + w[f"optimizer/{name}/bias"]
          )
          for name, before in ((n, float(np.squeeze(g))) for n, g in gates.items())
        }
        value = float(np.squeeze(gates["forget"] * value - gates["input"] * gradients[task, place]))
      np.testing.assert_allclose(state["theta"][task, place], value, rtol=1e-9)


def test_numbers_of_all_sizes_are_told_apart():
  x = np.array([1.0, -math.e, math.exp(-9.0), -math.exp(-12.0), 0.0])
  expected = [[0, 1], [0.1, -1], [-0.9, 1], [-1, -math.exp(-2.0)], [-1, 0]]
  np.testing.assert_allclose(preprocessed(tf.constant(x)), expected, rtol=1e-9, atol=1e-12)


def test_gradients_are_constants_in_its_meta_gradient(float64):
  """Of the optimiser's weights after one step, before which nothing hangs on them: exact, by finite differences."""
  algorithm, weights = made()
  algorithm.num_updates, batch = 1, regression_batch()
  own = {n: w for n, w in weights.items() if n.startswith("optimizer/")}
  rest = {n: w for n, w in weights.items() if n not in own}
  gradients = meta_gradients(algorithm.meta_loss, weights, batch).gradients
  meta_loss = tf.function(lambda w: algorithm.meta_loss(rest | w, batch)[0], autograph=False)
  assert relative_error(meta_loss, own, {n: gradients[n] for n in own}) < 1e-6


def test_it_learns_resumes_and_exports_the_four_functions(tmp_path):
  model = models.MLP(clusters.WAYS, (8,), (clusters.DIM,), stddev=0.5)
  who = clusters.learner(MetaLSTM(model, "crossentropy", 3), meta_lr=0.03, meta_batch_size=8)
  before = clusters.accuracy(who, who.initial_state(0))
  state = clusters.trained(who, 150, tmp_path / "run")
  after = clusters.accuracy(who, state)
  assert after > max(0.5, before), (before, after)  # chance: 0.2
  clusters.check_artefact(who, state, tmp_path / "model")


@pytest.mark.parametrize(("datasource", "outputs"), [("sinusoid", 1), ("omniglot", 5)])
def test_the_experiments_make_it_and_refuse_what_it_lacks(datasource, outputs):
  _, answers = clusters.from_command_line(datasource, "metalstm")
  assert answers.shape == (1, 3, outputs) and np.isfinite(answers).all()
  for given in ({"update_lr": 0.1}, {"stop_grad": True}, {"bn_mode": "running"}, {"temporal_blocks": 2}):
    with pytest.raises(UserError, match=f"^--{next(iter(given))}="):
      resolve(datasource, learner="metalstm", **given)
