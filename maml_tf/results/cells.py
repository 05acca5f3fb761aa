"""Tables of numbers, links and commands, and how they are written as Markdown, CSV and JSON."""

import csv
import dataclasses
import io
import json
import os

NOT_RUN = "not run"


@dataclasses.dataclass(frozen=True)
class Number:
  """A measured number.

  Args:
    value: the number.
    ci95: half of its 95 % interval, or None.
    format: format specification of both.
    bold: whether it stands out in Markdown.
  """

  value: float
  ci95: float | None = None
  format: str = ".2f"
  bold: bool = False

  def markdown(self, folder):
    del folder
    text = f"{self.value:{self.format}}"
    text += "" if self.ci95 is None else f" ± {self.ci95:{self.format}}"
    return f"**{text}**" if self.bold else text

  def plain(self):
    return self.value


@dataclasses.dataclass(frozen=True)
class Series:
  """Numbers after 0, 1, ... steps, or `Number`s of one kind, side by side."""

  numbers: tuple
  separator: str = " / "

  def markdown(self, folder):
    return self.separator.join(number.markdown(folder) for number in self.numbers)

  def plain(self):
    return [number.value for number in self.numbers]

  @property
  def ci95(self):
    intervals = [number.ci95 for number in self.numbers]
    return None if None in intervals else intervals


@dataclasses.dataclass(frozen=True)
class Link:
  """A file of the checkout, `path` from its root."""

  path: str

  def markdown(self, folder):
    return f"[{os.path.basename(self.path)}]({os.path.relpath(self.path, folder)})"

  def plain(self):
    return self.path


@dataclasses.dataclass(frozen=True)
class Code:
  """A command or a name."""

  text: str

  def markdown(self, folder):
    del folder
    return f"`{self.text}`"

  def plain(self):
    return self.text


@dataclasses.dataclass(frozen=True)
class Words:
  """Texts, links and code in one cell."""

  parts: tuple

  def markdown(self, folder):
    return "".join(part if isinstance(part, str) else part.markdown(folder) for part in self.parts)

  def plain(self):
    return "".join(part if isinstance(part, str) else part.plain() for part in self.parts)


@dataclasses.dataclass
class Table:
  """Rows of cells under headings.

  Args:
    headings: of the columns.
    rows: lists of cells: text, or an object of this module; as many as headings.
    records: of each row what only the files have (CSV, JSON): a dict, the same names in each; empty: nothing.
    notes: lines of text below the table.
  """

  headings: tuple
  rows: list = dataclasses.field(default_factory=list)
  records: list = dataclasses.field(default_factory=list)
  notes: tuple = ()

  def markdown(self, folder=""):
    """Lines of text; links are relative to `folder`, which is relative to the checkout."""
    lines = [f"| {' | '.join(self.headings)} |", "|" + "---|" * len(self.headings)]
    for row in self.rows:
      cells = [cell if isinstance(cell, str) else cell.markdown(folder or ".") for cell in row]
      lines.append(f"| {' | '.join(cells)} |")
    return [*lines, *(line for note in self.notes for line in ("", note))]

  def plain(self):
    """A dict for each row: heading -> text, number or list of numbers, with `HEADING, 95 % interval` beside it."""
    records = []
    for index, row in enumerate(self.rows):
      record = {}
      for heading, cell in zip(self.headings, row, strict=True):
        record[heading] = cell if isinstance(cell, str) else cell.plain()
        if getattr(cell, "ci95", None) is not None:
          record[f"{heading}, 95 % interval"] = cell.ci95
      records.append(record | (self.records[index] if self.records else {}))
    return records

  def json(self):
    return json.dumps({"format_version": 1, "rows": self.plain(), "notes": list(self.notes)}, indent=1) + "\n"

  def csv(self):
    """A line for each row; lists are separated by spaces."""
    records = self.plain()
    names = list(dict.fromkeys(name for record in records for name in record)) or list(self.headings)
    file = io.StringIO()
    writer = csv.DictWriter(file, names, restval="", lineterminator="\n")
    writer.writeheader()
    for record in records:
      writer.writerow({n: " ".join(map(str, v)) if isinstance(v, list) else v for n, v in record.items()})
    return file.getvalue()


def after(summary, step):
  """(mean, 95 % interval) after `step` gradient steps, of a method without steps its only one; None: not run."""
  index = 0 if len(summary["mean"]) == 1 else step
  if index is None:
    index = len(summary["mean"]) - 1
  return (summary["mean"][index], summary["ci95"][index]) if index < len(summary["mean"]) else None
