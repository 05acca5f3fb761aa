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
from maml_tf.experiments.config import resolve
from maml_tf.results import cells, descriptions, documents, paper_tables, published, tables
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
  assert [row[1:4] for row in found["sinusoid"].rows] == [["not run"] * 3] * 8
  average = "python scripts/main.py --datasource=sinusoid --baseline=average --regulariser=l2"
  assert average in [row[-1].text for row in found["sinusoid"].rows]
  commands = [cells.Words((row[-1],)).plain() for row in found["omniglot"].rows]
  assert "python scripts/main.py --datasource=omniglot --num_classes=20 --test_set=True" in commands
  assert "python scripts/main.py --datasource=omniglot --conv=False --test_set=True" in commands
  assert all("not run" in row for row in found["omniglot"].rows + found["point"].rows)
  assert found["point"].rows[-1][-1] == Code("python scripts/main.py --datasource=point --baseline=oracle")
  with_rows = {"sinusoid", "images", "rl", "online", "online_images", "online_pose", "online_regret"}
  assert tables.make(tmp_path).keys() == with_rows  # tables without a row are left out


def test_a_published_method_that_is_not_here_has_no_command(monkeypatch):
  monkeypatch.setattr(published, "sinusoid", lambda: [("somebody's", {}, {1: 0.5, 5: 0.4, 10: 0.3})])
  rows = tables.make(ROOT, ["sinusoid"])["sinusoid"].rows
  assert [row[-1] for row in rows if row[0] == "somebody's"] == ["not in this package"]


def test_the_authors_weights_are_imported_first():
  (row, _) = [row for row in tables.make(ROOT, ["images"])["images"].rows if "published`" in row[1]]
  assert "first `python scripts/import_checkpoint.py model59000" in row[-1].markdown(".")


def test_tables_by_name_and_in_files(tmp_path):
  done = script("sinusoid", "omniglot", f"--output={tmp_path}")
  assert done.returncode == 0, done.stderr
  printed = [part for part in done.stdout.strip().split("\n\n") if part.startswith("|")]
  assert [table.split("|")[1].strip() for table in printed] == ["5 points", "task"]
  for name, table in zip(("sinusoid", "omniglot"), printed, strict=True):
    text = (tmp_path / f"{name}.md").read_text(encoding="utf-8").strip()
    assert text.startswith(table) and text in done.stdout
    rows = json.loads((tmp_path / f"{name}.json").read_text(encoding="utf-8"))["rows"]
    with open(tmp_path / f"{name}.csv", encoding="utf-8", newline="") as file:
      assert len(list(csv.DictReader(file))) == len(rows) == len(table.split("\n")) - 2
  maml = next(row for row in rows if row["command line"] == "python scripts/main.py --datasource=omniglot")
  assert "--test_set=True" in maml["command"] and maml["here, 95 % interval"] < 1


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


# The paper's comparisons ----------------------------------------------------------------------------------------------


@functools.cache
def of_the_paper():
  return tables.make(ROOT, paper_tables.NAMES)


def test_the_papers_tables_in_the_checkout_are_those_of_the_results_files():
  """`python scripts/tables.py --update` writes them."""
  for name, table in of_the_paper().items():
    for suffix, text in tables.forms(table, "results/tables").items():
      path = ROOT / "results" / "tables" / f"{name}.{suffix}"
      assert path.read_text(encoding="utf-8") == text, path
  assert {path.stem for path in (ROOT / "results" / "tables").iterdir()} == set(paper_tables.NAMES)


def test_every_published_accuracy_has_one_row_that_was_run_or_says_so():
  for datasource in ("omniglot", "miniimagenet"):
    rows = of_the_paper()[datasource].plain()
    for cell in (cell for cell in published.accuracies_of_all() if cell.datasource == datasource):
      task = f"{descriptions.data_set(datasource)}, {cell.ways}-way {cell.shots}-shot"
      there = [row for row in rows if row["task"] == task and row["published"] == pytest.approx(100 * cell.accuracy)]
      assert there, cell
      assert all(
        row["here"] == "not run" or (row["here"] > 0 and row["test tasks"] and row["queries"]) for row in there
      )
      assert all(row["command line"] for row in there)


def test_footnotes_name_the_protocols_that_differ():
  table = of_the_paper()["omniglot"]
  notes = " ".join(table.notes)
  for name in ("Santoro", "second and the fifth", "Koch", "20-way", "Kaiser", "1,100", "queries"):
    assert name in notes, name
  assert json.loads(table.json())["notes"] == list(table.notes)


def test_the_cell_of_another_method_is_its_own():
  assert published.of_config(resolve("omniglot", learner="protonet", num_classes=20), 1)["accuracy"] == 0.96
  assert published.of_config(resolve("omniglot", learner="protonet", bn_mode="support"), 1) is None
  first_order = published.of_config(resolve("miniimagenet", learner="fomaml"), 1)
  assert first_order == published.of_config(resolve("miniimagenet", stop_grad=True), 1)
  assert first_order["accuracy"] == 0.4807
  assert published.step_of(resolve("omniglot"), 1) == 3
  assert published.step_of(resolve("omniglot", learner="imaml"), 1) == 16
