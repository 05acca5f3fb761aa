"""The results file of image runs: what `collect.py` makes of their run directories, finished or not."""

import csv
import math
import pathlib

from checkpoint import config_of, continue_command, iteration_of, name_of, newest_checkpoint, read_json, train_command

from maml_tf.errors import UserError
from maml_tf.experiments.config import resolve
from maml_tf.experiments.presets import published_accuracy

ROOT = pathlib.Path(__file__).parents[1]
KEPT = ROOT / "results" / "checkpoints"
CURVE_POINTS = 100
CURVE_STEPS = (0, 1, 3, 5, 10)
# What has to be the same in all runs that are averaged: whatever shapes training but the seed.
SHARED = ("datasource", "method", "training command")
PROTOCOL = {"bn_mode": "transductive", "eval_updates": 10}
SPEED = ("task_chunk", "checkpoint_inner_steps", "jit_compile")  # these change no result
OF_EACH_EVALUATION = ("tasks", "command", "commit", "wall_seconds", "versions", "hardware", "results")


def collect(folders, shots, before):
  """The content of a results file.

  Args:
    folders: run directories, of several seeds of one training.
    shots: of the evaluations to gather; None: those of the training.
    before: the content of the file that is to be replaced, or None. Its evaluations of the same checkpoint stay.
  """
  runs = of_one_training([read_run(pathlib.Path(folder), shots) for folder in folders])
  for run in runs:
    _keep_evaluations(run, before)
  first = runs[0]
  return {
    "format_version": 1,
    **{name: first["shared"][name] for name in ("datasource", "method")},
    "ways": first["config"]["num_classes"],
    "shots": first["shots"],
    "split": "test",
    "metric": "accuracy after 0, 1, ... gradient steps, by number of test tasks and of query images per class",
    "interval": "95 %: 1.96 standard errors over test tasks, of the mean over seeds",
    "results": _averages(runs),
    "published": first["published"],
    "iterations": min(run["iterations"] for run in runs),
    "of_iterations": first["of_iterations"],
    "runs": [{name: value for name, value in run.items() if name != "shared"} for run in runs],
  }


def of_one_training(runs):
  """Entries of `read_run`, in the order of their seeds.

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


def shared(config):
  """What `of_one_training` compares."""
  return {
    "datasource": config.datasource,
    "method": config.trained_with,
    "training command": _without_seed(config),
  }


def evaluations_in(folder):
  """The evaluations that a run directory has."""
  return [read_json(path) for name in ("results", "evaluation") if (path := folder / f"{name}.json").exists()]


def read_run(folder, shots):
  """One run directory as an entry of the results file."""
  evaluations = evaluations_in(folder)
  imported = [e for e in evaluations if e["config"]["init_from"] is not None and not e["config"]["train"]]
  config = resolve(**imported[0]["config"]) if imported else config_of(folder)
  checkpoint = newest_checkpoint(folder)
  if checkpoint is None and not imported:
    raise UserError(f"{folder}: no checkpoint and no evaluation in it yet")
  iterations = iteration_of(checkpoint) if checkpoint else 0
  shots = shots or config.training_shots
  evaluations = [e for e in evaluations if _counts(e, shots, iterations)]
  return {
    "shared": shared(config),
    "seed": config.seed,
    "shots": shots,
    "published": published(config, shots),
    "iterations": iterations,
    "of_iterations": config.iterations if checkpoint else 0,
    **(_training(folder, config, iterations) if checkpoint else {"init_from": config.init_from}),
    "evaluations": [{n: e[n] for n in OF_EACH_EVALUATION} | {"settings": _settings(e)} for e in evaluations],
    "config": config.portable(),
  }


def published(config, shots):
  """The paper's accuracy and the step after which it is read, or None."""
  found = published_accuracy(config, shots)
  return None if found is None else {"accuracy": found[0], "step": found[1]}


def _training(folder, config, iterations):
  """How a run was trained, how far it came, and how to go on with it."""
  rows = [rows_until(folder / f"{name}.csv", iterations) for name in ("metrics", "validation")]
  curve = {"training": thinned(rows[0], _curve_names(rows[0])), "validation": _validation(rows[1])}
  return training(folder, config, iterations, rows[0]) | {"learning_curve": curve}


def training(folder, config, iterations, rows):
  """The commands of a training, to begin and to continue it, and its time; `rows` are those of metrics.csv."""
  record = read_json(folder / "training.json") if (folder / "training.json").exists() else {}
  kept = KEPT / name_of(folder, config)
  there = newest_checkpoint(kept)
  continues = there is not None and iteration_of(there) == iterations < config.iterations
  return {
    "train_command": train_command(config),
    "training": record,
    # Of the steps alone, from the log: a command that was killed left no time in the record.
    "seconds_of_steps": round(sum(_spans(rows)), 1),
    "checkpoint": str(kept.relative_to(ROOT)) if continues else None,
    "continue_command": continue_command(kept.relative_to(ROOT), config) if continues else None,
  }


def _keep_evaluations(run, before):
  """Adds the evaluations of an older file: a run directory holds only its newest."""
  for older in (before or {"runs": []})["runs"]:
    same = all(older[name] == run[name] for name in ("seed", "shots", "iterations"))
    if same and older.get("init_from") == run.get("init_from"):
      run["evaluations"] += [e for e in older["evaluations"] if not _repeated(e, run["evaluations"])]
  run["evaluations"].sort(key=lambda evaluation: evaluation["tasks"])  # stable: of two alike, the newer comes first


def _repeated(evaluation, newer):
  """Whether the newer evaluations have all that it has."""
  alike = [other["results"] for other in newer if _label(other) == _label(evaluation)]
  return set(evaluation["results"]) <= set().union(*alike)


def _averages(runs):
  """Number of test tasks -> queries per class -> accuracy, for the evaluations that all runs have."""
  by_label = [_by_label(run) for run in runs]
  shared = {label: set.intersection(*(set(r.get(label, {})) for r in by_label)) for label in by_label[0]}
  return {
    label: {
      queries: average([results[label][queries]["accuracy"] for results in by_label])
      for queries in by_label[0][label]
      if queries in all_have
    }
    for label, all_have in shared.items()
    if all_have
  }


def _by_label(run):
  """Label -> queries per class -> results, from all evaluations of a run."""
  merged = {}
  for evaluation in run["evaluations"]:
    merged[_label(evaluation)] = evaluation["results"] | merged.get(_label(evaluation), {})
  return {label: dict(sorted(results.items(), key=lambda item: int(item[0]))) for label, results in merged.items()}


def average(summaries):
  """Mean over seeds of {"mean", "ci95"}, its interval from the tasks, and each seed's means."""
  means, intervals = ([summary[name] for summary in summaries] for name in ("mean", "ci95"))
  n = len(summaries)
  return {
    "mean": [sum(values) / n for values in zip(*means, strict=True)],
    "ci95": [math.sqrt(sum(c * c for c in values)) / n for values in zip(*intervals, strict=True)],
    "of_each_seed": means,
  }


def _counts(evaluation, shots, iterations):
  """Whether it is one of test tasks, with these shots, of this checkpoint."""
  config = evaluation["config"]
  of_this = evaluation["training"]["iteration"] == iterations
  return evaluation["split"] == "test" and config["update_batch_size"] == shots and of_this


def _settings(evaluation):
  """The choices of an evaluation that differ from the published protocol."""
  config = evaluation["config"]
  chosen = {name: config[name] for name in PROTOCOL if config.get(name, PROTOCOL[name]) != PROTOCOL[name]}
  if config["train_update_lr"] not in (-1, config["update_lr"]):
    chosen["update_lr"] = config["update_lr"]
  return chosen


def _label(evaluation):
  return ", ".join([str(evaluation["tasks"]), *(f"{n}={v}" for n, v in evaluation["settings"].items())])


def _without_seed(config):
  aside = tuple(f"--{name}=" for name in ("seed", *SPEED))
  return " ".join(part for part in train_command(config).split() if not part.startswith(aside))


def rows_until(path, iterations):
  """The rows of a log up to the checkpoint: a run that was killed may have logged more."""
  if not path.exists():
    return []
  with open(path, newline="", encoding="utf-8") as file:
    rows = [{name: float(value) for name, value in row.items() if value} for row in csv.DictReader(file)]
  return [row for row in rows if row["iteration"] <= iterations]


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


def _curve_names(rows):
  accuracy = next((name for name in (rows[0] if rows else []) if name.startswith("query_accuracy/")), "loss")
  return ("loss", accuracy)


def _validation(rows):
  """Accuracy on validation tasks after the steps of the tables."""
  names = [name for step in CURVE_STEPS if (name := f"accuracy/step_{step}") in (rows[0] if rows else [])]
  curve = {"iteration": [int(row["iteration"]) for row in rows]}
  return curve | {name: [round(row[name], 5) for row in rows] for name in names}
