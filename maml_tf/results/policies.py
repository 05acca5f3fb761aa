"""The results file of policies: what is made of their run directories, finished or not."""

import math

from maml_tf.errors import UserError
from maml_tf.experiments.config import from_record, train_command
from maml_tf.results import published
from maml_tf.results.files import rows_until
from maml_tf.results.runs import (
  OF_AN_EVALUATION,
  evaluations_in,
  iteration_of,
  newest_checkpoint,
  of_one_training,
  portable,
  record_of,
  shared,
  thinned,
  training,
)


def collect(folders, root):
  """The content of a results file.

  Args:
    folders: run directories, of several seeds of one training.
    root: the checkout, which may hold kept checkpoints.
  """
  runs = of_one_training([read_run(folder, root) for folder in folders])
  first = runs[0]
  datasource, method = first["shared"]["datasource"], first["shared"]["method"]
  printed = published.returns().get(datasource, {}).get(method)
  return {
    "format_version": 1,
    "datasource": datasource,
    "method": method,
    "metric": "undiscounted return after 0, 1, ... gradient steps, mean over the test goals and the seeds",
    "interval": "95 %: 1.96 standard errors over test goals, which are the same for all seeds, of the mean over seeds",
    "tasks": first["evaluation"]["tasks"],
    "rollouts_per_task": first["evaluation"]["results"]["rollouts_per_task"],
    "results": over_seeds([run["evaluation"]["results"]["return"] for run in runs]),
    "published": None if printed is None else {"mean": printed[0], "ci95": printed[1]},
    "iterations": min(run["iterations"] for run in runs),
    "of_iterations": first["of_iterations"],
    "runs": [{name: value for name, value in run.items() if name != "shared"} for run in runs],
  }


def over_seeds(returns):
  """Mean over seeds of {"mean", "ci95", "of_each_task"}: of each goal first, since all seeds have the same goals."""
  goals = [[sum(goal) / len(returns) for goal in zip(*step, strict=True)] for step in _by_step(returns)]
  means = [sum(step) / len(step) for step in goals]
  deviations = [math.sqrt(sum((r - m) ** 2 for r in step) / len(step)) for step, m in zip(goals, means, strict=True)]
  return {
    "mean": means,
    "ci95": [1.96 * d / math.sqrt(len(step)) for d, step in zip(deviations, goals, strict=True)],
    "of_each_seed": [summary["mean"] for summary in returns],
  }


def _by_step(returns):
  """[steps][seeds][goals]."""
  return zip(*(summary["of_each_task"] for summary in returns), strict=True)


def read_run(folder, root):
  """What a run directory tells."""
  evaluation = _newest_evaluation(folder)
  iterations = evaluation["training"]["iteration"]
  # Random weights, which were never trained, have no config.json of their own.
  record = record_of(folder) if (folder / "config.json").exists() else evaluation["config"]
  config = from_record(record)
  return {
    "shared": shared(config),
    "seed": config.seed,
    "iterations": iterations,
    "of_iterations": config.iterations,
    "evaluated_iteration": evaluation["training"].get("evaluated_iteration", iterations),
    "evaluation": {name: evaluation[name] for name in OF_AN_EVALUATION},
    **_training(folder, config, iterations, root),
    "config": portable(record),
  }


def _newest_evaluation(folder):
  """Of the newest checkpoint, on test goals."""
  checkpoint = newest_checkpoint(folder)
  newest = iteration_of(checkpoint) if checkpoint else 0
  fitting = [e for e in evaluations_in(folder) if e["split"] == "test" and e["training"]["iteration"] == newest]
  if not fitting:
    raise UserError(
      f"{folder}: no evaluation of its newest checkpoint, of iteration {newest}; the training's command with "
      "--train=False makes one"
    )
  return max(fitting, key=lambda e: e["tasks"])


def _training(folder, config, iterations, root):
  """How a run was trained, its learning curve, and how to go on with it."""
  if iterations == 0:
    return {"train_command": train_command(config)}
  rows = rows_until(folder / "metrics.csv", iterations)
  returns = [name for name in rows[0] if name.startswith("return/")]
  return {
    **training(folder, config, iterations, rows, root),
    "seconds_of_rollouts": round(sum(row["rollout_seconds"] for row in rows), 1),
    "diverged_simulations": int(sum(row["diverged_simulations"] for row in rows)),
    "learning_curve": thinned(rows, (*returns, "kl", "entropy")),
  }


def gap_closed(mean, oracle):
  """(R_k - R_0) / (R_oracle - R_0) for each step k: what carries over between versions of the simulator."""
  return [(value - mean[0]) / (oracle - mean[0]) for value in mean]
