"""What a page points at is there: files, headings, paths and names of Python between backticks."""

import importlib
import pathlib
import re
from urllib.parse import unquote

import documents
import gymnasium
import pytest

PAGES = documents.pages()
ENVIRONMENT = re.compile(r"maml_tf/\w+-v\d+")
PLACEHOLDER = re.compile("NAME")  # one of the reader's
HISTORY = "CHANGELOG.md"  # names what has been removed
OURS = ("maml_tf", "scripts", "benchmarks", "tests", "docs", "results", "pretrained")


@pytest.mark.parametrize("page", PAGES, ids=documents.name_of)
def test_links_resolve(page):
  """Within the project: the file is there, and has the heading."""
  for target in documents.links(documents.read(page)):
    if re.match(r"[a-z]+:", target):
      continue
    path, _, anchor = unquote(target).partition("#")
    file = (page.parent / path) if path else page
    assert file.exists(), target
    assert file.resolve().is_relative_to(documents.ROOT), target
    if anchor:
      assert anchor in documents.anchors(documents.read(file)), target


@pytest.mark.parametrize("page", PAGES, ids=documents.name_of)
def test_paths_between_backticks_exist(page):
  for span in documents.code_spans(documents.read(page)):
    if re.fullmatch(rf"({'|'.join(OURS)})/[\w./*-]*", span) and not (
      ENVIRONMENT.fullmatch(span) or PLACEHOLDER.search(span) or documents.name_of(page) == HISTORY
    ):
      assert any(documents.ROOT.glob(span.rstrip("/"))), span


@pytest.mark.parametrize("page", PAGES, ids=documents.name_of)
def test_names_of_python_between_backticks_exist(page):
  for span in documents.code_spans(documents.read(page)):
    name = re.match(r"maml_tf(\.\w+)+", span)
    if name and not span.endswith(".py"):
      resolve(name[0])


def test_environments_between_backticks_are_registered():
  importlib.import_module("maml_tf.rl.envs")
  spans = {span for page in PAGES for span in documents.code_spans(documents.read(page)) if ENVIRONMENT.fullmatch(span)}
  assert spans and spans <= set(gymnasium.registry)


def resolve(name):
  """Imports as much as is a module, and looks up the rest in it."""
  parts = name.split(".")
  for length in range(len(parts), 0, -1):
    try:
      found = importlib.import_module(".".join(parts[:length]))
    except ModuleNotFoundError:
      continue
    for attribute in parts[length:]:
      found = getattr(found, attribute)
    return found
  raise AssertionError(name)


def test_every_page_of_docs_is_linked_from_the_front_page():
  linked = {target.partition("#")[0] for target in documents.links(documents.read(documents.ROOT / "README.md"))}
  missing = {documents.name_of(page) for page in PAGES if page.is_relative_to(documents.ROOT / "docs")} - linked
  assert not missing


def test_anchors_are_those_of_github():
  text = "# One's own `maml-tf`\n## The [A](b.md), _again_\n```\n# not a heading\n```\n## Data\n### Data\n"
  assert documents.anchors(text) == ["ones-own-maml-tf", "the-a-_again_", "data", "data-1"]


def test_a_path_outside_of_the_project_is_told_apart():
  assert not pathlib.Path(documents.ROOT, "..", "shared").resolve().is_relative_to(documents.ROOT)
