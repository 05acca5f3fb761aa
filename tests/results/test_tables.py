"""Tables: their cells, their three forms, and their places in documents."""

import csv
import functools
import io
import json
import pathlib
import subprocess
import sys

import pytest

from maml_tf.errors import UserError
from maml_tf.results import cells, descriptions, documents, published, tables
from maml_tf.results.cells import Code, Link, Number, Series, Table

ROOT = pathlib.Path(__file__).parents[2]
SCRIPT = ROOT / "scripts" / "tables.py"


def script(*arguments):
  return subprocess.run([sys.executable, str(SCRIPT), *arguments], capture_output=True, text=True, timeout=60)


def small_table():
  row = [
    "MAML",
    Number(0.594, 0.031),
    Series((Number(1.0, 0.5, ".1f"), Number(2.0, 0.25, ".1f"))),
    Link("results/a.json"),
  ]
  return Table(("method", "error", "returns", "file"), [row], [{"command": "main.py"}])


def test_a_table_as_markdown_has_links_from_where_it_stands():
  assert small_table().markdown() == [
    "| method | error | returns | file |",
    "|---|---|---|---|",
    "| MAML | 0.59 ± 0.03 | 1.0 ± 0.5 / 2.0 ± 0.2 | [a.json](results/a.json) |",
  ]
  assert small_table().markdown("docs")[-1].endswith("| [a.json](../results/a.json) |")
  assert small_table().markdown("results")[-1].endswith("| [a.json](a.json) |")


def test_a_table_as_json_and_csv_has_plain_numbers():
  (row,) = json.loads(small_table().json())["rows"]
  assert row == {
    "method": "MAML", "error": 0.594, "error, 95 % interval": 0.031, "returns": [1.0, 2.0],
    "returns, 95 % interval": [0.5, 0.25], "file": "results/a.json", "command": "main.py",
  }  # fmt: skip
  (row,) = csv.DictReader(io.StringIO(small_table().csv()))
  assert (row["error"], row["returns"], row["command"]) == ("0.594", "1.0 2.0", "main.py")


def test_the_cell_of_a_step_is_that_step_or_none():
  three_steps, none = {"mean": [1, 2, 3], "ci95": [0, 0, 0]}, {"mean": [7], "ci95": [1]}
  assert cells.after(three_steps, 1) == (2, 0)
  assert cells.after(three_steps, None) == (3, 0)  # the last
  assert cells.after(three_steps, 10) is None  # it was not run that far
  assert cells.after(none, 10) == (7, 1)  # a method without steps


def test_every_results_file_and_every_published_figure_has_a_row():
  found = tables.make(ROOT)
  text = tables.as_text(found)
  for path in (ROOT / "results").glob("*.json"):
    if "runs" in json.loads(path.read_text(encoding="utf-8")):
      assert f"](results/{path.name})" in text, path
  for cell in published.accuracies():
    task = f"{descriptions.data_set(cell.datasource)}, {cell.ways}-way {cell.shots}-shot"
    shares = [row["published"] for row in found["images"].plain() if row["accuracy in %"] == task]
    assert 100 * cell.accuracy in shares, cell
  assert len(found["rl"].rows) >= sum(map(len, published.returns().values()))


def test_a_cell_that_was_not_run_says_so_and_names_its_command(tmp_path):
  """In a checkout without results, all of them."""
  (tmp_path / "results").mkdir()
  found = tables.make(tmp_path, ["sinusoid", "omniglot", "point"])
  assert [row[1:4] for row in found["sinusoid"].rows] == [["not run"] * 3] * 2
  commands = [row[-1].text for row in found["omniglot"].rows]
  assert "python scripts/main.py --datasource=omniglot --num_classes=20 --test_set=True" in commands
  assert "python scripts/main.py --datasource=omniglot --conv=False --test_set=True" in commands
  assert all("not run" in row for row in found["omniglot"].rows + found["point"].rows)
  assert found["point"].rows[-1][-1] == Code("python scripts/main.py --datasource=point --baseline=oracle")
  with_rows = {"sinusoid", "images", "rl", "online", "online_regret"}
  assert tables.make(tmp_path).keys() == with_rows  # tables without a row are left out


def test_a_published_method_that_is_not_here_has_no_command(monkeypatch):
  monkeypatch.setattr(published, "sinusoid", lambda: {"somebody's": {1: 0.5, 5: 0.4, 10: 0.3}})
  rows = tables.make(ROOT, ["sinusoid"])["sinusoid"].rows
  assert [row[-1] for row in rows if row[0] == "somebody's"] == ["not in this package"]


def test_the_authors_weights_are_imported_first():
  (row, _) = [row for row in tables.make(ROOT, ["miniimagenet"])["miniimagenet"].rows if "published`" in row[1]]
  assert "first `python scripts/import_checkpoint.py model59000" in row[-1].markdown(".")


def test_tables_by_name_and_in_files(tmp_path):
  done = script("sinusoid", "omniglot", f"--output={tmp_path}")
  assert done.returncode == 0, done.stderr
  printed = done.stdout.strip().split("\n\n")
  assert [table.split("|")[1].strip() for table in printed] == ["5 points", "accuracy in %"]
  for name, table in zip(("sinusoid", "omniglot"), printed, strict=True):
    assert (tmp_path / f"{name}.md").read_text(encoding="utf-8").strip() == table
    rows = json.loads((tmp_path / f"{name}.json").read_text(encoding="utf-8"))["rows"]
    with open(tmp_path / f"{name}.csv", encoding="utf-8", newline="") as file:
      assert len(list(csv.DictReader(file))) == len(rows) == len(table.split("\n")) - 2
  maml = next(row for row in rows if row["train_command"] == "python scripts/main.py --datasource=omniglot")
  assert "--test_set=True" in maml["command"] and maml["1 query, 95 % interval"] < 1


def test_an_unknown_table_is_named_in_one_line():
  done = script("triangle")
  assert done.returncode == 1 and len(done.stderr.strip().splitlines()) == 1
  assert "triangle" in done.stderr and "sinusoid" in done.stderr and "miniimagenet" in done.stderr


def test_tables_replace_the_older_ones_in_a_document():
  text = "words\n\n<!-- table: two -->\n| a | b |\n|---|---|\n| 1 | 2 |\n\n<!-- table: one -->\n\nmore\n"
  new = documents.updated(text, {"one": ["| c |", "|---|"], "two": ["| d |"], "unused": ["| e |"]})
  assert new == "words\n\n<!-- table: two -->\n| d |\n\n<!-- table: one -->\n| c |\n|---|\n\nmore\n"


def test_all_documents_with_marks_are_found_and_updated(tmp_path):
  (tmp_path / "docs").mkdir()
  (tmp_path / "README.md").write_text("<!-- table: two -->\n")
  (tmp_path / "docs" / "images.md").write_text("<!-- table: one -->\n| old |\n\nwords\n")
  (tmp_path / "docs" / "plain.md").write_text("no table\n")
  changed = documents.update(
    tmp_path, lambda names: {name: Table((name, "f"), [["x", Link("results/x")]]) for name in names}
  )
  assert changed == [tmp_path / "README.md", tmp_path / "docs" / "images.md"]
  expected = "<!-- table: one -->\n| one | f |\n|---|---|\n| x | [x](../results/x) |\n\nwords\n"
  assert (tmp_path / "docs" / "images.md").read_text() == expected
  with pytest.raises(UserError, match=r"README.md: two: no such table"):
    documents.update(tmp_path, functools.partial(tables.make, ROOT))


def test_tables_in_the_documents_are_those_of_the_results_files():
  """`python scripts/tables.py --update` writes them."""
  texts = documents.renewed(ROOT, functools.partial(tables.make, ROOT))
  assert texts
  for path, text in texts.items():
    assert path.read_text(encoding="utf-8") == text, path
  marked = {name for names in documents.marked(ROOT).values() for name in names}
  assert tables.make(ROOT).keys() <= marked
