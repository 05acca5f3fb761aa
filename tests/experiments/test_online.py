"""Streams of tasks on the command line: they train, resume, report, export, are collected, tabulated and drawn."""

import json
import re

import numpy as np
import pytest
import tensorflow as tf
from small_runs import arrays

from maml_tf.datasets import image_sequence, locate, mnist
from maml_tf.errors import UserError
from maml_tf.experiments.config import check_paths, resolve
from maml_tf.experiments.run import run
from maml_tf.online import heads
from maml_tf.results import collect, figures, online_tables
from maml_tf.results.store import Store

QUIET = dict(log=False, export=False, validate_every=1)
SMALL = dict(num_tasks=3, meta_updates=1, meta_batch_size=2, num_filters=2, log=False)


def quadratics(logdir, method="ftml", **settings):
  return resolve("quadratics", learner=method, logdir=str(logdir), **(dict(num_tasks=12) | QUIET | settings))


def test_quadratics_resume_report_and_are_drawn(tmp_path):
  said = []
  whole = run(quadratics(tmp_path / "whole"), say=said.append)
  run(quadratics(tmp_path / "parts", metatrain_iterations=5), say=lambda line: None)
  parts = run(quadratics(tmp_path / "parts"), say=lambda line: None)
  states = [arrays(f"{r['directory']}/checkpoints/model12.npz") for r in (whole, parts)]
  assert {n: v.tobytes() for n, v in states[0].items()} == {n: v.tobytes() for n, v in states[1].items()}
  assert whole["results"]["rounds"][-1] == 12 and whole["results"]["regret"] == parts["results"]["regret"]
  assert any(line.startswith("after 10 tasks") for line in said)
  assert list((tmp_path / "whole").glob("*/plots/regret.png"))
  again = run(quadratics(tmp_path / "whole", train=False), say=lambda line: None)
  assert again["results"] == whole["results"]


def test_runs_of_two_seeds_become_a_row_and_a_curve(tmp_path):
  (tmp_path / "results").mkdir()
  for method in ("ftml", "toe"):
    folders = [run(quadratics(tmp_path / "logs", method, seed=seed), say=print)["directory"] for seed in (0, 1)]
    collect.collect(tmp_path / "results" / f"quadratics_{method}.json", folders, tmp_path)
  content = json.loads((tmp_path / "results" / "quadratics_ftml.json").read_text())
  regrets = [dict(zip(r["results"]["rounds"], r["results"]["regret"], strict=True))[10] for r in content["runs"]]
  found = content["results"]["regret_after_10"]
  np.testing.assert_allclose(found["mean"], np.mean(regrets))
  np.testing.assert_allclose(found["ci95"], 1.96 * np.std(regrets, ddof=1) / np.sqrt(2))
  table = online_tables.makers(Store(tmp_path))["online_regret"]()
  labels = [row[0].partition(",")[0] for row in table.rows]
  assert labels == ["from scratch", "train on everything", "FTL", "FTML"]
  assert table.rows[3][1].value == found["mean"] and table.rows[0][1] == "not run"
  assert list(figures.online(tmp_path / "results")) == ["online_regret"]


@pytest.fixture
def data_dir(tmp_path, monkeypatch):
  """MNIST's layout, with as many images as one colour needs: 800 of each digit."""
  for name, value in (("NUM_TRAIN", 7_000), ("NUM_TEST", 1_000), ("NUM_VALIDATION", 1_000)):
    monkeypatch.setattr(mnist, name, value)
  rng = np.random.default_rng(0)
  arrays = {}
  for part, count in (("train", 700), ("test", 100)):
    arrays[f"y_{part}"] = np.tile(np.arange(10, dtype=np.uint8), count)
    arrays[f"x_{part}"] = rng.integers(0, 256, [10 * count, 28, 28]).astype(np.uint8)
  (tmp_path / "data" / "mnist").mkdir(parents=True)
  np.savez(tmp_path / "data" / "mnist" / "mnist.npz", **arrays)
  return str(tmp_path / "data")


def test_rainbow_mnist_walks_and_exports(tmp_path, data_dir):
  """The first task after a warm start, to its end, and into the next."""
  said = []
  config = resolve(
    "rainbow_mnist", learner="ftml", data_dir=data_dir, logdir=str(tmp_path / "logs"), colors="ff0000",
    warm_start_tasks=1, warm_start_updates=2, metatrain_iterations=48, **SMALL,
  )  # fmt: skip
  results = run(config, say=said.append)
  found = results["results"]
  assert (found["tasks"], found["of_tasks"], found["first_task"]) == (1, 2, 1)
  assert found["amounts"] == list(range(20, 901, 20)) and np.shape(found["accuracy"]) == (1, 45)
  assert set(found["accuracy_after"]) == {"20", "100", "900"} and len(found["names"]) == 1
  assert any("1 of 2 tasks have arrived" in line for line in said)
  loaded = tf.saved_model.load(f"{results['directory']}/saved_model")
  x = np.random.default_rng(0).uniform(size=(4, 28, 28, 3)).astype(np.float32)
  assert loaded.adapt_and_predict(x, np.arange(4), x, 2).shape == (4, 10)
  (tmp_path / "results").mkdir()
  collect.collect(tmp_path / "results" / "rainbow.json", [results["directory"]], tmp_path)
  assert list(figures.online(tmp_path / "results")) == ["rainbow_mnist"]
  (row,) = [r for r in online_tables.makers(Store(tmp_path))["online"]().rows if r[0].startswith("FTML, `")]
  assert row[-2] == "1 of 2"


def states(*results, iteration):
  """The bytes of every tensor in the checkpoints of two runs."""
  found = [arrays(f"{r['directory']}/checkpoints/model{iteration}.npz") for r in results]
  return [{name: value.tobytes() for name, value in state.items()} for state in found]


def test_poses_walk_and_resume(tmp_path):
  shared = dict(
    learner="ftml", renderer="numpy", image_size=16, num_tasks=2, examples_per_task=40, warm_start_tasks=0,
    meta_updates=1, meta_batch_size=2, num_filters=2, inner_batch=2, num_updates=1, data_dir=str(tmp_path), **QUIET,
  )  # fmt: skip
  whole = run(resolve("pose", logdir=str(tmp_path / "whole"), **shared), say=print)
  said = []
  run(resolve("pose", logdir=str(tmp_path / "parts"), metatrain_iterations=3, **shared), say=print)
  parts = run(resolve("pose", logdir=str(tmp_path / "parts"), **shared), say=said.append)
  first, second = states(whole, parts, iteration=4)
  assert first == second and whole["results"] == parts["results"]
  assert set(whole["results"]["loss_after"]) == {"20"} and np.shape(whole["results"]["loss"]) == (2, 2)
  assert any(line.startswith("images to error 0.05") for line in said)
  assert list((tmp_path / "whole").glob("*/plots/pose.png"))
  (tmp_path / "results").mkdir()
  for name in ("one", "two"):
    collect.collect(tmp_path / "results" / f"{name}.json", [parts["directory"]], tmp_path)
  (figure,) = figures.online(tmp_path / "results").values()
  labels = [text.get_text() for text in figure.legends[0].get_texts()]
  assert len(labels) == 2 and labels[0].endswith("(one)") and labels[1].endswith("(two)")
  rows = [row for row in online_tables.makers(Store(tmp_path))["online_pose"]().rows if row[0].startswith("FTML, `")]
  assert len(rows) == 2


def test_trained_on_everything_there_is_a_head_for_each_task(tmp_path, monkeypatch):
  """Classes that arrive in sequence, with images that tell the class."""
  rng = np.random.default_rng(0)
  labels = np.tile(np.arange(5, dtype=np.int32), 40)
  images = rng.integers(0, 20, [20, 200, 32, 32, 3]).astype(np.uint8) + np.uint8(40 * labels)[:, None, None, None]

  def load(data_dir, name, seed, examples):
    return images[:, : examples + 100], labels[: examples + 100], [f"task {k}" for k in range(20)]

  monkeypatch.setattr(image_sequence, "load", load)
  shared = dict(
    learner="toe", images="miniimagenet", num_tasks=2, examples_per_task=50, meta_updates=2, meta_batch_size=2,
    num_filters=2, log=False, validate_every=1,
  )  # fmt: skip
  whole = run(resolve("image_sequence", logdir=str(tmp_path / "whole"), **shared), say=print)
  run(resolve("image_sequence", logdir=str(tmp_path / "parts"), metatrain_iterations=1, **shared), say=print)
  parts = run(resolve("image_sequence", logdir=str(tmp_path / "parts"), **shared), say=print)
  first, second = states(whole, parts, iteration=2)
  assert first == second
  assert ".miniimagenet." in whole["directory"] and set(whole["results"]["accuracy_after"]) == {"50"}
  assert arrays(f"{whole['directory']}/checkpoints/model2.npz")["weights:dense/bias"].shape == (10,)


def test_a_head_is_that_of_its_label():
  outputs = np.random.default_rng(0).normal(size=(2, 3, 6)).astype(np.float32)
  labels = np.array([[0, 4, 2], [5, 3, 1]], np.int32)
  within, logits = heads.own_head(2, tf.constant(labels), tf.constant(outputs))
  np.testing.assert_array_equal(within, [[0, 0, 0], [1, 1, 1]])
  for index in np.ndindex(2, 3):
    first = 2 * (labels[index] // 2)
    np.testing.assert_array_equal(logits[index], outputs[index][first : first + 2])


@pytest.mark.parametrize(("datasource", "settings", "says"), [
  ("image_sequence", dict(examples_per_task=70), "--examples_per_task=70: expected a multiple of 50"),
  ("image_sequence", dict(num_tasks=21), "--num_tasks=21: expected at most 20, five classes each"),
  ("image_sequence", dict(renderer="numpy"), "--renderer=numpy: expected no such flag here"),
  ("pose", dict(num_tasks=91), "--num_tasks=91: expected at most 90"),
  ("pose", dict(image_size=8), "--image_size=8: expected at least 16"),
  ("pose", dict(renderer="blender"), "--renderer=blender: expected one of mujoco, numpy"),
  ("pose", dict(threshold=0.0), "--threshold=0.0: expected a number between 0 and 1"),
  ("pose", dict(judge_growth=0.9), "--judge_growth=0.9: expected a factor of at least 1"),
  ("pose", dict(learner="toe", support_reduction="mean"), "--support_reduction=mean: expected no such flag, or --grad"),
  ("pose", dict(learner="scratch", current_in_buffer=False), "--current_in_buffer=False: expected no such flag, or a"),
  ("quadratics", dict(eval_tasks=5), "--eval_tasks=5: expected no such flag here: the domain online has no such"),
  ("rainbow_mnist", dict(validation_tasks=5), "--validation_tasks=5: expected no such flag here: the domain online"),
  ("pose", dict(test_set=True), "--test_set=True: expected no such flag here: the domain online has no such setting"),
  ("pose", dict(train=False, test_iter=3), "--test_iter=3: expected no such flag here: the domain online has no such"),
  ("rainbow_mnist", dict(eval_queries=100), "--eval_queries=100: expected no such flag here: the domain online"),
])  # fmt: skip
def test_what_a_stream_does_not_use_is_refused(datasource, settings, says):
  with pytest.raises(UserError, match=f"^{re.escape(says)}"):
    resolve(datasource, **({"learner": "ftml"} | settings))


def test_missing_data_is_one_line(tmp_path, monkeypatch):
  monkeypatch.setattr(locate, "reachable", lambda url: False)
  monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
  for config, name in (
    (resolve("rainbow_mnist", learner="ftml", data_dir=str(tmp_path)), "MNIST"),
    (resolve("image_sequence", learner="ftml", data_dir=str(tmp_path)), "CIFAR-100"),
    (resolve("image_sequence", learner="ftml", images="miniimagenet", data_dir=str(tmp_path)), "miniImageNet"),
  ):
    with pytest.raises(UserError, match=f"^--data_dir={tmp_path}: no {name} here"):
      check_paths(config)


@pytest.mark.parametrize(("settings", "says"), [
  (dict(threshold=1.5), "--threshold=1.5: expected a number between 0 and 1"),
  (dict(inner_batch=21), "--inner_batch=21: expected at most 20"),
  (dict(num_tasks=57), "--num_tasks=57: expected at most 56"),
  (dict(num_tasks=10), "--warm_start_tasks=20: expected fewer than --num_tasks=10"),
  (dict(colors="red"), "--colors=red: expected 1 to 7 different colours"),
  (dict(learner="scratch", warm_start_tasks=2), "--warm_start_tasks=2: expected 0 from scratch"),
  (dict(warm_start_tasks=0, warm_start_updates=5), "--warm_start_updates=5: expected no such flag, or --warm_start_"),
  (dict(metatrain_iterations=5000), "--metatrain_iterations=5000: expected at most 1640, the stream's rounds"),
  (dict(learner="toe", grad_steps=1), "--grad_steps=1: expected no such flag here: --learner=toe has no such"),
  (dict(label_smoothing=1.0), "--label_smoothing=1.0: expected a share"),
])  # fmt: skip
def test_bad_settings_are_one_line(settings, says):
  with pytest.raises(UserError, match=f"^{re.escape(says)}"):
    resolve("rainbow_mnist", **({"learner": "ftml"} | settings))


def test_other_learners_are_refused_on_a_stream():
  with pytest.raises(UserError, match="expected one of scratch, toe, ftl, ftml_head, ftml, with this --datasource"):
    resolve("quadratics", learner="maml")
