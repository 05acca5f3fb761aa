"""The README's own examples run, and its commands exist."""

import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language):
  return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def test_python_examples_run_in_order(tmp_path):
  script = tmp_path / "examples.py"
  script.write_text("\n".join(blocks("python")))
  done = subprocess.run([sys.executable, str(script)], cwd=tmp_path, capture_output=True, text=True, timeout=400)
  assert done.returncode == 0, done.stderr[-3000:]
  losses = [float(number) for number in re.search(r"\[(.*?)\]", done.stdout, re.DOTALL)[1].split()]
  assert len(losses) == 6 and losses[5] < 0.5 * losses[0]
  # The last example adapts to y = 2 x + 1 and predicts at x = 2.
  assert re.search(r"\[\[\s*-?\d", done.stdout)


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
  assert done.returncode == 0 and len(tables) >= 2, done.stderr
  for table in tables:
    assert table in README


def test_pretrained_initialisations_can_be_used():
  from maml_tf import export, models

  shapes = {"sinusoid": models.MLP().weight_shapes}
  folders = {path.parent.name for path in (ROOT / "pretrained").glob("*/saved_model.pb")}
  assert folders == set(shapes)
  for name in folders:
    weights, metadata = export.load_initialization(ROOT / "pretrained" / name, shapes[name])
    assert metadata["config"]["datasource"] == "sinusoid" and list(weights) == list(shapes[name])
    assert f"`{name}`" in (ROOT / "pretrained" / "README.md").read_text(encoding="utf-8")
