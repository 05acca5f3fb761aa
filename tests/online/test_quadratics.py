"""The strongly convex example: what the loop gives is what the closed forms say, and regret grows as they say."""

import numpy as np
import pytest
import tensorflow as tf
from scipy import optimize

from maml_tf import MAML, tasks, tracing
from maml_tf.models.mlp import MLP
from maml_tf.online import STRATEGIES, OnlineLearner, Stream, UpdateProcedure, metrics, quadratics
from maml_tf.training import optimizers


def regret_of(method, num_tasks=3000, seed=0):
  drawn = quadratics.draw(num_tasks, seed)
  return metrics.regret(quadratics.paid(drawn, method), drawn.stepped().smallest_sums())


def test_the_regret_of_ftml_grows_with_the_logarithm():
  regret = regret_of("ftml")
  assert 0 < regret[2999] - regret[999] < 1
  per_e_fold = (regret[2999] - regret[999]) / np.log(3)
  assert abs((regret[999] - regret[99]) / np.log(10) - per_e_fold) < 0.2


@pytest.mark.parametrize("method", ["ftl", "toe", "scratch"])
def test_the_regret_of_the_others_grows_linearly(method):
  regret = regret_of(method)
  assert regret[2999] - regret[999] > 100
  np.testing.assert_allclose(regret[2999] - regret[1999], regret[1999] - regret[999], rtol=0.15)


def test_the_best_in_hindsight_is_a_minimum():
  """By SciPy, of the sum of f(w - alpha f'(w)) as the tasks' definition has it."""
  drawn = quadratics.draw(7, seed=3)

  def total(w):
    steps = [w - quadratics.ALPHA * a @ (w - c) for a, c in zip(*drawn, strict=True)]
    return sum((v - c) @ a @ (v - c) / 2 for v, a, c in zip(steps, *drawn, strict=True))

  found = optimize.minimize(total, np.zeros(5), tol=1e-12)
  stepped = drawn.stepped()
  np.testing.assert_allclose(stepped.smallest_sums()[-1], found.fun, rtol=1e-8)
  np.testing.assert_allclose(stepped.solutions()[-1], found.x, atol=1e-5)


def test_examples_are_the_quadratic():
  drawn, w = quadratics.draw(4, seed=1), np.linspace(-1, 2, 5)
  x, y = drawn.examples()
  np.testing.assert_allclose(np.mean((x @ w[:, np.newaxis] - y) ** 2, axis=(1, 2)) / 2, drawn.losses(w), rtol=1e-12)


def half_squared_error(labels, outputs):
  return tf.reduce_mean((labels - outputs) ** 2, axis=-1) / 2


class Linear(MLP):
  """x w, without the bias."""

  def forward(self, weights, x, normalise):
    return tf.matmul(x, weights["dense_0/kernel"]) + 0.0 * weights["dense_0/bias"][..., tf.newaxis, :]


def walk(method, drawn, meta_updates, meta_lr):
  """(losses that the loop pays [T], its state), in float64."""
  x, y = drawn.examples()
  stream = Stream(tasks.TaskSequence(x, y, x, y, batch_size=5))
  adapts = STRATEGIES[method].adapts_in_training
  model = Linear(1, (), input_shape=(5,))
  algorithm = MAML(model, half_squared_error, quadratics.ALPHA, num_updates=int(adapts))
  learner = OnlineLearner(
    UpdateProcedure(algorithm, steps=0 if method == "toe" else 1), stream, STRATEGIES[method],
    optimizers.SGD(meta_lr), meta_updates, meta_batch_size=None, inner_batch=5, pays_first=True,
    initial_weights={n: tf.zeros(s, tf.float64) for n, s in model.weight_shapes.items()},
  )  # fmt: skip
  state = learner.initial_state(0)
  step = tracing.function(learner.train_step)
  for seed in range(stream.num_rounds):
    state, _ = step(state, tf.constant([0, seed]))
  return state["loss"].numpy()[:, 0], state


@pytest.mark.parametrize(("method", "meta_lr"), [("ftml", 4.0), ("ftl", 0.8), ("toe", 0.8), ("scratch", 0.8)])
def test_the_loop_pays_what_the_closed_form_says(method, meta_lr):
  drawn = quadratics.draw(12, seed=2)
  losses, state = walk(method, drawn, meta_updates=400, meta_lr=meta_lr)
  np.testing.assert_allclose(losses, quadratics.paid(drawn, method), atol=1e-6, rtol=1e-6)
  if method != "scratch":
    solved = (drawn.stepped() if method == "ftml" else drawn).solutions()[-1]
    np.testing.assert_allclose(state["weights"]["dense_0/kernel"].numpy()[:, 0], solved, atol=1e-6)
