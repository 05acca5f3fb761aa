"""figures.py and collect.py on run directories of a few iterations; benchmark.py on what this machine has."""

import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest

SCRIPTS = pathlib.Path(__file__).parents[1] / "scripts"


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
  from maml_tf.experiments.config import resolve

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
  one_line_error(script("collect.py"), "expected the file to write")
  assert not (tmp_path / "x.json").exists()


def test_benchmark_measures_or_names_what_to_install(tmp_path):
  """PyTorch is an extra of its own: without it the script says so, with it a short run gives all ratios."""
  output = tmp_path / "benchmark.json"
  done = script("benchmark.py", "sinusoid", "--rounds=1", "--seconds=0.2", "--main_iterations=0", f"--output={output}")
  try:
    import torch  # noqa: F401
  except ImportError:
    one_line_error(done, "PyTorch is not installed", "bench")
    return
  assert done.returncode == 0, done.stderr
  measured = json.loads(output.read_text())
  assert measured["over_loop"]["maml_tf, XLA"] > 5
  assert measured["over_vmap"]["maml_tf, XLA"] > 1
