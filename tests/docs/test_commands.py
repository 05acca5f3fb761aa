"""The commands and flags on the pages exist."""

import functools
import re
import subprocess
import sys

import documents
import pytest

from maml_tf.experiments import command_line, demo_command, predict_command
from maml_tf.experiments.config import Config

PAGES = documents.pages()
REQUIRED = ["--model=m", "--support=s", "--query=q"]  # of `maml-tf predict`
SETTINGS = set(Config.__dataclass_fields__)
MAIN = "scripts/main.py"
PREDICT, DEMO = "maml-tf predict", "maml-tf demo"
COMMAND = re.compile(
  r"(?:^|[\s/])(?:python (scripts/\w+\.py)|python -m maml_tf|maml-tf)(?=\s|$)( predict| demo)?([^;&|#\n]*)",
  re.MULTILINE,
)


def commands(text):
  """(script, its arguments) of every command, in blocks and in the text."""
  shell = [block.text.replace("\\\n", " ") for block in documents.blocks(text) if block.language == "bash"]
  found = [match for part in (*shell, *documents.code_spans(text)) for match in COMMAND.finditer(part)]
  return [(match[1] or (f"maml-tf{match[2]}" if match[2] else MAIN), match[3].split()) for match in found]


@functools.cache
def help_of(script):
  done = subprocess.run(
    [sys.executable, str(documents.ROOT / script), "--help"], capture_output=True, text=True, timeout=100
  )
  assert done.returncode == 0, done.stderr[-2000:]
  return done.stdout


@functools.cache
def flags_of(script):
  if script == MAIN:
    return SETTINGS
  if script in (PREDICT, DEMO):
    given = predict_command.parser().parse_args(REQUIRED) if script == PREDICT else demo_command.parser().parse_args([])
    return set(vars(given))
  return set(re.findall(r"--(?:\[no\])?(\w+)", help_of(script)))


def scripts():
  return sorted(f"scripts/{path.name}" for path in (documents.ROOT / "scripts").glob("*.py"))


@pytest.mark.parametrize("page", PAGES, ids=documents.name_of)
def test_commands_name_scripts_and_flags_that_exist(page):
  for script, arguments in commands(documents.read(page)):
    assert script in (PREDICT, DEMO) or (documents.ROOT / script).is_file(), script
    arguments = arguments[: arguments.index("--")] if "--" in arguments else arguments  # then come those of main.py
    flags = {argument[2:].partition("=")[0] for argument in arguments if argument.startswith("--")} - {"help"}
    given = {name.removeprefix("no") if name.removeprefix("no") in flags_of(script) else name for name in flags}
    assert given <= flags_of(script), (script, arguments)


@pytest.mark.parametrize("page", PAGES, ids=documents.name_of)
def test_flags_in_the_text_exist(page):
  """Between backticks, `--flag` or `--flag=value`."""
  known = {"help"}.union(SETTINGS, *map(flags_of, [PREDICT, DEMO, *scripts_with_flags(page)]))
  for span in documents.code_spans(documents.read(page)):
    if span.startswith("--"):
      assert set(re.findall(r"--(\w+)", span)) <= known, span


def scripts_with_flags(page):
  """The scripts that a page speaks of."""
  return sorted(set(re.findall(r"scripts/\w+\.py", documents.read(page))) & set(scripts()))


def write_plug_ins(page, arguments, folder):
  """Writes the modules that `--learner=module:Class` names, from the page's block that has the class."""
  for module, name in re.findall(r"--learner=(\w+):(\w+)", " ".join(arguments)):
    if module != "module":
      (text,) = (block.text for block in documents.blocks(documents.read(page)) if f"class {name}" in block.text)
      (folder / f"{module}.py").write_text(text)


def test_commands_that_train_or_evaluate_make_sense(monkeypatch, tmp_path):
  """Their values are of the right kind, and together are not refused. Whether the data is there is not asked.

  Left out: what stands for a value of the reader's (`$baseline`, `--seed=N`).
  """
  monkeypatch.chdir(tmp_path)
  monkeypatch.setattr(command_line, "check_paths", lambda config: None)
  lines = [(page, arguments) for page in PAGES for name, arguments in commands(documents.read(page)) if name == MAIN]
  assert len(lines) > 30
  for page, arguments in lines:
    write_plug_ins(page, arguments, tmp_path)
    given = [argument for argument in arguments if not re.search(r"\$|=[A-Z]+\b|^--help$", argument)]
    command_line.parse(["main.py", *given])


def test_the_subject_of_a_script_is_in_its_help():
  """`benchmark.py omniglot`, `figures.py rl`."""
  found = set()
  for page in PAGES:
    for script, arguments in commands(documents.read(page)):
      if script in ("scripts/benchmark.py", "scripts/figures.py") and arguments:
        found.add(arguments[0])
        assert re.search(rf"\b{re.escape(arguments[0])}\b", help_of(script)), (script, arguments)
  assert len(found) > 4
