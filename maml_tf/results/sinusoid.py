"""The results file of sinusoid runs: what is made of their run directories, all finished."""

from maml_tf.errors import UserError
from maml_tf.experiments.config import from_record
from maml_tf.results import published
from maml_tf.results.files import read_json
from maml_tf.results.runs import average

# What has to be the same in all runs that are averaged.
SHARED = ("datasource", "method", "split", "tasks", "queries")
OF_EACH_RUN = ("seed", "command", "commit", "wall_seconds", "training", "versions", "hardware", "config")


def collect(folders):
  """The content of a results file, from run directories of several seeds of one training."""
  runs = sorted((read_json(folder / "results.json") for folder in folders), key=lambda run: run["seed"])
  for name in SHARED:
    values = {run[name] for run in runs}
    if len(values) > 1:
      raise UserError(f"the runs differ in {name}: {', '.join(map(str, values))}; they cannot be averaged")
  return {
    "format_version": 1,
    **{name: runs[0][name] for name in SHARED},
    "metric": "mean squared error after 0, 1, ... gradient steps, by number of support points",
    "interval": "95 %: 1.96 standard errors over test tasks, of the mean over seeds",
    "results": {shots: _average_of([run["results"][shots] for run in runs]) for shots in runs[0]["results"]},
    "published_5_shot": published.sinusoid_errors(from_record(runs[0]["config"])),
    "runs": [{**{name: run[name] for name in OF_EACH_RUN}, "results": run["results"]} for run in runs],
  }


def _average_of(results):
  return average([result["mse"] for result in results]) | {"inner_lr": [result["inner_lr"] for result in results]}
