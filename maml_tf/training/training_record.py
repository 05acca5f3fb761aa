"""training.json: the commands that trained a run, where each began, and how long they trained."""

import contextlib
import math

from maml_tf.regular_files import read_table

_NUMBERS = ("iteration", "seconds", "compile_seconds", "validation_seconds", "timed_iterations", "evaluated_iteration")


def read(path):
  """The record as a dict, without whatever in it is not of its kind; empty where there is none that can be read."""
  try:
    found = read_table(path)
  except (OSError, ValueError):
    return {}
  record = {name: value for name, value in found.items() if name not in _NUMBERS or _counts(value)}
  for name, kind in (("commands", (str, type(None))), ("starts", dict)):
    entries = found.get(name)
    record[name] = [e for e in entries if isinstance(e, kind)] if isinstance(entries, list) else []
  rate = record.get("iterations_per_second")
  if rate is not None and not _counts(rate):
    del record["iterations_per_second"]
  return record


def add_start(directory, iteration, command, commit):
  """Adds a command and its commit, and where it goes on from, before it trains: it may be killed."""
  record = read(directory.training)
  start = {"iteration": iteration, "command": command, "commit": commit}
  directory.write_json(directory.training, {**record, "starts": [*record.get("starts", []), start]})


def add(directory, training, command):
  """Adds what the trainer says of a command, finished or interrupted; returns the record."""
  before = read(directory.training)
  done = training["iteration"] - training.get("resumed_from", training["iteration"])
  if done == 0:
    kept = ("iteration", "init_from", "evaluated_iteration")
    return before | {name: training[name] for name in kept if name in training}
  timed = before.get("timed_iterations", 0) + done
  total = {n: before.get(n, 0.0) + training.get(n, 0.0) for n in ("seconds", "compile_seconds", "validation_seconds")}
  record = {
    "iteration": training["iteration"],
    **total,
    "timed_iterations": timed,  # fewer than `iteration` where a command was killed: it left no time behind
    "iterations_per_second": timed / total["seconds"] if total["seconds"] else None,
    "commands": [*before.get("commands", []), command],
    "starts": before.get("starts", []),
  }
  directory.write_json(directory.training, record)
  return record


def _counts(value):
  """Whether a number can be one of iterations or seconds."""
  with contextlib.suppress(OverflowError):
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value) and value >= 0
  return False
