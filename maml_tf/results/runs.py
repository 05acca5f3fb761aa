"""What a run directory tells: its settings, how far it came, how it was trained, its curves and evaluations."""

import math
import pathlib
import re

from maml_tf.errors import UserError
from maml_tf.experiments.config import run_name, train_command
from maml_tf.experiments.settings import SETTINGS
from maml_tf.results.commands import continue_command, training_of_any_seed
from maml_tf.results.files import read_json

KEPT = pathlib.Path("results", "checkpoints")  # inside the checkout
CURVE_POINTS = 100
# What has to be the same in all runs that are averaged: whatever shapes training but the seed.
SHARED = ("datasource", "method", "training command")
# What a results file keeps of an evaluation.
OF_AN_EVALUATION = ("tasks", "command", "commit", "wall_seconds", "versions", "hardware", "results")


def datasource_of(folder):
  """Of a run directory; one that is still training has no results yet, one that was only evaluated no config."""
  config = pathlib.Path(folder) / "config.json"
  return read_json(config if config.exists() else pathlib.Path(folder) / "results.json")["datasource"]


def record_of(folder):
  """The settings that a run directory was trained with, as it recorded them."""
  return read_json(pathlib.Path(folder) / "config.json")


def portable(record):
  """Recorded settings without the folders of the machine; settings that came later are not added."""
  local = [s.name for s in SETTINGS.values() if s.local]
  return {name: value for name, value in record.items() if name not in local}


def newest_checkpoint(folder):
  """The path of a run directory's newest checkpoint, or None."""
  return max(pathlib.Path(folder).glob("checkpoints/model*.npz"), key=iteration_of, default=None)


def iteration_of(checkpoint):
  return int(re.fullmatch(r"model(\d+)\.npz", checkpoint.name)[1])


def name_of(folder, config):
  """The name under which the package as it is now looks for this run: a setting it has learned since may be in it."""
  if config.init_from is not None or config.datasource == "folder":
    return pathlib.Path(folder).name  # its hash holds data that need not be here
  return run_name(config)


def evaluations_in(folder):
  """The evaluations that a run directory has."""
  return [read_json(path) for name in ("results", "evaluation") if (path := folder / f"{name}.json").exists()]


def shared(config):
  """What `of_one_training` compares."""
  return {
    "datasource": config.datasource,
    "method": config.method,
    "training command": training_of_any_seed(config),
  }


def of_one_training(runs):
  """Entries with "seed" and "shared", in the order of their seeds.

  Raises:
    UserError: they are not of one training, or one seed is there twice: it would pass for two, with too small an
      interval.
  """
  runs = sorted(runs, key=lambda run: run["seed"])
  if len({run["seed"] for run in runs}) < len(runs):
    raise UserError(f"two of the {len(runs)} run directories have the same seed; name each seed's once")
  for name in SHARED:
    if len({run["shared"][name] for run in runs}) > 1:
      raise UserError(f"the runs differ in {name}; they cannot be averaged")
  return runs


def training(folder, config, iterations, rows, root):
  """The commands of a training, to begin and to continue it, and its time.

  Args:
    folder: run directory.
    config: its `Config`.
    iterations: of its newest checkpoint.
    rows: of its metrics.csv, until there.
    root: the checkout, which may hold a kept checkpoint.
  """
  record = read_json(folder / "training.json") if (folder / "training.json").exists() else {}
  kept = KEPT / name_of(folder, config)
  there = newest_checkpoint(root / kept)
  continues = there is not None and iteration_of(there) == iterations < config.iterations
  return {
    "train_command": train_command(config),
    "training": record,
    # Of the steps alone, from the log: a command that was killed left no time in the record.
    "seconds_of_steps": round(sum(_spans(rows)), 1),
    "checkpoint": str(kept) if continues else None,
    "continue_command": continue_command(kept, config) if continues else None,
  }


def _spans(rows):
  """Seconds of the steps behind each row."""
  before = 0
  for row in rows:
    yield (row["iteration"] - before) * row["step_seconds"]
    before = row["iteration"]


def thinned(rows, names):
  """A training's metrics, averaged over stretches of equal length."""
  size = max(1, math.ceil(len(rows) / CURVE_POINTS))
  groups = [rows[i : i + size] for i in range(0, len(rows), size)]
  curve = {"iteration": [int(group[-1]["iteration"]) for group in groups]}
  for name in names:
    curve[name] = [round(sum(row[name] for row in group) / len(group), 5) for group in groups]
  return curve


def average(summaries):
  """Mean over seeds of {"mean", "ci95"}, its interval from the tasks, and each seed's means."""
  means, intervals = ([summary[name] for summary in summaries] for name in ("mean", "ci95"))
  n = len(summaries)
  return {
    "mean": [sum(values) / n for values in zip(*means, strict=True)],
    "ci95": [math.sqrt(sum(c * c for c in values)) / n for values in zip(*intervals, strict=True)],
    "of_each_seed": means,
  }
