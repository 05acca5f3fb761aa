"""Sweeps: a training for each point of a grid of settings and each seed, as a plan for the queue, and a table."""

import itertools
import json
import math
import pathlib
import re
import statistics

from maml_tf.errors import UserError
from maml_tf.results.files import read_json
from maml_tf.results.plan import Row

COLUMNS = ("point", "measured", "mean", "ci95", "seeds", "of each seed")


def rows(settings, grid, seeds):
  """A `Row` for each point of a grid.

  Args:
    settings: of all points, dict of name -> value.
    grid: dict of name -> list of values.
    seeds: list of integers.

  Raises:
    UserError: a setting that is in both or does not exist, a value that cannot be, no seed, or one twice.
  """
  for name, values in {**grid, "seed": seeds}.items():
    if not values or len(set(values)) < len(values):
      raise UserError(f"{name}={','.join(map(str, values))}: expected values that differ, at least one")
    if name in settings:
      raise UserError(f"{name}={settings[name]}: it is varied as well; leave it out of the flags that all share")
  points = [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]
  found = [Row(_name(point), settings | point, 0, "sweep", tuple(seeds)) for point in points]
  for row in found:
    _ = [training.name for training in row.trainings]  # refuses what cannot be before anything is run
  names = {training.name for row in found for training in row.trainings}
  if len(names) < len(found) * len(seeds):
    raise UserError(f"{', '.join(grid)}: two points of the grid are the same training; vary what shapes training")
  return found


def _name(point):
  """Of the results file of a point."""
  text = ".".join(f"{name}_{value}" for name, value in point.items()) or "all"
  return re.sub(r"[^\w.-]", "_", text)


def write_plan(folder, rows):
  """`rows` as a plan in a folder, beside which their results files will be.

  Raises:
    UserError: the folder holds another sweep.
  """
  from maml_tf.training.checkpoints import write_atomically

  entries = [{"name": r.name, "settings": r.settings, "priority": 0, "why": r.why, "seeds": r.seeds} for r in rows]
  text = json.dumps({"rows": entries}, indent=2) + "\n"
  path = pathlib.Path(folder) / "plan.json"
  path.parent.mkdir(parents=True, exist_ok=True)
  if path.exists() and path.read_text(encoding="utf-8") != text:
    raise UserError(f"{path}: there is another sweep of this name; give this one another name, or remove the folder")
  write_atomically(path, text)
  return path


def table(folder, rows):
  """What the points reached: list of dicts with `COLUMNS`, a row for each measured quantity of each point.

  `mean` is over seeds, `ci95` the half-width of its 95 % interval over seeds (Student's t), None for a single seed. Of
  a quantity that is measured after each gradient step, the last one is taken.
  """
  found = []
  for row in rows:
    path = pathlib.Path(folder) / f"{row.name}.json"
    content = read_json(path) if path.exists() else {"metric": "", "results": {}}
    for measured, values in _measured(content["results"], (content["metric"].partition(" after ")[0],)):
      found.append(_entry(row.name, measured, values))
    if not content["results"]:
      found.append(_entry(row.name, "not run", []))
  return found


def _entry(point, measured, values):
  mean = statistics.fmean(values) if values else None
  return dict(zip(COLUMNS, (point, measured, mean, interval(values), len(values), values), strict=True))


def _measured(results, path):
  """(what, [value of each seed]) for everything in a file's results that has a value for each seed."""
  if "of_each_seed" in results:
    yield ", ".join(path), [v[-1] if isinstance(v, list) else v for v in results["of_each_seed"]]
    return
  for name, value in results.items():
    if isinstance(value, dict):
      yield from _measured(value, (*path, name))


def interval(values):
  """Half-width of the 95 % interval of a mean over seeds; None where there are fewer than two.

  By Student's t: with three seeds 2.2 times what a normal distribution would give.
  """
  if len(values) < 2:
    return None
  from scipy import stats

  return float(stats.t.ppf(0.975, len(values) - 1)) * statistics.stdev(values) / math.sqrt(len(values))


def write_table(path, lines):
  """Puts lines into a file."""
  from maml_tf.training.checkpoints import write_atomically

  write_atomically(path, "\n".join(lines) + "\n")


def text(entries):
  """The table as lines of Markdown."""
  lines = ["| point | measured | mean over seeds | 95 % interval | seeds |", "| --- | --- | ---: | ---: | ---: |"]
  for entry in entries:
    mean, ci95 = ("" if entry[name] is None else f"{entry[name]:.4g}" for name in ("mean", "ci95"))
    lines.append(f"| {entry['point']} | {entry['measured']} | {mean} | {ci95 and f'± {ci95}'} | {entry['seeds']} |")
  return lines
