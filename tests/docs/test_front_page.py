"""README is short, its plan of the house is true, and .ci/run finds its commands."""

import re
import subprocess

import documents
import pytest

README = documents.ROOT / "README.md"
CI = documents.ROOT / ".ci" / "run"


def test_it_is_a_front_page():
  assert README.stat().st_size < 12_000


def test_every_place_in_the_house_plan_exists():
  plan = documents.read(README).split("## Where things are")[1]
  paths = re.findall(r"^(\S+)\s", documents.blocks(plan)[0].text, re.MULTILINE)
  assert len(paths) > 10
  for path in paths:
    assert (documents.ROOT / path).exists(), path


def test_the_house_plan_names_every_folder():
  """Of the package and of the project; a folder without a line in the plan is one that nobody finds."""
  plan = documents.read(README).split("## Where things are")[1]
  for path in (*documents.ROOT.glob("maml_tf/*/__init__.py"), *documents.ROOT.glob("*/*.py")):
    folder = path.parent.relative_to(documents.ROOT).as_posix()
    assert re.search(rf"^{re.escape(folder)}/", plan, re.MULTILINE), folder


@pytest.mark.skipif(not CI.is_file(), reason="not a checkout")
@pytest.mark.parametrize(("name", "ends"), [("main job", "scripts/main.py"), ("tests", "-m pytest")])
def test_ci_finds_the_commands(name, ends):
  """By the very function of .ci/run."""
  (function,) = re.findall(r"^command_of\(\) .*$", documents.read(CI), re.MULTILINE)
  done = subprocess.run(
    ["bash", "-euc", f'{function}\ncommand_of "{name}"'],
    cwd=documents.ROOT, capture_output=True, text=True, check=True,
  )  # fmt: skip
  (command,) = done.stdout.strip().split("\n")
  assert command.startswith("python3 -m venv .venv && ") and command.endswith(ends)
