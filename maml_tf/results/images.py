"""The results file of image runs: what is made of their run directories, finished or not."""

from maml_tf.errors import UserError
from maml_tf.experiments.config import from_record
from maml_tf.results import labels, published
from maml_tf.results.files import rows_until
from maml_tf.results.runs import (
  OF_AN_EVALUATION,
  average,
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

CURVE_STEPS = (0, 1, 3, 5, 10)


def collect(folders, root, shots, before):
  """The content of a results file.

  Args:
    folders: run directories, of several seeds of one training.
    root: the checkout, which may hold kept checkpoints.
    shots: of the evaluations to gather; None: those of the training.
    before: the content of the file that is to be replaced, or None. Its evaluations of the same checkpoint stay.
  """
  runs = of_one_training([read_run(folder, root, shots) for folder in folders])
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


def read_run(folder, root, shots):
  """One run directory as an entry of the results file."""
  evaluations = evaluations_in(folder)
  imported = [e for e in evaluations if e["config"]["init_from"] is not None and not e["config"]["train"]]
  record = imported[0]["config"] if imported else record_of(folder)
  config = from_record(record)
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
    "published": published.of_config(config, shots),
    "iterations": iterations,
    "of_iterations": config.iterations if checkpoint else 0,
    **(_training(folder, config, iterations, root) if checkpoint else {"init_from": config.init_from}),
    "evaluations": [
      {n: e[n] for n in OF_AN_EVALUATION} | {"settings": labels.unusual(e["config"])} for e in evaluations
    ],
    "config": portable(record),
  }


def _kept_of(evaluation):
  return {name: evaluation[name] for name in OF_AN_EVALUATION} | {"settings": labels.unusual(evaluation["config"])}


def _training(folder, config, iterations, root):
  """How a run was trained, how far it came, and how to go on with it."""
  rows = [rows_until(folder / f"{name}.csv", iterations) for name in ("metrics", "validation")]
  curve = {"training": thinned(rows[0], _curve_names(rows[0])), "validation": _validation(rows[1])}
  return training(folder, config, iterations, rows[0], root) | {"learning_curve": curve}


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
  by_all = {label: set.intersection(*(set(r.get(label, {})) for r in by_label)) for label in by_label[0]}
  return {
    label: {
      queries: average([results[label][queries]["accuracy"] for results in by_label])
      for queries in by_label[0][label]
      if queries in all_have
    }
    for label, all_have in by_all.items()
    if all_have
  }


def _by_label(run):
  """Label -> queries per class -> results, from all evaluations of a run."""
  merged = {}
  for evaluation in run["evaluations"]:
    merged[_label(evaluation)] = evaluation["results"] | merged.get(_label(evaluation), {})
  return {label: dict(sorted(results.items(), key=lambda item: int(item[0]))) for label, results in merged.items()}


def _counts(evaluation, shots, iterations):
  """Whether it is one of test tasks, with these shots, of this checkpoint."""
  config = evaluation["config"]
  of_this = evaluation["training"]["iteration"] == iterations
  of_these_shots = not labels.is_labelled(config) or config["update_batch_size"] == shots
  return evaluation["split"] == "test" and of_these_shots and of_this


def _label(evaluation):
  return labels.label(evaluation["tasks"], evaluation["settings"])


def _curve_names(rows):
  accuracy = next((name for name in (rows[0] if rows else []) if name.startswith("query_accuracy/")), "loss")
  return ("loss", accuracy)


def _validation(rows):
  """Accuracy on validation tasks after the steps of the tables."""
  names = [name for step in CURVE_STEPS if (name := f"accuracy/step_{step}") in (rows[0] if rows else [])]
  curve = {"iteration": [int(row["iteration"]) for row in rows]}
  return curve | {name: [round(row[name], 5) for row in rows] for name in names}
