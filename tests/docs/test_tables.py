"""No figure on a page is copied by hand: each table under a mark is the one that scripts/tables.py prints."""

import re
import subprocess
import sys

import documents
import pytest

PAGES = documents.pages()
MARK = re.compile(r"^<!-- table: (\w+) -->\n((?:\|.*\n)*)", re.MULTILINE)


def marked(page):
  """{name: table} of a page, with links as they are from the project's root."""
  found = dict(MARK.findall(documents.read(page) + "\n"))
  return {name: from_root(page, table.strip()) for name, table in found.items()}


def from_root(page, table):
  def target(match):
    path = (page.parent / match[1]).resolve().relative_to(documents.ROOT).as_posix()
    return f"]({path})"

  return re.sub(r"\]\(((?![a-z]+:)[^)]+)\)", target, table)


@pytest.fixture(scope="module")
def printed():
  command = [sys.executable, str(documents.ROOT / "scripts" / "tables.py")]
  done = subprocess.run(command, capture_output=True, text=True, timeout=100)
  assert done.returncode == 0, done.stderr[-2000:]
  return done.stdout.strip().split("\n\n")


@pytest.mark.parametrize("page", [page for page in PAGES if marked(page)], ids=documents.name_of)
def test_tables_are_those_of_the_results_files(page, printed):
  for name, table in marked(page).items():
    assert table in printed, name


def test_every_table_is_on_a_page(printed):
  assert len(printed) >= 10
  shown = [table for page in PAGES for table in marked(page).values()]
  for table in printed:
    assert table in shown, table.split("\n")[0]


def test_one_name_is_one_table():
  tables = {}
  for page in PAGES:
    for name, table in marked(page).items():
      assert tables.setdefault(name, table) == table, name


def test_every_mark_is_read():
  """A mark that is written in another way would keep an old table."""
  for page in PAGES:
    text = documents.prose(documents.read(page))
    assert len(re.findall(r"^<!-- *table", text, re.MULTILINE)) == len(marked(page)), documents.name_of(page)
