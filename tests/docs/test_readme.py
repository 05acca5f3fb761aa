"""The README's own examples run, and its commands exist."""

import importlib.util
import json
import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language):
  return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def numbers_in(text):
  return [float(number) for number in re.findall(r"-?\d+\.\d*", text)]


def run_script(text, folder, timeout):
  script = folder / "examples.py"
  script.write_text(text, encoding="utf-8")
  done = subprocess.run([sys.executable, str(script)], cwd=folder, capture_output=True, text=True, timeout=timeout)
  assert done.returncode == 0, done.stderr[-3000:]
  return done.stdout


def test_python_examples_run_in_order(tmp_path):
  out = run_script("\n".join(blocks("python")), tmp_path, timeout=400)
  arrays = [numbers_in(text) for text in re.findall(r"\[([^\[\]]*)\]", out)]
  losses = next(numbers for numbers in arrays if len(numbers) == 6)
  assert losses[5] < 0.5 * losses[0]
  # The last example adapts to y = 2 x + 1 and predicts at x = 2.
  assert re.search(r"\[\[\s*-?\d", out)
  # The policy of one's own Gymnasium environments gains by a step: over all tasks, and in one from the SavedModel.
  before, after = numbers_in(re.search(r"mean return before and after a step: (.*)", out)[1])
  assert after > before + 1
  before, after = (numbers_in(re.search(rf"return at 0.8, {when}: (.*)", out)[1])[0] for when in ("before", "after"))
  assert after > before + 1


def test_example_of_tf_agents_runs(tmp_path):
  """By itself: which Keras tf-agents gets is decided once in a process."""
  if importlib.util.find_spec("tf_agents") is None:
    pytest.skip("tf-agents is not installed (it has no version for Python 3.12)")
  (example,) = blocks("py")
  # 20 steps and a boundary, in each of four environments
  assert run_script(example, tmp_path, timeout=200).split("\n")[0] == "21 (4, 2)"


def test_commands_name_scripts_and_flags_that_exist():
  from maml_tf.experiments.config import Config

  names = set(Config.__dataclass_fields__) | {"output", "logdir", "seed", "rounds", "seconds"}
  commands = [line for block in blocks("bash") for line in block.splitlines() if "scripts/" in line]
  assert commands
  for line in commands:
    assert (ROOT / re.search(r"scripts/\w+\.py", line)[0]).is_file()
    assert set(re.findall(r"--(\w+)=", line)) <= names, line


def test_every_place_in_the_house_plan_exists():
  plan = README.split("## Where things are")[1]
  for path in re.findall(r"^(\S+/\S*)\s", plan, re.MULTILINE):
    assert (ROOT / path).exists(), path


def test_result_tables_are_those_of_the_results_files():
  done = subprocess.run([sys.executable, str(ROOT / "scripts/tables.py")], capture_output=True, text=True, timeout=60)
  tables = done.stdout.strip().split("\n\n")
  assert done.returncode == 0 and len(tables) >= 4, done.stderr
  for table in tables:
    assert table in README
  (pretrained,) = (table for table in tables if table.startswith("| folder"))
  assert pretrained in (ROOT / "pretrained" / "README.md").read_text(encoding="utf-8")


def test_results_files_of_images_say_how_they_were_made():
  """Every one has its published figure, its commands, and what an unfinished training goes on from."""
  files = [path for path in sorted((ROOT / "results").glob("*.json")) if path.name.startswith(("omniglot", "mini"))]
  for path in files:
    content = json.loads(path.read_text(encoding="utf-8"))
    assert content["published"]["accuracy"] > 0.4, path
    for run in content["runs"]:
      assert all(evaluation["command"] and evaluation["commit"] for evaluation in run["evaluations"]), path
      if run["iterations"] < run["of_iterations"]:
        assert (ROOT / run["checkpoint"] / "checkpoints" / f"model{run['iterations']}.npz").is_file(), path
        assert run["checkpoint"] in run["continue_command"]


def test_committed_checkpoints_are_small_and_of_a_run_that_the_package_would_find():
  from maml_tf.experiments import run
  from maml_tf.experiments.config import resolve

  for folder in (ROOT / "results" / "checkpoints").glob("*/"):
    config = resolve(**json.loads((folder / "config.json").read_text(encoding="utf-8")))
    assert run.run_directory(config).path.name == folder.name
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) < 2e6, folder


def test_pretrained_initialisations_can_be_used():
  """Each is of the network that its own settings make, and small."""
  from maml_tf import export, models
  from maml_tf.experiments.config import resolve
  from maml_tf.experiments.domains.images import experiment as images
  from maml_tf.experiments.domains.policies.experiment import ReinforcementExperiment

  for path in (ROOT / "pretrained").glob("*/saved_model.pb"):
    folder = path.parent
    weights, metadata = export.load_initialization(folder)
    config = resolve(**metadata["config"])
    if config.has_policy:
      model = ReinforcementExperiment(config).model
    else:
      model = images.make_model(config) if config.has_images else models.MLP()
    assert {name: tuple(w.shape) for name, w in weights.items()} == model.weight_shapes
    assert sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) < 1e6, folder
