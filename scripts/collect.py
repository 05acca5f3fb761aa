"""Gathers runs of several seeds into one committed results file.

  python scripts/collect.py results/sinusoid_maml.json logs/sinusoid.maml.*
  python scripts/collect.py results/omniglot_5way_1shot.json logs/omniglot.maml.cls_5.*

  python scripts/collect.py results/rl_point_maml.json logs/point.maml.*

Runs of images and of policies may be unfinished. A run directory holds its newest evaluations only, so evaluations of
the same checkpoint that an older results file of images has, with other numbers of tasks, are kept.
"""

import json
import pathlib
import re
import sys

import image_results
import rl_results
from absl import flags
from checkpoint import read_json, without_paths
from common import import_tensorflow, main_of
from image_results import average

from maml_tf.errors import UserError
from maml_tf.experiments.presets import IMAGE_DATASOURCES, PUBLISHED_SINUSOID, RL_DATASOURCES

FLAGS = flags.FLAGS
flags.DEFINE_integer("shots", None, "images: shots of the evaluations to gather (default: those of the training)")

FORMAT_VERSION = 1
# What has to be the same in all runs that are averaged.
SHARED = ("datasource", "method", "split", "tasks", "queries")
OF_EACH_RUN = ("seed", "command", "commit", "wall_seconds", "training", "versions", "hardware", "config")


def collect(arguments):
  if len(arguments) < 2:
    raise UserError("expected the file to write and at least one run directory")
  output, *folders = map(pathlib.Path, arguments)
  datasource = _datasource(folders[0])
  if datasource in RL_DATASOURCES:
    content = rl_results.collect(folders)
  elif datasource in IMAGE_DATASOURCES:
    content = image_results.collect(folders, FLAGS.shots, read_json(output) if output.exists() else None)
  else:
    content = collect_sinusoid(folders)
  import_tensorflow()
  from maml_tf.training.checkpoints import write_atomically

  write_atomically(output, _compact(json.dumps(without_paths(content), indent=1)) + "\n")
  print(f"wrote {output}: {len(content['runs'])} runs")


def collect_sinusoid(folders):
  runs = [read_json(folder / "results.json") for folder in folders]
  runs.sort(key=lambda run: run["seed"])
  for name in SHARED:
    values = {run[name] for run in runs}
    if len(values) > 1:
      raise UserError(f"the runs differ in {name}: {', '.join(map(str, values))}; they cannot be averaged")
  shots = runs[0]["results"].keys()
  return {
    "format_version": FORMAT_VERSION,
    **{name: runs[0][name] for name in SHARED},
    "metric": "mean squared error after 0, 1, ... gradient steps, by number of support points",
    "interval": "95 %: 1.96 standard errors over test tasks, of the mean over seeds",
    "results": {k: _of_shots([run["results"][k] for run in runs]) for k in shots},
    "published_5_shot": PUBLISHED_SINUSOID.get(runs[0]["method"]),
    "runs": [{**{n: run[n] for n in OF_EACH_RUN}, "results": run["results"]} for run in runs],
  }


def _of_shots(results):
  return average([result["mse"] for result in results]) | {"inner_lr": [result["inner_lr"] for result in results]}


def _datasource(folder):
  """Of a run directory; one that is still training has no results yet, one that was only evaluated no config."""
  config = folder / "config.json"
  return read_json(config if config.exists() else folder / "results.json")["datasource"]


def _compact(text):
  """Puts each list of numbers on one line."""
  return re.sub(r"\[[-+.\de,\s]+\]", lambda match: f"[{' '.join(match[0][1:-1].split())}]", text)


if __name__ == "__main__":
  sys.exit(main_of(collect, __doc__))
