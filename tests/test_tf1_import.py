"""The published code's checkpoint: its names are mapped, its numbers survive, and it classifies."""

import pathlib

import numpy as np
import pytest
import tensorflow as tf
from real_data import REAL, needs_real_data

from maml_tf import MAML, evaluation, export, models, randomness, tasks
from maml_tf.datasets import miniimagenet
from maml_tf.errors import UserError

CHECKPOINT = pathlib.Path(REAL or "") / "cbfinn_miniimagenet_1shot" / "model59000"


def network():
  return models.ConvNet(5, filters=32, input_shape=(84, 84, 3), max_pool=True)


def test_names_and_numbers_of_a_checkpoint_written_by_hand(tmp_path):
  """The published code's variable names, written with TensorFlow 1's own saver."""
  rng = np.random.default_rng(0)
  shapes = {"conv1": (3, 3, 3, 32), "conv2": (3, 3, 32, 32), "conv3": (3, 3, 32, 32), "conv4": (3, 3, 32, 32)}
  shapes |= {"Variable": (32,), "Variable_1": (32,), "Variable_2": (32,), "Variable_3": (32,)}
  shapes |= {f"{i}/beta": (32,) for i in range(4)} | {"w5": (800, 5), "b5": (5,)}
  values = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
  with tf.Graph().as_default(), tf.compat.v1.Session() as session:
    variables = {f"model/{name}": tf.compat.v1.Variable(value) for name, value in values.items()}
    session.run(tf.compat.v1.global_variables_initializer())
    tf.compat.v1.train.Saver(variables).save(session, str(tmp_path / "model7"), write_meta_graph=False)
  weights = export.import_tf1_checkpoint(tmp_path / "model7")
  assert {n: tuple(w.shape) for n, w in weights.items()} == network().weight_shapes
  np.testing.assert_array_equal(weights["conv_0/bias"], values["Variable"])
  np.testing.assert_array_equal(weights["conv_3/bias"], values["Variable_3"])
  np.testing.assert_array_equal(weights["conv_2/kernel"], values["conv3"])
  np.testing.assert_array_equal(weights["norm_1/beta"], values["1/beta"])
  np.testing.assert_array_equal(weights["dense/kernel"], values["w5"])


def test_what_is_no_such_checkpoint_is_named(tmp_path):
  with pytest.raises(UserError, match="no TensorFlow checkpoint here"):
    export.import_tf1_checkpoint(tmp_path / "model1")
  tf.train.Checkpoint(x=tf.Variable(1.0)).write(str(tmp_path / "other"))
  with pytest.raises(UserError, match="it has no model/w5"):
    export.import_tf1_checkpoint(tmp_path / "other")


@needs_real_data
def test_authors_checkpoint_is_at_chance_before_adapting_and_near_its_accuracy_after(tmp_path):
  """47.6 % on many test tasks; of 60, a standard error is 3 points. Thousands of tasks are results/, not a test."""
  weights = export.import_tf1_checkpoint(CHECKPOINT)
  assert sum(int(tf.size(w)) for w in weights.values()) == 32773
  bank = miniimagenet.load(REAL, tmp_path, "test")
  maml = MAML(network(), "crossentropy", 0.01, loss_reduction="per_class_sum")
  episodes = tasks.Episodes(bank, ways=5, shots=1, queries=1)

  @tf.function
  def evaluate():
    return evaluation.evaluate_blocks(
      lambda batch: maml.evaluate(weights, batch, 10), episodes, randomness.make_seed(0), 60
    )

  accuracy = evaluate()["accuracy"].numpy().mean(axis=1)
  assert abs(accuracy[0] - 0.2) < 0.08
  assert 0.36 < accuracy[10] < 0.60
