"""The contract of an algorithm: noise, sequences of tasks and plug-ins, without a line of training/ or evaluation."""

import pathlib
import re
import subprocess
import sys

import numpy as np
import pytest
import small_runs
import tensorflow as tf

from maml_tf import evaluation, export, losses, models, over_tasks, randomness, tasks
from maml_tf.algorithms.base import completed
from maml_tf.training import optimizers
from maml_tf.training.learner import Learner, SupervisedLearner

ROOT = pathlib.Path(__file__).parents[2]


class Noisy:
  """Adapts by one gradient step from weights with noise of each task. It derives from nothing."""

  has_steps = True

  def __init__(self, scale=0.1):
    self.model, self.scale = models.MLP(hidden=(8,), stddev=0.5), scale

  def initial_weights(self, seed=0):
    return self.model.initial_weights(seed)

  def adapt(self, weights, support_x, support_y, num_updates, seed):
    seeds = randomness.per_task(seed, over_tasks.num_tasks_of(support_x))
    start = {n: self._noisy(over_tasks.for_each_task({n: w}, support_x)[n], seeds, n) for n, w in weights.items()}
    with tf.GradientTape() as tape:
      tape.watch(start)
      loss = tf.reduce_mean((self.model.apply(start, support_x) - support_y) ** 2, axis=[1, 2])
    gradients = tape.gradient(loss, start)
    rate = tf.cast(0.01 * tf.cast(num_updates, tf.float32), tf.float32)
    return {n: start[n] - rate * gradients[n] for n in start}

  def predict(self, task, x):
    return self.model.apply(task, x)

  def meta_loss(self, weights, batch, seed):
    task = self.adapt(weights, batch.support_x, batch.support_y, 1, seed)
    loss = tf.reduce_mean(losses.mse(batch.query_y, self.predict(task, batch.query_x)))
    return loss, {"query_loss/step_1": loss}, {}

  def _noisy(self, weight, seeds, name):
    shape = weight.shape[1:]

    def draw(task_seed):
      return tf.random.stateless_normal(shape, randomness.fold(task_seed, name))

    noise = tf.map_fn(draw, seeds, fn_output_signature=tf.TensorSpec(shape, tf.float32))
    return weight + self.scale * noise


def noisy_learner(task_chunk=None):
  return SupervisedLearner(Noisy(), tasks.Sinusoid(5, 5), meta_batch_size=4, eval_updates=2, task_chunk=task_chunk)


def test_noise_repeats_with_the_seed_and_does_not_depend_on_chunks():
  algorithm, batch = Noisy(), tasks.Sinusoid(5, 5).sample(randomness.make_seed(0), 4)
  weights, seed = algorithm.initial_weights(0), randomness.make_seed(5)
  whole = over_tasks.meta_gradients(algorithm.meta_loss, weights, batch, None, seed)
  for chunk in (1, 2):
    parts = over_tasks.meta_gradients(algorithm.meta_loss, weights, batch, chunk, seed)
    for name in weights:
      np.testing.assert_allclose(parts.gradients[name], whole.gradients[name], rtol=1e-4, atol=1e-6)
  other = over_tasks.meta_gradients(algorithm.meta_loss, weights, batch, None, randomness.make_seed(6))
  assert float(other.loss) != float(whole.loss)


def test_an_evaluation_with_noise_is_the_same_in_chunks():
  algorithm = completed(Noisy())
  evaluate = evaluation.of_algorithm(algorithm, algorithm.initial_weights(0), 2)
  whole, parts = (
    evaluation.evaluate_blocks(evaluate, tasks.Sinusoid(5, 5), randomness.make_seed(1), 40, chunk)["loss"]
    for chunk in (None, 5)
  )
  assert whole.shape == (3, 40)
  np.testing.assert_allclose(parts, whole, rtol=1e-5)


def train_in_two_parts(folder, who, iterations, first, every):
  """The state of a training that was interrupted, and is that of an uninterrupted one."""

  def schedule(end):
    return small_runs.Schedule(end, log_every=every, validate_every=every, checkpoint_every=every, validation_tasks=20)

  small_runs.trainer(folder / "whole", schedule(iterations), who=who()).train()
  small_runs.trainer(folder / "parts", schedule(first), who=who()).train()
  state, info = small_runs.trainer(folder / "parts", schedule(iterations), who=who()).train()
  assert info["resumed_from"] == first
  small_runs.assert_same_run(folder / "whole", folder / "parts", iterations)
  return state


def test_a_stochastic_learner_trains_resumes_and_exports(tmp_path):
  state = train_in_two_parts(tmp_path, noisy_learner, iterations=20, first=10, every=10)
  export.save(noisy_learner(), state, tmp_path / "model")
  module = tf.saved_model.load(str(tmp_path / "model"))
  x, y = tf.zeros([5, 1]), tf.zeros([5, 1])
  np.testing.assert_array_equal(module.adapt_and_predict(x, y, x, 1), module.adapt_and_predict(x, y, x, 1))


class Arriving(Learner):
  """Tasks arrive one after another: each meta-iteration trains on those so far. What has arrived is in the state."""

  def __init__(self, arrivals=10):
    self.algorithm, self.optimizer = completed(Noisy(scale=0.0)), optimizers.Adam()
    self.sequence = tasks.Sinusoid(5, 5).sample(randomness.make_seed(3), arrivals)

  def initial_state(self, seed):
    weights = self.algorithm.initial_weights(seed)
    return {"weights": weights, "optimizer": self.optimizer.initial_state(weights), "arrived": tf.constant(0)}

  def train_step(self, state, seed):
    arrived = tf.minimum(state["arrived"] + 1, self.sequence.support_x.shape[0])
    chosen = tf.random.stateless_uniform([2], seed, 0, arrived, tf.int32)
    batch = tasks.TaskBatch(*(None if f is None else tf.gather(f, chosen) for f in self.sequence))
    found = over_tasks.meta_gradients(self.algorithm.meta_loss, state["weights"], batch, None, seed)
    weights, optimizer = self.optimizer.update(found.gradients, state["optimizer"], state["weights"])
    state = {"weights": weights, "optimizer": optimizer, "arrived": arrived}
    return state, {"loss": found.loss, "arrived": tf.cast(arrived, tf.float32)}

  def evaluate(self, state, seed, num_tasks):
    evaluate = evaluation.of_algorithm(self.algorithm, state["weights"], 1)
    return evaluation.evaluate_blocks(evaluate, tasks.Sinusoid(5, 5), seed, num_tasks)


def test_a_sequence_of_tasks_trains_and_resumes(tmp_path):
  state = train_in_two_parts(tmp_path, Arriving, iterations=12, first=8, every=4)
  assert int(state["arrived"]) == 10
  assert float(small_runs.rows(tmp_path / "whole" / "metrics.csv")[0]["arrived"]) == np.mean([1, 2, 3, 4])


def test_what_lacks_a_member_of_the_contract_is_refused_by_name():
  class Half:
    has_steps = True

  with pytest.raises(TypeError, match="Half is no algorithm: it has no initial_weights"):
    completed(Half())


def plug_in(folder):
  """The page's own example as a file, and the environment to run the command line beside it."""
  page = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
  (text,) = (block for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "class Ridge" in block)
  (folder / "ridge.py").write_text(text, encoding="utf-8")


def command_line(folder, *flags):
  command = [sys.executable, str(ROOT / "scripts" / "main.py"), "--learner=ridge:Ridge", *flags]
  return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)


def test_the_documented_plug_in_trains_resumes_and_is_tabulated(tmp_path):
  plug_in(tmp_path)
  small = ("--init_stddev=1", "--eval_tasks=40", "--log=False", "--logdir=logs", "--validation_tasks=20")
  first = command_line(tmp_path, *small, "--metatrain_iterations=2000")
  assert first.returncode == 0, first.stderr
  done = command_line(tmp_path, *small, "--metatrain_iterations=4000")
  assert done.returncode == 0 and "resuming from iteration 2000" in done.stdout, done.stderr
  assert "adapted" in done.stdout and "step" not in done.stdout.split("Mean squared error")[1].split("\n")[1]
  (folder,) = (tmp_path / "logs").iterdir()
  assert folder.name.startswith("sinusoid.ridge-Ridge.mbs_25.ubs_10.nonorm.seed0-")
  error = float(re.search(r"10 shots +(\d+\.\d+)", done.stdout)[1])
  assert error < 2  # of a variance of 4.2
  module = tf.saved_model.load(str(folder / "saved_model"))
  x = tf.linspace(-4.0, 4.0, 10)[:, tf.newaxis]
  fitted = module.adapt_and_predict(x, tf.sin(x), x, 0)
  assert np.mean((fitted - tf.sin(x)) ** 2) < 0.35  # of a variance of 0.5


def test_a_plug_in_has_no_flags_that_it_does_not_name(tmp_path):
  plug_in(tmp_path)
  done = command_line(tmp_path, "--num_updates=3")
  assert done.returncode == 2 and done.stderr.startswith("main.py: --num_updates=3: expected no such flag")
  done = command_line(tmp_path, "--datasource=omniglot")
  assert done.returncode == 2 and "--learner=ridge:Ridge" in done.stderr and "Traceback" not in done.stderr
  missing = subprocess.run(
    [sys.executable, str(ROOT / "scripts" / "main.py"), "--learner=nothing:Here"], capture_output=True, text=True
  )
  assert missing.returncode == 2 and "nothing:Here" in missing.stderr and "Traceback" not in missing.stderr
