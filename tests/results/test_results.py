"""figures.py, collect.py and checkpoint.py on small runs, and on run directories made by hand."""

import json
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import pytest
import small_runs

from maml_tf.experiments import methods
from maml_tf.experiments.config import from_record, resolve, train_command
from maml_tf.results import collect, commands, figures, tables
from maml_tf.results import runs as run_directories

SCRIPTS = pathlib.Path(__file__).parents[2] / "scripts"


def script(name, *arguments, timeout=300):
  command = [sys.executable, str(SCRIPTS / name), *map(str, arguments)]
  return subprocess.run(command, capture_output=True, text=True, timeout=timeout)


def one_line_error(done, *parts):
  assert done.returncode in (1, 2) and "Traceback" not in done.stderr
  assert len(done.stderr.strip().splitlines()) == 1
  for part in parts:
    assert str(part) in done.stderr


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
  """Run directories of all four methods, seed 0, and of a second seed of MAML."""
  from maml_tf.experiments import run

  folder = tmp_path_factory.mktemp("logs")
  few = dict(logdir=str(folder), metatrain_iterations=200, eval_tasks=40, jit_compile=False, log=False)
  for settings in (
    dict(),
    dict(seed=1),
    dict(baseline="pretrain"),
    dict(baseline="oracle"),
    dict(baseline="random"),
  ):
    run.run(resolve(**few, **settings), command="test", say=lambda line: None)
  return folder


def test_figures_are_drawn_as_png_and_pdf(runs, tmp_path):
  done = script("figures.py", "sinusoid", f"--logdir={runs}", f"--output={tmp_path}")
  assert done.returncode == 0, done.stderr
  for name in ("sinusoid_figure_2", "sinusoid_figure_3"):
    assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / f"{name}.pdf").read_bytes().startswith(b"%PDF")
    assert f"{name}.png" in done.stdout


def test_missing_runs_are_named_with_the_command_that_makes_them(runs, tmp_path):
  one_line_error(script("figures.py", "sinusoid", f"--logdir={runs}", "--seed=1"), "--baseline=pretrain", "--seed=1")
  one_line_error(script("figures.py", "sinusoid", f"--logdir={tmp_path / 'none'}"), "--logdir", tmp_path / "none")
  one_line_error(script("figures.py", "triangle"), "sinusoid", "triangle")
  one_line_error(script("figures.py"), "sinusoid", "none")
  one_line_error(script("figures.py", "--colour=red"), "colour")


def test_collect_averages_over_seeds(runs, tmp_path):
  folders = [path.parent for path in runs.glob("sinusoid.maml.*/results.json")]
  assert len(folders) == 2
  output = tmp_path / "out" / "sinusoid.json"
  done = script("collect.py", output, *folders)
  assert done.returncode == 0, done.stderr
  collected = json.loads(output.read_text())
  each = [json.loads((folder / "results.json").read_text())["results"]["5"]["mse"] for folder in folders]
  np.testing.assert_allclose(collected["results"]["5"]["mean"], np.mean([e["mean"] for e in each], axis=0))
  np.testing.assert_allclose(
    collected["results"]["5"]["ci95"], np.sqrt(np.sum(np.square([e["ci95"] for e in each]), axis=0)) / 2
  )
  assert [run["seed"] for run in collected["runs"]] == [0, 1]
  assert collected["published_5_shot"] == {"1": 0.67, "5": 0.38, "10": 0.35}


def test_collect_refuses_what_does_not_belong_together(runs, tmp_path):
  folders = [next(runs.glob(f"sinusoid.{method}.*")) for method in ("maml", "oracle")]
  one_line_error(script("collect.py", tmp_path / "x.json", *folders), "differ in method")
  one_line_error(script("collect.py", tmp_path / "x.json", tmp_path), tmp_path, "name run directories")
  one_line_error(script("checkpoint.py", tmp_path), tmp_path, "name run directories")
  one_line_error(script("collect.py"), "expected the file to write")
  assert not (tmp_path / "x.json").exists()


# Runs of images, made by hand: a training would take minutes ---------------------------------------------------------


def image_run(root, seed=0, logged=700, checkpoint=500, **settings):
  """A run directory as a killed training on Omniglot leaves it, which logged more than it kept."""
  config = resolve("omniglot", seed=seed, logdir=str(root), **settings)
  folder = root / run_directories.name_of(root, config)
  (folder / "checkpoints").mkdir(parents=True)
  for iteration in (checkpoint - 250, checkpoint):
    (folder / "checkpoints" / f"model{iteration}.npz").write_bytes(b"weights")
  (folder / "config.json").write_text(json.dumps(config.to_dict()))
  rows = [f"{i},{i / 1000},{i / 2000},0.5" for i in range(1, logged + 1)]
  (folder / "metrics.csv").write_text("\n".join(["iteration,loss,query_accuracy/step_1,step_seconds", *rows, ""]))
  steps = range(11)
  header = ",".join(["iteration", *(f"accuracy/step_{k}" for k in steps)])
  rows = [",".join(map(str, [i, *(k / 20 for k in steps)])) for i in (200, 400, 600)]
  (folder / "validation.csv").write_text("\n".join([header, *rows, ""]))
  return folder


def evaluate(folder, name="evaluation", iteration=500, split="test", tasks=600, accuracy=0.9, steps=10, **settings):
  """Puts an evaluation into a run directory, as `main.py --train=False` does."""
  config = json.loads((folder / "config.json").read_text()) | {"train": False, **settings}
  summary = {"mean": [accuracy] * (steps + 1), "ci95": [0.01] * (steps + 1)}
  results = {queries: {"inner_lr": 0.4, "accuracy": summary, "loss": summary} for queries in ("1", "15")}
  content = {
    "split": split, "tasks": tasks, "results": results, "training": {"iteration": iteration}, "command": "test",
    "commit": "abc", "wall_seconds": 1.0, "versions": {}, "hardware": {}, "config": config,
  }  # fmt: skip
  (folder / f"{name}.json").write_text(json.dumps(content))


def collect_images(output, *folders):
  done = script("collect.py", output, *folders)
  assert done.returncode == 0, done.stderr
  return json.loads(output.read_text())


def test_an_unfinished_run_is_collected_up_to_its_checkpoint(tmp_path):
  collected = collect_images(tmp_path / "omniglot.json", image_run(tmp_path))
  (run,) = collected["runs"]
  assert (collected["iterations"], collected["of_iterations"], collected["results"]) == (500, 60000, {})
  assert collected["published"] == {"accuracy": 0.987, "step": 3}
  assert run["train_command"] == "python scripts/main.py --datasource=omniglot"
  assert run["seconds_of_steps"] == 250
  curve = run["learning_curve"]
  assert curve["validation"]["iteration"] == [200, 400] and curve["validation"]["accuracy/step_3"] == [0.15, 0.15]
  assert len(curve["training"]["loss"]) == 100 and curve["training"]["iteration"][-1] == 500
  assert curve["training"]["loss"][0] == pytest.approx(0.003)  # of iterations 1 to 5


def test_evaluations_of_one_checkpoint_gather_in_the_file(tmp_path):
  folder, output = image_run(tmp_path), tmp_path / "omniglot.json"
  evaluate(folder, "results", split="validation", tasks=100)
  evaluate(folder)
  assert list(collect_images(output, folder)["results"]) == ["600"]
  evaluate(folder, tasks=3000, accuracy=0.8)
  collected = collect_images(output, folder)
  assert list(collected["results"]) == ["600", "3000"]
  assert collected["results"]["3000"]["15"]["mean"][3] == 0.8
  evaluate(folder, tasks=60, update_batch_size=5, train_update_batch_size=1)
  assert list(collect_images(output, folder)["results"]) == ["600", "3000"]
  five = tmp_path / "five.json"
  assert script("collect.py", "--shots=5", five, folder).returncode == 0
  five = json.loads(five.read_text())
  assert (list(five["results"]), five["shots"], five["published"]["accuracy"]) == (["60"], 5, 0.999)


def test_evaluations_of_an_older_checkpoint_are_left_out(tmp_path):
  folder, output = image_run(tmp_path), tmp_path / "omniglot.json"
  evaluate(folder)
  collect_images(output, folder)
  (folder / "checkpoints" / "model600.npz").write_bytes(b"weights")
  collected = collect_images(output, folder)
  assert (collected["iterations"], collected["results"]) == (600, {})


def test_image_runs_of_several_seeds_are_averaged(tmp_path):
  folders = [image_run(tmp_path, seed) for seed in (0, 1)]
  for folder, accuracy in zip(folders, (0.9, 0.8), strict=True):
    evaluate(folder, accuracy=accuracy)
  collected = collect_images(tmp_path / "omniglot.json", *folders)
  np.testing.assert_allclose(collected["results"]["600"]["1"]["mean"], 0.85)
  np.testing.assert_allclose(collected["results"]["600"]["1"]["ci95"], 0.01 / np.sqrt(2))
  assert [run["seed"] for run in collected["runs"]] == [0, 1]


def test_learning_curves_are_drawn_from_the_results_files(tmp_path):
  collect_images(tmp_path / "omniglot_5way_1shot.json", image_run(tmp_path))
  young = image_run(tmp_path, seed=1)
  (young / "validation.csv").unlink()  # an hour of training may come before the first validation
  collect_images(tmp_path / "omniglot_20way_1shot_sum.json", young)
  done = script("figures.py", "images", f"--results={tmp_path}", f"--output={tmp_path / 'figures'}")
  assert done.returncode == 0, done.stderr
  assert (tmp_path / "figures" / "image_learning_curves.png").read_bytes().startswith(b"\x89PNG")
  one_line_error(script("figures.py", "images", f"--results={tmp_path / 'none'}"), "no results file of images", "none")


def test_a_kept_checkpoint_continues_to_the_same_bits(tmp_path):
  """The printed command, run as it is, in another place; the run it is compared with was never interrupted."""
  from maml_tf.experiments import run

  settings = dict(metatrain_iterations=2200, meta_batch_size=2, eval_tasks=40, jit_compile=False, log=False, seed=3)
  logs = tmp_path / "whole"
  config, command = resolve(**settings, logdir=str(logs)), f"python scripts/main.py --seed=3 --logdir={logs}"
  whole = pathlib.Path(run.run(config, command, say=lambda line: None)["directory"])
  killed = pathlib.Path(shutil.copytree(whole, tmp_path / "killed" / whole.name))
  (killed / "checkpoints" / "model2200.npz").unlink()
  done = script("checkpoint.py", f"--output={tmp_path / 'kept'}", killed)
  assert done.returncode == 0, done.stderr
  assert "iteration 2000" in done.stdout
  kept = json.loads((tmp_path / "kept" / whole.name / "training.json").read_text())
  assert kept["commands"] == [kept["starts"][0]["command"]] == ["python scripts/main.py --seed=3"]
  command = done.stdout.splitlines()[-1].replace("python scripts/main.py", f"{sys.executable} {SCRIPTS / 'main.py'}")
  again = subprocess.run(["bash", "-ec", command], cwd=tmp_path, capture_output=True, text=True, timeout=300)
  assert again.returncode == 0 and "resuming from iteration 2000" in again.stdout, again.stderr
  left, right = (
    small_runs.arrays(f / "checkpoints" / "model2200.npz") for f in (whole, tmp_path / "logs" / whole.name)
  )
  assert len(left) > 10
  assert all(left[name].tobytes() == right[name].tobytes() for name in left if name != "__metadata__")
  assert small_runs.rows(whole / "metrics.csv") == small_runs.rows(tmp_path / "logs" / whole.name / "metrics.csv")


def test_the_shortest_command_line_is_the_published_one():
  assert (
    train_command(resolve("omniglot", data_dir="/x", logdir="/y")) == "python scripts/main.py --datasource=omniglot"
  )
  twenty = resolve("omniglot", num_classes=20, loss_reduction="mean", seed=1)
  expected = "python scripts/main.py --datasource=omniglot --num_classes=20 --seed=1 --loss_reduction=mean"
  assert train_command(twenty) == expected
  five = "python scripts/main.py --datasource=miniimagenet --update_batch_size=5"
  assert train_command(resolve("miniimagenet", update_batch_size=5)) == five
  assert train_command(resolve(baseline="oracle")) == "python scripts/main.py --datasource=sinusoid --baseline=oracle"


def test_collected_commands_name_no_folder_of_the_machine_they_ran_on():
  command = "python scripts/main.py --logdir=/a/b --noconv '--data_dir=/a b' --train=False"
  content = {
    "command": command, "commands": [command], "starts": [{"command": command}], "text": "see --logdir=/a", "seed": 0,
  }  # fmt: skip
  short = "python scripts/main.py --noconv --train=False"
  assert commands.without_paths(content) == content | {
    "command": short, "commands": [short], "starts": [{"command": short}],
  }  # fmt: skip


def test_settings_are_collected_as_the_run_recorded_them(tmp_path):
  """A setting that came later is not added: an older run is collected to the same bytes by a newer package."""
  folder = image_run(tmp_path)
  record = json.loads((folder / "config.json").read_text())
  del record["validate_every"], record["image_size"]
  (folder / "config.json").write_text(json.dumps(record))
  (run,) = collect_images(tmp_path / "omniglot.json", folder)["runs"]
  assert run["config"] == {name: value for name, value in record.items() if name not in ("logdir", "data_dir")}
  assert from_record(run["config"]).validate_every == resolve("omniglot").validate_every


def test_a_method_without_steps_is_collected_tabulated_and_drawn(tmp_path, monkeypatch):
  """Its arrays have one entry, no cell of the paper is its, and no module of results/ knows it."""
  toy = methods.Method("toy", "Toy nets", "nowhere:Toy", (methods.CLASSIFICATION,), color="tab:pink")
  monkeypatch.setitem(methods.METHODS, "toy", toy)
  folder = image_run(tmp_path / "logs", learner="toy")
  assert folder.name.startswith("omniglot.toy.")
  evaluate(folder, steps=0)
  (tmp_path / "results").mkdir()
  collected = collect.collect(tmp_path / "results" / "omniglot_toy.json", [folder], tmp_path)
  assert (collected["method"], collected["published"], collected["iterations"]) == ("toy", None, 500)
  assert collected["results"]["600"]["15"]["mean"] == [0.9]
  assert collected["runs"][0]["train_command"] == "python scripts/main.py --datasource=omniglot --learner=toy"
  rows = [row for row in tables.make(tmp_path, ["images"])["images"].plain() if row["method"] == "toy"]
  assert [(row["1 query"], row["15 queries"], row["published"]) for row in rows] == [(90.0, 90.0, "not printed")]
  (figure,) = figures.images(tmp_path / "results").values()
  assert figure.axes[0].get_legend_handles_labels()[1] == ["Toy nets, 500 of 60,000"]


def test_shots_are_only_of_images(tmp_path):
  (tmp_path / "config.json").write_text(json.dumps({"datasource": "point"}))
  one_line_error(script("collect.py", "--shots=5", tmp_path / "x.json", tmp_path), "shots", "images")
