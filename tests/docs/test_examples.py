"""The code on the pages runs: every page's Python blocks, in order, in one process for each page."""

import ast
import csv
import importlib.util
import json
import os
import re
import subprocess
import sys

import documents
import numpy as np
import pytest
from PIL import Image

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


def folders_of_pictures(folder):
  """Pictures of a reader's own, as docs/predicting.md has them: stripes, of an angle for each class."""
  rng = np.random.default_rng(0)
  angles = iter(np.linspace(0, np.pi, 24, endpoint=False)[rng.permutation(24)])
  for part, classes, size in (("train", 12, 20), ("val", 4, 20), ("test", 4, 20), ("support", 3, 2)):
    for number in range(classes):
      name, angle = f"stripes {number}", next(angles)
      parent = folder / ("support" if part == "support" else f"my_pictures/{part}") / f"{part} {name}"
      parent.mkdir(parents=True)
      for i in range(size):
        stripes(angle, rng).save(parent / f"{i}.png")
      if part == "support":
        (folder / "query").mkdir(exist_ok=True)
        for i in range(4):
          stripes(angle, rng).save(folder / "query" / f"{number} {i}.jpg")


def stripes(angle, rng):
  rows, columns = np.mgrid[:40, :48]
  wave = np.sin(0.6 * (rows * np.sin(angle) + columns * np.cos(angle)) + rng.uniform(0, 2 * np.pi))
  return Image.fromarray((128 + 90 * wave[..., None] + rng.normal(0, 10, (40, 48, 3))).clip(0, 255).astype(np.uint8))


# What has to lie beside a page's examples.
PREPARED = {"docs/predicting.md": folders_of_pictures}


def labels_are_right(labels):
  """Of `folders_of_pictures`: at least two in three."""
  right = [label == f"support stripes {file[0]}" for file, label in labels]
  return len(right) == 12 and sum(right) >= 8


def the_ten_lines_learn_and_equal_keras(out):
  before, *_, adapted = after("accuracy", out)
  assert adapted > before + 0.3
  first, (by_hand, trained) = after("first loss", out)[0], after("by hand", out)
  assert abs(first - by_hand) < 1e-4 * by_hand
  assert trained < 0.9 * by_hand
  the_model_of_ones_own_learns_lines(out)


def pictures_get_their_labels(out):
  assert labels_are_right(ast.literal_eval(out.splitlines()[-3]).items())
  assert "(3, 28, 28, 3) (3, 3)" in out


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
  "docs/library.md": the_ten_lines_learn_and_equal_keras,
  "docs/predicting.md": pictures_get_their_labels,
  "docs/online.md": later_tasks_are_learned_better,
  "docs/environments.md": policies_gain_by_a_step,
}


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, RUN)], ids=documents.name_of)
def test_python_blocks_run_in_order(page, tmp_path):
  PREPARED.get(documents.name_of(page), lambda folder: None)(tmp_path)
  out = run("\n".join(block.text for block in blocks(page, RUN)), tmp_path, timeout=400)
  EXPECTED.get(documents.name_of(page), lambda out: None)(out)


def test_from_ones_own_pictures_to_labels_in_three_commands(tmp_path):
  """The commands of docs/predicting.md, as they stand there."""
  folders_of_pictures(tmp_path)
  (tmp_path / "scripts").symlink_to(documents.ROOT / "scripts")
  (block,) = (b for b in blocks(documents.ROOT / "docs/predicting.md", CHECKED) if "maml-tf predict" in b.text)
  commands = block.text.strip().split("\n")
  assert len(commands) <= 3
  for command in commands:
    arguments = command.removeprefix("python ").replace("maml-tf", "-m maml_tf").split()
    done = subprocess.run(
      [sys.executable, *arguments], cwd=tmp_path, capture_output=True, text=True, timeout=500,
      env={**os.environ, "PYTHONPATH": os.pathsep.join([str(documents.ROOT), *sys.path])},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
  with open(tmp_path / "predictions" / "labels.csv", newline="", encoding="utf-8") as file:
    assert labels_are_right([(row["file"], row["label"]) for row in csv.DictReader(file)])
  assert (tmp_path / "predictions" / "contact_sheet.png").is_file()


def test_a_stream_of_ones_own_takes_under_forty_lines():
  (block,) = (block for block in blocks(documents.ROOT / "docs/online.md", RUN) if "from_generator" in block.text)
  assert len(block.text.strip().split("\n")) < 40


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
