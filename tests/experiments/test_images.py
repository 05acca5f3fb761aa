"""Runs on images: synthetic folders through the whole command, and the real data where it is there.

The folder's images are 16 x 16, so that a run takes seconds.
"""

import dataclasses
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import small_runs
from PIL import Image
from real_data import REAL, needs_real_data
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from maml_tf import tf1_import
from maml_tf.datasets.records import DataSet
from maml_tf.errors import UserError
from maml_tf.experiments import run
from maml_tf.experiments.config import resolve
from maml_tf.experiments.domains.images import experiment as images
from maml_tf.experiments.domains.images import plots as image_plots
from maml_tf.training import checkpoints

SCRIPT = pathlib.Path(__file__).parents[2] / "scripts" / "main.py"

OFTEN = dict(log_every=10, validate_every=20, checkpoint_every=20, validation_tasks=20)
SETTINGS = OFTEN | dict(
  datasource="folder", image_size=16, num_classes=3, num_filters=8, max_pool=False, meta_batch_size=4, update_lr=0.1,
  eval_updates=3, eval_tasks=40, meta_lr=0.01,
)  # fmt: skip
ITERATIONS = 60


def make_folder(root, sizes=(20, 18, 18)):
  """Classes are patterns of 4 x 4 colours, images are noisy ones; `sizes`: images per class in train, val and test."""
  rng = np.random.default_rng(0)
  for split, classes, size in zip(("train", "val", "test"), (12, 4, 4), sizes, strict=True):
    for c in range(classes):
      folder = root / split / f"{split}_{c}"
      folder.mkdir(parents=True)
      pattern = rng.integers(40, 216, (4, 4, 3))
      for i in range(size):
        noisy = np.clip(pattern + rng.integers(-60, 61, (4, 4, 3)), 0, 255).astype(np.uint8)
        Image.fromarray(noisy).resize((16, 16), Image.Resampling.NEAREST).save(folder / f"{i}.png")
  return root


@pytest.fixture(scope="session")
def data(tmp_path_factory):
  return make_folder(tmp_path_factory.mktemp("patterns"))


@pytest.fixture(scope="session")
def trained(data, tmp_path_factory):
  """What `run` returns, and the log directory, which is not to be written to."""
  logdir = tmp_path_factory.mktemp("trained")
  return go(data, logdir, metatrain_iterations=ITERATIONS), logdir


@pytest.fixture
def copied(trained, tmp_path):
  """A copy of the log directory of one's own."""
  return pathlib.Path(shutil.copytree(trained[1], tmp_path / "logs"))


def go(data, logdir, said=None, **given):
  steps = {} if "baseline" in given else {"num_updates": 1}
  config = resolve(**(SETTINGS | steps | {"data_dir": data, "logdir": logdir} | given))
  return run.run(config, say=lambda line: None if said is None else said.append(line))


def folder_of(logdir):
  (path,) = pathlib.Path(logdir).iterdir()
  return path


# A run, from beginning to end -----------------------------------------------------------------------------------------


def test_a_run_learns_and_starts_at_chance(trained, data, tmp_path):
  results = trained[0]["results"]
  untrained = go(data, tmp_path, baseline="random", export=False)["results"]
  assert list(results) == ["1", "15"]
  for learned, drawn in zip(results.values(), untrained.values(), strict=True):
    mean, ci95 = learned["accuracy"]["mean"], learned["accuracy"]["ci95"]
    assert len(mean) == len(ci95) == 4
    assert abs(mean[0] - 1 / 3) < 2 * ci95[0]
    assert mean[3] > 0.6
    assert mean[1] > drawn["accuracy"]["mean"][1] + 0.1  # one step is what it was trained for
  assert results["15"]["accuracy"]["ci95"][0] < results["1"]["accuracy"]["ci95"][0]


def test_a_run_directory_holds_what_is_promised(trained):
  path = folder_of(trained[1])
  assert path.name.startswith("folder.maml.cls_3.mbs_4.ubs_1.numstep1.updatelr0.1.hidden8.batchnorm.seed0-")
  for name in ("config.json", "results.json", "metrics.csv", "plots/accuracy.png", "plots/episode.png"):
    assert (path / name).stat().st_size > 0, name
  assert [row["iteration"] for row in small_runs.rows(path / "validation.csv")] == ["20", "40", "60"]
  _, metadata = checkpoints.read(path / "checkpoints" / "best.npz")
  accuracies = [float(row["accuracy/step_3"]) for row in small_runs.rows(path / "validation.csv")]
  assert metadata["best"]["metric"] == "accuracy/step_3"
  assert metadata["best"]["score"] == pytest.approx(max(accuracies))


def test_tensorboard_shows_an_episode(trained):
  events = EventAccumulator(str(folder_of(trained[1]) / "events"))
  events.Reload()
  assert {"episode", "validation/accuracy/step_3"} <= set(events.Tags()["tensors"])
  (event,) = events.Tensors("episode")
  assert event.step == ITERATIONS
  assert event.tensor_proto.string_val[2].startswith(b"\x89PNG")


def test_the_exported_model_adapts_with_tensorflow_alone(trained):
  import tensorflow as tf

  module = tf.saved_model.load(str(folder_of(trained[1]) / "saved_model"))
  x, y = np.random.default_rng(0).random((3, 16, 16, 3), np.float32), np.arange(3)
  assert module.adapt_and_predict(x, y, x, 5).shape == (3, 3)
  assert np.array_equal(np.argmax(module.adapt_and_predict(x, y, x, 20), 1), y)


def test_evaluation_repeats_the_results_and_loads_no_other_classes(monkeypatch, copied, data, trained):
  loaded, original = [], DataSet.load
  monkeypatch.setattr(
    DataSet, "load", lambda self, folder, part, *a: loaded.append(part) or original(self, folder, part, *a)
  )
  assert go(data, copied, train=False)["results"] == trained[0]["results"]
  assert loaded == ["val"]
  of_test = go(data, copied, train=False, test_set=True)
  assert (loaded, of_test["split"]) == (["val", "test"], "test")
  assert of_test["results"] != trained[0]["results"]


def test_evaluation_with_other_shots_finds_the_training(copied, data):
  said = []
  five = go(data, copied, said, train=False, update_batch_size=5, train_update_batch_size=1)
  assert "after 60 iterations" in said[1]
  assert list(five["results"]) == ["1", "5"]  # 5 shots leave 13 of the 18 images
  assert any("15 queries per class" in line and "left out: class val_0 has 18 images, 5 of" in line for line in said)


def test_what_is_loaded_and_passed_over_is_said_and_is_no_other_run(copied, trained, data, tmp_path):
  littered = pathlib.Path(shutil.copytree(data, tmp_path / "littered"))
  for part in ("train", "val"):
    for name in (".DS_Store", "Thumbs.db", "photo.heic"):
      (littered / part / f"{part}_0" / name).write_bytes(b"no image that is read")
  said = []
  go(littered, copied, said, metatrain_iterations=ITERATIONS)
  assert said[:2] == [
    "folder train: 12 classes, 240 images; passed over 1 file of other kinds: 1 .heic",
    "folder val: 4 classes, 72 images; passed over 1 file of other kinds: 1 .heic",
  ]
  assert f"already trained to iteration {ITERATIONS}" in said


def test_a_run_that_dies_continues_to_the_same_bits(monkeypatch, data, trained, tmp_path):
  class Death(BaseException):
    """Unlike Ctrl-C, it leaves no time for a checkpoint."""

  def die(self):
    def callback(iteration, state, board):
      if iteration == 40:
        raise Death

    return callback

  with monkeypatch.context() as patch, pytest.raises(Death):
    patch.setattr(images.ImageExperiment, "on_validation", die)
    go(data, tmp_path, metatrain_iterations=ITERATIONS)
  said = []
  # Other settings would be other metadata in the checkpoints.
  killed = go(data, tmp_path, said, metatrain_iterations=ITERATIONS)
  assert "resuming from iteration 20" in said
  small_runs.assert_same_run(folder_of(tmp_path), folder_of(trained[1]), ITERATIONS)
  assert killed["results"] == trained[0]["results"]


def test_init_from_evaluates(trained, data, tmp_path):
  model = folder_of(trained[1]) / "saved_model"
  evaluated = go(data, tmp_path / "evaluated", init_from=model, train=False)
  assert evaluated["results"] == trained[0]["results"]
  with pytest.raises(UserError, match="another architecture"):
    go(data, tmp_path / "other", init_from=model, num_classes=2, train=False)


def test_the_fully_connected_network_trains(data, tmp_path):
  flags = dict(conv=False, metatrain_iterations=2, eval_tasks=5, eval_queries=1, export=False, log=False)
  go(data, tmp_path, **flags)
  assert ".fc.batchnorm." in folder_of(tmp_path).name


# Data that does not fit -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("given", "message"), [
  ({"num_classes": 5}, "--num_classes=5: the data set has only 4 classes"),
  ({"update_batch_size": 6}, "class train_0 has 20 images, but 6 shots and 15 queries need 21"),
  ({"update_batch_size": 18, "train": False, "baseline": "random"}, "class val_0 has 18 images, but 18 shots and 1 "),
])  # fmt: skip
def test_too_little_data_is_named_and_leaves_nothing(data, tmp_path, given, message):
  with pytest.raises(UserError, match=message):
    go(data, tmp_path, **given)
  assert not list(tmp_path.iterdir())


def test_a_truncated_image_is_named_and_leaves_no_run(data, tmp_path):
  broken = pathlib.Path(shutil.copytree(data, tmp_path / "data"))
  image = broken / "train" / "train_1" / "3.png"
  image.write_bytes(image.read_bytes()[:40])
  with pytest.raises(UserError, match=r"train_1/3\.png: not a readable image"):
    go(broken, tmp_path / "logs")
  assert not (tmp_path / "logs").exists()


def test_other_classes_are_another_run(data, tmp_path):
  other = pathlib.Path(shutil.copytree(data, tmp_path / "data"))
  (other / "train" / "train_0").rename(other / "train" / "renamed")
  experiments = [images.ImageExperiment(resolve(**SETTINGS, data_dir=d)) for d in (data, other)]
  names = [run.run_directory(e.config, data_fingerprint=e.data_fingerprint()).path.name for e in experiments]
  assert names[0] != names[1]


def test_the_cache_lies_beside_the_data_or_at_home(data, tmp_path, monkeypatch):
  from maml_tf.datasets import locate

  assert locate.cache_folder(data) == data / "maml_tf_cache"
  monkeypatch.setattr(os, "access", lambda path, mode: False)
  monkeypatch.setenv("HOME", str(tmp_path))
  assert locate.cache_folder(data) == tmp_path / ".cache" / "maml_tf" / "banks"


# What the datasource decides ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("given", "weight", "shape"), [
  ({"datasource": "omniglot"}, "dense/kernel", (64, 5)),
  ({"datasource": "omniglot", "max_pool": True, "num_classes": 20}, "dense/kernel", (64, 20)),
  ({"datasource": "miniimagenet"}, "dense/kernel", (800, 5)),
  ({"datasource": "omniglot", "conv": False}, "dense_0/kernel", (784, 256)),
  ({"datasource": "omniglot", "conv": False}, "dense_4/kernel", (64, 5)),
])  # fmt: skip
def test_the_networks_are_the_published_ones(given, weight, shape):
  assert images.make_model(resolve(**given)).weight_shapes[weight] == shape


@pytest.mark.parametrize(("datasource", "limit"), [("omniglot", None), ("miniimagenet", 10.0)])
def test_only_miniimagenet_clips(datasource, limit):
  learner = images.ImageExperiment(resolve(datasource, train=False)).learner()
  assert learner.optimizer.clip_value == limit
  assert learner.algorithm.loss_reduction == "per_class_sum"


def test_the_table_puts_the_published_figure_under_its_step():
  config = resolve("omniglot", train=False, test_set=True)
  summary = {"mean": [k / 20 for k in range(11)], "ci95": [0.01] * 11}
  results = {queries: {"inner_lr": 0.4, "accuracy": summary, "loss": summary} for queries in ("1", "15")}
  title, header, one, fifteen, published, note = images.ImageExperiment(config).report(results).lines()
  assert title == "Accuracy in %, omniglot 5-way 1-shot, maml, alpha 0.4, 600 test tasks, 95 % intervals"
  assert [one[k : k + 15].strip() for k in range(24, 84, 15)] == [
    "0.00 ± 1.00", "5.00 ± 1.00", "15.00 ± 1.00", "25.00 ± 1.00"]  # fmt: skip
  assert fifteen.startswith("15 queries per class")
  assert header.index("3 steps") + 7 == one.index("15.00 ± 1.00") + 12
  assert published.split() == ["published", "(table", "1)", "98.70"]
  assert published.index("98.70") == one.index("15.00 ± 1.00")
  assert note == "The published 98.7 % is read after 3 steps, on test tasks with 1 query per class."


@pytest.mark.parametrize(("datasource", "said"), [
  ("omniglot", "1 query per class, to judge by its interval."), ("miniimagenet", "5 queries per class."),
])  # fmt: skip
def test_the_table_says_how_many_queries_a_published_5_shot_figure_had(datasource, said):
  config = resolve(datasource, train=False, test_set=True, update_batch_size=5, train_update_batch_size=1)
  summary = {"mean": [0.5] * 11, "ci95": [0.01] * 11}
  results = {queries: {"inner_lr": 0.4, "accuracy": summary, "loss": summary} for queries in ("1", "5", "15")}
  assert images.ImageExperiment(config).report(results).lines()[-1].endswith(f"on test tasks with {said}")


def test_plots_of_grey_images_and_many_classes():
  ways, rng = 20, np.random.default_rng(0)
  labels = np.repeat(np.arange(ways), 2)
  content = {
    "support_x": rng.random((ways, 8, 8, 1)), "support_y": np.arange(ways), "query_x": rng.random((2 * ways, 8, 8, 1)),
    "query_y": labels, "before": labels[::-1], "after": labels, "steps": 3,
  }  # fmt: skip
  figure = image_plots.episode(content)
  assert len(figure.axes) == image_plots.MOST_CLASSES * 3
  assert figure.axes[1].get_title() == "19 → 0"


# Real data ------------------------------------------------------------------------------------------------------------


@needs_real_data
@pytest.mark.parametrize("flags", [
  ["--datasource=omniglot", "--meta_batch_size=2", "--update_batch_size=1", "--update_lr=0.4", "--num_updates=1"],
  ["--datasource=omniglot", "--meta_batch_size=2", "--num_updates=1", "--split=alphabets", "--noconv"],
], ids=str)  # fmt: skip
def test_real_omniglot_trains_and_is_evaluated_with_five_shots(script, tmp_path, capfd, flags):
  small = (
    "--eval_tasks=20",
    "--eval_queries=1",
    "--eval_updates=3",
    "--num_filters=16",
    "--metatrain_iterations=3",
    "--noexport",
    "--nolog",
    f"--logdir={tmp_path}",
  )
  assert script.main(["main.py", *flags, *small]) == 0
  more = ("--train=False", "--test_set=True", "--update_batch_size=5", "--train_update_batch_size=1")
  assert script.main(["main.py", *(f for f in flags if "batch_size=1" not in f), *small, *more]) == 0
  out, err = capfd.readouterr()
  assert err == ""
  assert "after 3 iterations" in out
  assert "5-shot" in out
  assert ("published (table 1)" in out) == ("--split=alphabets" not in flags)  # no comparison with other classes
  assert len(list(tmp_path.iterdir())) == 1


@needs_real_data
def test_a_killed_training_on_real_omniglot_continues_to_the_same_bits(tmp_path):
  settings = OFTEN | dict(
    datasource="omniglot", data_dir=REAL, num_filters=8, meta_batch_size=2, metatrain_iterations=ITERATIONS,
    eval_tasks=20, eval_updates=1, eval_queries=1, export=False, log=False,
  )  # fmt: skip
  killed, whole = (settings | {"logdir": str(tmp_path / name)} for name in ("killed", "whole"))
  flags = [f"--{name}={value}" for name, value in killed.items()]
  with subprocess.Popen([sys.executable, str(SCRIPT), *flags], stdout=subprocess.DEVNULL) as process:
    while process.poll() is None and not list(tmp_path.glob("killed/*/checkpoints/model20.npz")):
      time.sleep(0.01)
    process.kill()
  assert process.returncode == -signal.SIGKILL
  said = []
  for given in (killed, whole):
    run.run(resolve(**given), say=said.append)
  assert sum(line.startswith("resuming from iteration") for line in said) == 1
  small_runs.assert_same_run(folder_of(tmp_path / "killed"), folder_of(tmp_path / "whole"), ITERATIONS)
  starts = json.loads((folder_of(tmp_path / "killed") / "training.json").read_text())["starts"]
  assert len(starts) == 2 and starts[0]["iteration"] == 0 and starts[1]["iteration"] >= 20


@needs_real_data
def test_the_published_checkpoint_classifies_real_miniimagenet():
  """The authors' own weights, on few tasks and steps: 47.6 % take 3,000 tasks and ten steps, and so minutes."""
  weights = tf1_import.read_tf1_checkpoint(pathlib.Path(REAL) / "cbfinn_miniimagenet_1shot" / "model59000")
  config = resolve(
    "miniimagenet", train=False, test_set=True, eval_tasks=20, eval_updates=3, eval_queries=1, data_dir=REAL
  )
  accuracy = images.ImageExperiment(config).evaluate(weights)["1"]["accuracy"]
  assert accuracy["mean"][0] == pytest.approx(0.2, abs=0.1)
  assert accuracy["mean"][3] > 0.3


@needs_real_data
def test_real_miniimagenet_makes_published_tasks():
  config = dataclasses.replace(resolve("miniimagenet", data_dir=REAL), test_set=True)
  experiment = images.ImageExperiment(config)
  batch = experiment._episodes("test", 1, 15).sample([0, 1], 2)
  assert batch.support_x.shape == (2, 5, 84, 84, 3) and batch.query_y.shape == (2, 75)
  assert 0.3 < float(np.mean(batch.query_x)) < 0.6 and float(np.max(batch.query_x)) <= 1.0


# Baselines ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("baseline", ["finetune", "neighbour"])
def test_a_classifier_of_all_classes_trains_and_knows_new_ones(data, tmp_path, baseline):
  given = dict(baseline=baseline, metatrain_iterations=40, update_lr=None, meta_batch_size=None, log=False,
               eval_queries=15, eval_tasks=20, checkpoint_every=40, validate_every=40)  # fmt: skip
  given |= {} if baseline == "finetune" else {"eval_updates": None}
  content = go(data, tmp_path, **given)
  results = content["results"]["15"]
  assert results["accuracy"]["mean"][-1] > 0.6  # chance is 1/3
  rows = small_runs.rows(folder_of(tmp_path) / "metrics.csv")
  assert float(rows[-1]["classes_accuracy"]) > 3 / 12 > 3 * float(rows[0]["classes_accuracy"]) / 12
  if baseline == "finetune":
    tried = results["step_sizes_tried"]
    assert f"{results['inner_lr']:g}" == min(tried, key=lambda size: tried[size] or np.inf)
  module = images.tf.saved_model.load(f"{content['directory']}/saved_model")
  rng = np.random.default_rng(0)
  x, y = rng.random((6, 16, 16, 3), np.float32), np.arange(6) % 3
  assert module.adapt_and_predict(x, y, x, 2).shape == (6, 3)
