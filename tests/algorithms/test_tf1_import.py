"""The published code's checkpoint: its names are mapped, its numbers survive, and it classifies."""

import hashlib
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from real_data import REAL, needs_real_data

from maml_tf import MAML, evaluation, export, models, randomness, tasks, tf1_import
from maml_tf.datasets import miniimagenet
from maml_tf.errors import UserError

ROOT = pathlib.Path(__file__).parents[2]
SCRIPT = ROOT / "scripts" / "import_checkpoint.py"
CHECKPOINT = pathlib.Path(REAL or "") / "cbfinn_miniimagenet_1shot" / "model59000"


def network():
  return models.ConvNet(5, filters=32, input_shape=(84, 84, 3), max_pool=True)


def write_by_hand(prefix):
  """A checkpoint with the published code's variable names, by TensorFlow 1's own saver; returns its values."""
  rng = np.random.default_rng(0)
  shapes = {"conv1": (3, 3, 3, 32), "conv2": (3, 3, 32, 32), "conv3": (3, 3, 32, 32), "conv4": (3, 3, 32, 32)}
  shapes |= {"Variable": (32,), "Variable_1": (32,), "Variable_2": (32,), "Variable_3": (32,)}
  shapes |= {f"{i}/beta": (32,) for i in range(4)} | {"w5": (800, 5), "b5": (5,)}
  values = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
  with tf.Graph().as_default(), tf.compat.v1.Session() as session:
    variables = {f"model/{name}": tf.compat.v1.Variable(value) for name, value in values.items()}
    session.run(tf.compat.v1.global_variables_initializer())
    tf.compat.v1.train.Saver(variables).save(session, str(prefix), write_meta_graph=False)
  return values


def test_names_and_numbers_of_a_checkpoint_written_by_hand(tmp_path):
  values = write_by_hand(tmp_path / "model7")
  weights = tf1_import.read_tf1_checkpoint(tmp_path / "model7")
  assert {n: tuple(w.shape) for n, w in weights.items()} == network().weight_shapes
  np.testing.assert_array_equal(weights["conv_0/bias"], values["Variable"])
  np.testing.assert_array_equal(weights["conv_3/bias"], values["Variable_3"])
  np.testing.assert_array_equal(weights["conv_2/kernel"], values["conv3"])
  np.testing.assert_array_equal(weights["norm_1/beta"], values["1/beta"])
  np.testing.assert_array_equal(weights["dense/kernel"], values["w5"])


def test_what_is_no_such_checkpoint_is_named(tmp_path):
  with pytest.raises(UserError, match="no TensorFlow checkpoint here"):
    tf1_import.read_tf1_checkpoint(tmp_path / "model1")
  tf.train.Checkpoint(x=tf.Variable(1.0)).write(str(tmp_path / "other"))
  with pytest.raises(UserError, match="it has no model/w5"):
    tf1_import.read_tf1_checkpoint(tmp_path / "other")


def test_the_function_writes_a_saved_model(tmp_path):
  values = write_by_hand(tmp_path / "model7")
  maml = MAML(network(), "crossentropy", 0.01, loss_reduction="per_class_sum")
  weights = tf1_import.import_tf1_checkpoint(tmp_path / "model7", maml, tmp_path / "out", {"source": "by hand"})
  loaded, metadata = export.load_initialization(tmp_path / "out", network().weight_shapes)
  assert metadata["source"] == "by hand" and list(loaded) == list(weights) == list(network().weight_shapes)
  np.testing.assert_array_equal(loaded["dense/kernel"], values["w5"])
  narrow = MAML(models.ConvNet(5, filters=16, input_shape=(84, 84, 3), max_pool=True), "crossentropy", 0.01)
  with pytest.raises(UserError, match="another architecture: conv_0/kernel is"):
    tf1_import.import_tf1_checkpoint(tmp_path / "model7", narrow, tmp_path / "other")
  assert not (tmp_path / "other").exists()


def convert(*arguments):
  command = [sys.executable, str(SCRIPT), *map(str, arguments)]
  return subprocess.run(command, capture_output=True, text=True, timeout=300)


def test_the_script_writes_a_saved_model_that_adapts(tmp_path):
  values = write_by_hand(tmp_path / "model7")
  (tmp_path / "LICENSE").write_text("theirs")
  done = convert(tmp_path / "model7", tmp_path / "out")
  assert done.returncode == 0 and "32,773 weights" in done.stdout, done.stderr
  assert (tmp_path / "out" / "LICENSE").read_text() == "theirs"
  weights, metadata = export.load_initialization(tmp_path / "out", network().weight_shapes)
  np.testing.assert_array_equal(weights["dense/kernel"], values["w5"])
  assert metadata["source"] == "checkpoint model7 of the published code" and "licence" not in metadata
  config = metadata["config"]
  assert (config["update_lr"], config["loss_reduction"], config["num_classes"]) == (0.01, "per_class_sum", 5)
  module = tf.saved_model.load(str(tmp_path / "out"))
  x, y = np.random.default_rng(0).random((5, 84, 84, 3), np.float32), np.arange(5)
  maml = MAML(network(), "crossentropy", 0.01, loss_reduction="per_class_sum")
  expected = maml.adapt_final(weights, x[None], y[None], 2)
  np.testing.assert_allclose(module.adapt(x, y, 2)["dense/bias"], expected["dense/bias"][0], rtol=1e-4, atol=1e-6)


def test_the_script_names_what_it_cannot_convert(tmp_path):
  write_by_hand(tmp_path / "model7")
  for arguments, message in (
    ((), "expected the checkpoint's prefix"),
    ((tmp_path / "none", tmp_path / "out"), "no TensorFlow checkpoint here"),
    ((tmp_path / "model7", tmp_path / "out", "--datasource=omniglot"), "try --datasource=miniimagenet"),
  ):
    done = convert(*arguments)
    assert done.returncode == 1 and message in done.stderr and len(done.stderr.splitlines()) == 1, done.stderr
  assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("at", [".", "out"])
def test_what_is_no_saved_model_is_not_replaced(at, tmp_path):
  write_by_hand(tmp_path / "model7")
  if at == "out":
    (tmp_path / "out").write_text("mine")
  done = convert(tmp_path / "model7", tmp_path / at)
  assert done.returncode == 1 and str(tmp_path) in done.stderr and "name " in done.stderr, done.stderr
  assert len(done.stderr.strip().splitlines()) == 1 and (tmp_path / "model7.index").is_file()
  maml = MAML(network(), "crossentropy", 0.01)
  with pytest.raises(UserError, match=r"file|something else than a SavedModel"):
    tf1_import.import_tf1_checkpoint(tmp_path / "model7", maml, tmp_path / at)


def test_an_older_saved_model_and_an_empty_folder_may_be_written_to(tmp_path):
  (tmp_path / "empty").mkdir()
  tf1_import.check_output(tmp_path / "empty")
  (tmp_path / "older").mkdir()
  (tmp_path / "older" / "saved_model.pb").write_bytes(b"")
  tf1_import.check_output(tmp_path / "older")


def test_the_import_is_still_found_where_it_was():
  assert export.import_tf1_checkpoint is tf1_import.import_tf1_checkpoint
  assert export.read_tf1_checkpoint is tf1_import.read_tf1_checkpoint
  with pytest.raises(AttributeError, match="no attribute 'nothing'"):
    export.nothing  # noqa: B018


@pytest.fixture(scope="module")
def imported(tmp_path_factory):
  """The authors' checkpoint as a SavedModel, made by the script."""
  folder = tmp_path_factory.mktemp("imported") / "miniimagenet_1shot_published"
  done = convert(CHECKPOINT, folder)
  assert done.returncode == 0, done.stderr
  return folder


@needs_real_data
def test_the_authors_weights_are_recognised_and_keep_their_numbers(imported):
  """By a hash of names and numbers, and by the checkpoint itself."""
  weights, metadata = export.load_initialization(imported, network().weight_shapes)
  digest = hashlib.sha256()
  for name, value in weights.items():
    digest.update(name.encode() + value.numpy().tobytes())
  assert digest.hexdigest() == "86fd321259c41a89ad3e77012427b72d6e210637ff4e3c500d4392b6d458f51e"
  expected = tf1_import.read_tf1_checkpoint(CHECKPOINT)
  assert weights.keys() == expected.keys()
  for name, value in expected.items():
    np.testing.assert_array_equal(weights[name], value)
  assert "github.com/cbfinn/maml" in metadata["source"] and metadata["licence"].startswith("MIT")
  assert "Chelsea Finn" in (imported / "LICENSE").read_text()
  assert sum(path.stat().st_size for path in imported.rglob("*") if path.is_file()) < 1e6


@needs_real_data
def test_authors_checkpoint_is_at_chance_before_adapting_and_near_its_accuracy_after(tmp_path):
  """47.6 % on many test tasks; of 60, a standard error is 3 points. Thousands of tasks are results/, not a test."""
  weights = tf1_import.read_tf1_checkpoint(CHECKPOINT)
  assert sum(int(tf.size(w)) for w in weights.values()) == 32773
  bank = miniimagenet.load(REAL, tmp_path, "test")
  maml = MAML(network(), "crossentropy", 0.01, loss_reduction="per_class_sum")
  episodes = tasks.Episodes(bank, ways=5, shots=1, queries=1)

  @tf.function
  def evaluate():
    return evaluation.evaluate_blocks(evaluation.of_algorithm(maml, weights, 10), episodes, randomness.make_seed(0), 60)

  accuracy = evaluate()["accuracy"].numpy().mean(axis=1)
  assert abs(accuracy[0] - 0.2) < 0.08
  assert 0.36 < accuracy[10] < 0.60
