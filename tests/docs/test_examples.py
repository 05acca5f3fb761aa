"""The code on the pages runs: every page's Python blocks, in order, in one process for each page."""

import importlib.util
import json
import re
import subprocess
import sys

import documents
import pytest

PAGES = documents.pages()
# What becomes of a block by its language. `py`: needs a package that not every Python has, so it has a test of its own.
RUN, APART, CHECKED, PARSED, SHOWN = "python", "py", "bash", "json", ""
EXAMPLE_APART = "docs/environments.md"


def blocks(page, language):
  return [block for block in documents.blocks(documents.read(page)) if block.language == language]


def numbers_in(text):
  return [float(number) for number in re.findall(r"-?\d+\.\d*(?:e-?\d+)?", text)]


def after(label, out):
  return numbers_in(re.search(rf"{label}: *(.*)", out)[1])


def run(example, folder, timeout):
  """Runs an example where its reader runs it: beside the folders of the checkout."""
  for name in ("pretrained", "results", "scripts"):
    (folder / name).symlink_to(documents.ROOT / name)
  script = folder / "example.py"
  script.write_text(example, encoding="utf-8")
  done = subprocess.run([sys.executable, str(script)], cwd=folder, capture_output=True, text=True, timeout=timeout)
  assert done.returncode == 0, done.stderr[-3000:]
  return done.stdout


def adapting_brings_the_predictions_nearer(out):
  before, adapted, wave = (after(label, out) for label in ("before", "after", "wave"))
  distance = [sum(abs(y - target) for y, target in zip(ys, wave, strict=True)) for ys in (before, adapted)]
  assert distance[1] < 0.5 * distance[0]


def the_model_of_ones_own_learns_lines(out):
  losses = next(numbers for text in re.findall(r"\[([^\[\]]*)\]", out) if len(numbers := numbers_in(text)) == 6)
  assert losses[5] < 0.5 * losses[0]
  (prediction,) = after(re.escape("at 2, of 2 x + 1"), out)
  assert 2 < prediction < 8
  assert "(3, 20, 1)" in out


def policies_gain_by_a_step(out):
  """Over all tasks, and in one from the SavedModel."""
  before, adapted = after("mean return before and after a step", out)
  assert adapted > before + 1
  assert after("return at 0.8, after", out)[0] > after("return at 0.8, before", out)[0] + 1


def later_tasks_are_learned_better(out):
  """And the regret of FTML hardly grows."""
  first, last = (after(f"mean loss after 5 points, {which} four tasks", out)[0] for which in ("first", "last"))
  assert last < 0.5 * first
  earlier, later = re.search(r"regret of ftml: ([\d.]+) after 1,000 tasks, ([\d.]+)", out).groups()
  assert 0 < float(later) - float(earlier) < 1


# What a page's output has to show, apart from there being no error.
EXPECTED = {
  "README.md": adapting_brings_the_predictions_nearer,
  "docs/using_initialisations.md": adapting_brings_the_predictions_nearer,
  "docs/library.md": the_model_of_ones_own_learns_lines,
  "docs/online.md": later_tasks_are_learned_better,
  "docs/environments.md": policies_gain_by_a_step,
}


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, RUN)], ids=documents.name_of)
def test_python_blocks_run_in_order(page, tmp_path):
  out = run("\n".join(block.text for block in blocks(page, RUN)), tmp_path, timeout=400)
  EXPECTED.get(documents.name_of(page), lambda out: None)(out)


def test_pages_whose_output_is_judged_have_blocks():
  assert set(EXPECTED) <= {documents.name_of(page) for page in PAGES if blocks(page, RUN)}


@pytest.mark.parametrize("page", PAGES, ids=documents.name_of)
def test_every_block_is_run_or_checked(page):
  """A block that is written as another language, or that needs a test of its own, does not slip through."""
  apart = [] if documents.name_of(page) == EXAMPLE_APART else [APART]
  for language, text, line in documents.blocks(documents.read(page)):
    known = {RUN, APART, CHECKED, PARSED, SHOWN} - set(apart)
    assert language in known, f"line {line}: nothing runs a block of {language}"
    if language == PARSED:
      json.loads(text)
    if language == SHOWN:
      assert not re.search(r"^(import|from|python|pip|maml-tf|\$ )\b", text, re.MULTILINE), f"line {line}: of what?"


def test_example_of_tf_agents_runs(tmp_path):
  """By itself: which Keras tf-agents gets is decided once in a process."""
  if importlib.util.find_spec("tf_agents") is None:
    pytest.skip("tf-agents is not installed (it has no version for Python 3.12)")
  (example,) = blocks(documents.ROOT / EXAMPLE_APART, APART)
  # 20 steps and a boundary, in each of four environments
  assert run(example.text, tmp_path, timeout=200).split("\n")[0] == "21 (4, 2)"
