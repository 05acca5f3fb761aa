"""One shape of result for all domains: a table of means with 95 % intervals after 0, 1, ... steps, and its curves."""

import dataclasses
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True)
class Row:
  """A line of a table: means and intervals after 0, 1, ... steps, or words in their place.

  Attributes:
    label: of the line.
    mean: [S + 1] numbers; None for a step that is not known.
    ci95: [S + 1] half widths of 95 % intervals; None: there are none.
    words: what stands in place of numbers.
  """

  label: str
  mean: Any = ()
  ci95: Any = None
  words: str | None = None


@dataclasses.dataclass(frozen=True)
class Report:
  """What a run ends with.

  Attributes:
    title: first line.
    rows: of `Row`.
    steps: the steps that get a column; none: all rows are words.
    notes: lines below.
    has_steps: whether adapting has steps; False: the one column says "adapted".
    width: of a column, in characters.
  """

  title: str
  rows: list
  steps: list
  notes: list = dataclasses.field(default_factory=list)
  has_steps: bool = True
  width: int = 15

  def lines(self):
    """The table as lines of text."""
    names = [count_of(step, "step") for step in self.steps] if self.has_steps else ["adapted"]
    header = "".join(f"{name:>{self.width}}" for name in names)
    heading = [f"{'':24}{header}"] if header else []
    return [self.title, *heading, *(self._line(row) for row in self.rows), *self.notes]

  def final(self):
    """Dict of a row's label -> its number after the last step that has a column; of what has been measured."""
    measured = [row for row in self.rows if row.ci95 is not None and self.steps]
    numbers = {row.label.strip(): self._mean(row, self.steps[-1]) for row in measured}
    return {label: float(mean) for label, mean in numbers.items() if mean is not None}

  def _line(self, row):
    if row.words is not None:
      return f"{row.label:24}     {row.words}"
    cells = (self._cell(row, step) for step in self.steps)
    return f"{row.label:24}{''.join(f'{cell:>{self.width}}' for cell in cells)}".rstrip()

  @staticmethod
  def _mean(row, step):
    return row.mean.get(step) if isinstance(row.mean, dict) else _at(row.mean, step)

  def _cell(self, row, step):
    mean = self._mean(row, step)
    if mean is None:
      return ""
    ci95 = None if row.ci95 is None else _at(row.ci95, step)
    return f"{mean:.2f}       " if ci95 is None or ci95 != ci95 else f"{mean:.2f} ± {ci95:.2f}"


def count_of(count, noun):
  """`1 step`, `3 steps`; `1 query`, `2 queries`."""
  plural = f"{noun[:-1]}ies" if noun.endswith("y") else f"{noun}s"
  return f"{count} {noun if count == 1 else plural}"


def curve(axis, mean, ci95=None, across=0, shade=True, **style):
  """Draws means [S + 1] against steps, with their intervals shaded.

  Args:
    axis: of matplotlib.
    mean: [S + 1].
    ci95: [S + 1] half widths, or None.
    across: steps over which a single value, of a method that takes none, is drawn as a line.
    shade: whether the intervals are shaded.
    **style: of `axis.plot`.

  Returns:
    The line.
  """
  mean = np.asarray(mean, np.float64)
  ci95 = None if ci95 is None else np.asarray(ci95, np.float64)
  if len(mean) == 1 and across:
    mean, ci95 = (None if values is None else np.repeat(values, across + 1) for values in (mean, ci95))
    style["marker"] = None
  (line,) = axis.plot(np.arange(len(mean)), mean, **({"marker": "."} | style))
  if ci95 is not None and shade:
    lower, upper = mean - ci95, mean + ci95
    axis.fill_between(np.arange(len(mean)), lower, upper, color=line.get_color(), alpha=0.2, linewidth=0)
  return line


def _at(values, step):
  return values[step] if step < len(values) else None
