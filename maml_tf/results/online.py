"""The results file of walks through streams of tasks: over orders of the tasks, or draws of them (quadratics)."""

import math
import statistics

from maml_tf.errors import UserError
from maml_tf.experiments.config import from_record
from maml_tf.results.files import rows_until
from maml_tf.results.runs import evaluations_in, of_one_training, portable, record_of, shared, training

LAST_TASKS = 10
OF_A_RUN = ("command", "commit", "wall_seconds", "versions", "hardware")
OF_IMAGES = (
  "of the last 10 tasks: median number of images until the threshold, not reached counts as all; mean accuracy "
  "(poses: loss) on held-out images after some numbers of images; mean loss with all of them"
)
OF_QUADRATICS = "cumulative regret against the best initialisation in hindsight, by number of tasks"


def collect(folders, root):
  """The content of a results file.

  Args:
    folders: run directories, of several seeds of one training.
    root: the checkout, which may hold kept checkpoints.

  Raises:
    UserError: no task has come to its end yet, or the runs do not belong together.
  """
  runs = of_one_training([read_run(folder, root) for folder in folders])
  datasource, method = (runs[0]["shared"][name] for name in ("datasource", "method"))
  summarise, metric = (regrets, OF_QUADRATICS) if datasource == "quadratics" else (last_tasks, OF_IMAGES)
  return {
    "format_version": 1,
    "datasource": datasource,
    "method": method,
    "metric": metric,
    "interval": "95 %: 1.96 standard errors over seeds, of which the order of the tasks hangs; null for one seed",
    "tasks": min(run["results"]["tasks"] for run in runs),
    "of_tasks": runs[0]["results"]["of_tasks"],
    "results": over_seeds([summarise(run["results"]) for run in runs]),
    "published": None,
    "iterations": min(run["iterations"] for run in runs),
    "of_iterations": runs[0]["of_iterations"],
    "runs": [{name: value for name, value in run.items() if name != "shared"} for run in runs],
  }


def read_run(folder, root):
  """What a run directory tells."""
  config = from_record(record_of(folder))
  evaluations = evaluations_in(folder)
  if not evaluations:
    raise UserError(f"{folder}: no results yet; the training's command with --train=False writes what there is")
  found = max(evaluations, key=lambda evaluation: evaluation["training"]["iteration"])
  iterations = found["training"]["iteration"]
  if not found["results"]["tasks"]:
    raise UserError(f"{folder}: no task has come to its end yet; the training's command goes on with it")
  rows = rows_until(folder / "metrics.csv", iterations)
  return {
    "shared": shared(config),
    "seed": config.seed,
    **{name: found[name] for name in OF_A_RUN},
    "results": _kept(found["results"]),
    "iterations": iterations,
    "of_iterations": config.iterations,
    **training(folder, config, iterations, rows, root),
    # Time of a round: it must not grow with the rounds (beyond what the data of a task itself costs).
    "seconds_of_a_round": [round(row["step_seconds"], 4) for row in rows[:: math.ceil(len(rows) / 100)]],
    "config": portable(record_of(folder)),
  }


def _kept(results):
  """Without what each of thousands of quadratics cost: the regret says it."""
  return {name: values for name, values in results.items() if name != "loss" or "regret" not in results}


def last_tasks(results):
  """{name: number} of a stream of images."""
  last = slice(-LAST_TASKS, None)
  measured = [name for name in ("accuracy_after", "loss_after") if name in results]
  after = {f"{name}_{n}": statistics.fmean(v[last]) for name in measured for n, v in results[name].items()}
  return {
    "examples_to_threshold": float(statistics.median(results["examples_to_threshold"][last])),
    "share_reached": statistics.fmean(results["reached"][last]),
    **after,
    "proficiency": statistics.fmean(results["proficiency"][last]),
  }


def regrets(results):
  """{"regret_after_10": number, ...} of quadratics."""
  by_rounds = dict(zip(results["rounds"], results["regret"], strict=True))
  return {f"regret_after_{n}": by_rounds[n] for n in (10, 100, 1000, 3000) if n in by_rounds}


def over_seeds(summaries):
  """{name: {"mean", "ci95", "of_each_seed"}} of what all seeds have."""
  together = {}
  for name in summaries[0]:
    values = [summary[name] for summary in summaries if name in summary]
    if len(values) == len(summaries):
      error = 1.96 * statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else None
      together[name] = {"mean": statistics.fmean(values), "ci95": error, "of_each_seed": values}
  return together
