"""Gathers runs of several seeds into one committed results file.

python scripts/collect.py results/sinusoid_maml.json logs/sinusoid.maml.*
"""

import json
import math
import pathlib
import sys

from common import import_tensorflow, main_of

from maml_tf.errors import UserError
from maml_tf.experiments.presets import PUBLISHED_SINUSOID

FORMAT_VERSION = 1
# What has to be the same in all runs that are averaged.
SHARED = ("datasource", "method", "split", "tasks", "queries")
OF_EACH_RUN = ("seed", "command", "commit", "wall_seconds", "training", "versions", "hardware", "config")


def collect(arguments):
  if len(arguments) < 2:
    raise UserError("expected the file to write and at least one run directory")
  output, *folders = arguments
  runs = [read(pathlib.Path(folder)) for folder in folders]
  runs.sort(key=lambda run: run["seed"])
  for name in SHARED:
    values = {run[name] for run in runs}
    if len(values) > 1:
      raise UserError(f"the runs differ in {name}: {', '.join(map(str, values))}; they cannot be averaged")
  shots = runs[0]["results"].keys()
  content = {
    "format_version": FORMAT_VERSION,
    **{name: runs[0][name] for name in SHARED},
    "metric": "mean squared error after 0, 1, ... gradient steps, by number of support points",
    "interval": "95 %: 1.96 standard errors over test tasks, of the mean over seeds",
    "results": {k: average([run["results"][k] for run in runs]) for k in shots},
    "published_5_shot": PUBLISHED_SINUSOID.get(runs[0]["method"]),
    "runs": [{**{n: run[n] for n in OF_EACH_RUN}, "results": run["results"]} for run in runs],
  }
  import_tensorflow()
  from maml_tf.training.checkpoints import write_atomically

  write_atomically(output, json.dumps(content, indent=1) + "\n")
  print(f"wrote {output}: {len(runs)} runs")


def read(folder):
  path = folder / "results.json"
  try:
    return json.loads(path.read_text(encoding="utf-8"))
  except OSError as error:
    raise UserError(f"{path}: {error.strerror}; name run directories that main.py made") from error
  except ValueError as error:
    raise UserError(f"{path}: damaged ({error})") from error


def average(results):
  """Mean over seeds, its interval from the tasks, and each seed's means."""
  means = [result["mse"]["mean"] for result in results]
  intervals = [result["mse"]["ci95"] for result in results]
  n = len(results)
  return {
    "mean": [sum(values) / n for values in zip(*means, strict=True)],
    "ci95": [math.sqrt(sum(c * c for c in values)) / n for values in zip(*intervals, strict=True)],
    "of_each_seed": means,
    "inner_lr": [result["inner_lr"] for result in results],
  }


if __name__ == "__main__":
  sys.exit(main_of(collect, __doc__))
