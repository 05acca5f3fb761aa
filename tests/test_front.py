"""The front door: fit, evaluate, adapt, predict, save and load, on a Keras model and arrays of one's own."""

import inspect
import os
import signal
import subprocess
import sys
import textwrap

import keras
import numpy as np
import pytest
import tensorflow as tf

import maml_tf
from maml_tf import MAML, evaluation, models, over_tasks, randomness, tasks
from maml_tf.algorithms.maml import MAML as Algorithm
from maml_tf.errors import UserError
from maml_tf.training import optimizers
from maml_tf.training.fit import read_history
from maml_tf.training.run_directory import RunDirectory

WAYS, WIDTH = 3, 4


def network():
  return keras.Sequential(
    [keras.Input((WIDTH,)), keras.layers.Dense(16, "relu"), keras.layers.Dense(WAYS, name="head")]
  )


def blobs(seed=0, num_classes=20):
  """(x, y): Gaussian clusters, which are easy to tell apart."""
  rng = np.random.default_rng(seed)
  y = np.repeat(np.arange(num_classes), 12)
  return rng.normal(size=(num_classes, WIDTH))[y] * 2 + 0.3 * rng.normal(size=(len(y), WIDTH)), y


def distribution(classes=range(14)):
  return tasks.from_arrays(*blobs(), ways=WAYS, shots=2, queries=4, classes=classes)


def make():
  return MAML(network(), "crossentropy", inner_lr=0.1, num_updates=2)


def tasks_of_one_seed(num_tasks):
  return distribution().sample(randomness.make_seed(5), num_tasks)


@pytest.fixture(scope="module")
def fitted():
  maml = make()
  test = distribution(range(14, 20))
  maml.fit(distribution(), iterations=60, validation_tasks=test, meta_batch_size=8, optimizer=0.01)
  return maml


def test_it_learns_and_says_so(fitted):
  history = fitted.history.history
  assert fitted.history.iteration == fitted.history.val_iteration == [6, 12, 18, 24, 30, 36, 42, 48, 54, 60]
  assert {len(values) for values in history.values()} == {10}
  assert history["loss"][-1] < 0.5 * history["loss"][0]
  assert history["val_accuracy"] == history["val_accuracy/step_2"]
  assert history["val_accuracy"][-1] > 0.9 > history["val_accuracy/step_0"][-1]


def test_the_weights_are_those_of_gradient_descent_written_out():
  """Three meta-iterations against the algorithm itself and Keras' own Adam."""
  maml, drawn = make(), distribution()
  maml.fit(drawn, iterations=3, meta_batch_size=4, optimizer=0.01, seed=7, num_validation_tasks=1)
  algorithm = Algorithm(models.from_keras(network()), "crossentropy", 0.1, 2)
  variables = {name: keras.Variable(value) for name, value in algorithm.initial_weights(7).items()}
  adam = keras.optimizers.Adam(0.01, epsilon=1e-8)
  stream = randomness.fold(randomness.make_seed(7), "train")
  for iteration in (1, 2, 3):
    weights = {name: tf.convert_to_tensor(variable.value) for name, variable in variables.items()}
    batch = drawn.sample(randomness.fold(stream, iteration), 4)
    gradients = over_tasks.meta_gradients(algorithm.meta_loss, weights, batch).gradients
    adam.apply([gradients[name] for name in variables], list(variables.values()))
  for name, variable in variables.items():
    np.testing.assert_allclose(maml.weights[name], variable, rtol=2e-3, atol=2e-5)


def test_the_weights_that_were_learned_may_be_left_out(fitted):
  batch = tasks_of_one_seed(4)
  support = batch.support_x, batch.support_y
  for given, left_out in (
    (fitted.evaluate(fitted.weights, batch, 3), fitted.evaluate(batch, 3)),
    (fitted.evaluate(fitted.weights, batch, num_updates=3), fitted.evaluate(None, batch=batch, num_updates=3)),
    (fitted.adapt(fitted.weights, *support, 3), fitted.adapt(*support, 3)),
    (fitted.adapt_final(fitted.weights, *support, 3), fitted.adapt_final(*support, num_updates=3)),
  ):
    tf.nest.map_structure(np.testing.assert_array_equal, given, left_out)
  with pytest.raises(ValueError, match="evaluate: nothing is learned yet; call fit first, or give evaluate weights"):
    make().evaluate(batch)


def test_a_distribution_is_evaluated_on_tasks_of_its_own(fitted):
  measured = fitted.evaluate(distribution(range(14, 20)), num_updates=2, num_tasks=30)
  assert {name: values.shape for name, values in measured.items()} == {"loss": (3, 30), "accuracy": (3, 30)}
  batch = distribution(range(14, 20)).sample(
    randomness.fold(randomness.fold(randomness.make_seed(0), "evaluation"), 0), evaluation.BLOCK
  )
  expected = fitted.evaluate(fitted.weights, batch, 2)["loss"]
  np.testing.assert_allclose(measured["loss"][:, : evaluation.BLOCK], expected, rtol=1e-4, atol=1e-5)


def test_one_task_without_a_task_axis(fitted):
  batch = tasks_of_one_seed(1)
  x, y, query = (np.asarray(field[0], np.float64) for field in (batch.support_x, batch.support_y, batch.query_x))
  steps = fitted.adapt(x, y.astype(int), 3)
  expected = fitted.adapt(batch.support_x, batch.support_y, 3)
  for one, several in zip(steps, expected, strict=True):
    tf.nest.map_structure(lambda a, b: np.testing.assert_array_equal(a, b[0]), one, several)
  outputs = fitted.predict(steps, query)
  np.testing.assert_allclose(outputs, fitted.predict(expected, batch.query_x)[0], rtol=1e-5, atol=1e-6)
  assert np.mean(np.argmax(outputs, -1) == batch.query_y[0].numpy()) > 0.8


def test_weights_go_back_into_the_keras_model(fitted):
  x = np.float32(blobs()[0][:5])
  np.testing.assert_allclose(fitted.to_keras()(x), fitted.predict(fitted.weights, x), rtol=1e-5, atol=1e-6)


def test_saved_and_loaded(fitted, tmp_path):
  fitted.save(tmp_path / "m")
  loaded = maml_tf.load(tmp_path / "m")
  batch = tasks_of_one_seed(1)
  x, y, query = (field[0].numpy() for field in (batch.support_x, batch.support_y, batch.query_x))
  assert (loaded.num_updates, loaded.outputs, loaded.input_shape, loaded.classifies) == (2, WAYS, (WIDTH,), True)
  for steps in (None, 0, 5):
    expected = fitted.predict(fitted.adapt(x, y, steps), query)
    np.testing.assert_allclose(loaded.predict(loaded.adapt(x, y, steps), query), expected, rtol=1e-4, atol=1e-5)
  module = tf.saved_model.load(str(tmp_path / "m"))  # with TensorFlow alone, and without a number of steps
  expected = fitted.predict(fitted.adapt(x, y), query)
  np.testing.assert_allclose(module.adapt_and_predict(x, y, query), expected, rtol=1e-4, atol=1e-5)
  other = make()
  other.load_weights(tmp_path / "m")
  tf.nest.map_structure(np.testing.assert_array_equal, other.weights, fitted.weights)
  for wrong, message in (
    ((x[:, :2], y), r"support_x: expected \[n, 4\], got \[6, 2\]"),
    ((x, y[:2]), "support_x has 6 examples, support_y 2 labels"),
    ((x, y + 1), "a label that is no class, expected 0 to 2"),
  ):
    with pytest.raises(ValueError, match=message):
      loaded.adapt(*wrong)
  with pytest.raises(UserError, match="no SavedModel here"):
    maml_tf.load(tmp_path / "absent")


def test_a_second_fit_goes_on_with_other_tasks():
  maml, seen, drawn = make(), [], distribution()
  for _ in range(2):
    before = maml.weights
    maml.fit(drawn, 2, meta_batch_size=2, optimizer=1e-9, num_validation_tasks=1)
    seen.append(maml.history.history["loss"])
    if before is not None:
      np.testing.assert_allclose(maml.weights["head/kernel"], before["head/kernel"], atol=1e-7)
  assert not np.allclose(*seen)


def test_in_its_directory_a_training_goes_on_to_the_same_bits(tmp_path):
  shared = {"meta_batch_size": 4, "log_every": 2, "num_validation_tasks": 1}
  whole = make()
  whole.fit(distribution(), 6, directory=tmp_path / "whole", **shared)
  for iterations in (4, 6):
    halves = make()
    halves.fit(distribution(), iterations, directory=tmp_path / "halves", **shared)
  tf.nest.map_structure(np.testing.assert_array_equal, halves.weights, whole.weights)
  assert halves.history.history["loss"] == whole.history.history["loss"]
  assert halves.history.iteration == read_history(RunDirectory(tmp_path / "halves")).iteration == [2, 4, 6]
  with pytest.raises(UserError, match="this folder holds another training, whose meta_batch_size is 4, not 5"):
    make().fit(distribution(), 6, directory=tmp_path / "halves", meta_batch_size=5)


def test_functions_and_keras_callbacks_are_called_and_stop(tmp_path):
  maml, rows = make(), []

  def stop_at_six(iteration, row):
    rows.append((iteration, row))
    return iteration == 6

  maml.fit(distribution(), 20, meta_batch_size=2, log_every=2, num_validation_tasks=2, callbacks=[stop_at_six])
  assert [iteration for iteration, _ in rows] == maml.history.iteration == [2, 4, 6]
  assert [row["val_loss"] for _, row in rows] == pytest.approx(maml.history.history["val_loss"])
  early = keras.callbacks.EarlyStopping("val_loss", patience=1, restore_best_weights=True)
  log = keras.callbacks.CSVLogger(tmp_path / "log.csv")
  maml.fit(  # a rate at which nothing improves
    distribution(), 40, meta_batch_size=2, log_every=2, optimizer=optimizers.SGD(5.0), callbacks=[early, log]
  )
  assert early.stopped_epoch > 0
  assert maml.history.iteration[-1] < 40
  assert len((tmp_path / "log.csv").read_text().splitlines()) == 1 + len(maml.history.iteration)
  np.testing.assert_array_equal(maml.get_weights()[0], early.best_weights[0])


INTERRUPTED = """
import os, signal
import numpy as np
from maml_tf import MAML, models, tasks
from maml_tf.tasks import Sinusoid

maml = MAML(models.MLP(), inner_lr=0.01)
def interrupt(iteration, row):
  if iteration == 30:
    os.kill(os.getpid(), signal.SIGINT)
try:
  maml.fit(Sinusoid(5, 5), 10_000_000, log_every=10, validate_every=1000, callbacks=[interrupt], num_validation_tasks=1)
except KeyboardInterrupt:
  start = maml.initial_weights(0)
  moved = max(float(abs(maml.weights[n] - start[n]).numpy().max()) for n in start)
  print(maml.history.iteration[:3], moved > 1e-3)
"""


def test_an_interrupt_keeps_what_was_reached():
  done = subprocess.run(
    [sys.executable, "-c", textwrap.dedent(INTERRUPTED)], capture_output=True, text=True, timeout=300,
    env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
  )  # fmt: skip
  assert done.stdout.splitlines()[-1:] == ["[10, 20, 30] True"], done.stderr[-2000:]


@pytest.mark.parametrize(("change", "error", "message"), [
  ({"tasks": [1, 2]}, ValueError, "fit(tasks=list): expected a distribution of tasks: tasks.from_arrays"),
  ({"iterations": 0}, ValueError, "fit(iterations=0): expected a whole number, 1 or more"),
  ({"iterations": 1.5}, ValueError, "fit(iterations=1.5): expected a whole number"),
  ({"optimizer": "adam"}, ValueError, "fit(optimizer='adam'): expected a learning rate for Adam"),
  ({"callbacks": [3]}, ValueError, "fit(callbacks=...): expected functions or Keras callbacks, got 3"),
  ({"tasks": tasks.Sinusoid(5, 5)}, ValueError, "fit(tasks=...): "),
  ({"validation_tasks": tasks.Sinusoid(5, 5)}, ValueError, "fit(validation_tasks=...): "),
], ids=lambda value: "-".join(value) if isinstance(value, dict) else None)  # fmt: skip
def test_what_does_not_fit_is_refused_before_training(change, error, message):
  with pytest.raises(error) as raised:
    make().fit(**{"tasks": distribution(), "iterations": 2} | change)
  assert message in str(raised.value)
  assert "\n" not in str(raised.value)


def test_its_arguments_are_those_of_the_algorithm():
  front, below = (inspect.signature(cls.__init__).parameters for cls in (MAML, Algorithm))
  assert {n: p.default for n, p in front.items()} == {n: p.default for n, p in below.items()}
  assert list(front) == list(below)


def test_saving_before_fitting_is_refused(tmp_path):
  with pytest.raises(ValueError, match="save: nothing is learned yet; call fit first"):
    make().save(tmp_path / "m")
