"""The table of ambiguous regression: what the hypotheses of each method are worth."""

from maml_tf.experiments.config import train_command
from maml_tf.experiments.methods import AMBIGUOUS, METHODS
from maml_tf.results import descriptions
from maml_tf.results.cells import NOT_RUN, Code, Number, Table
from maml_tf.results.commands import command_for

DATASOURCE = "sine_or_line"
COLUMNS = {
  "best": "error of the best hypothesis",
  "one": "of one",
  "mean": "of their mean",
  "coverage": "readings covered, of 2",
  "negative_log_likelihood": "negative log-likelihood",
}
NOTES = (
  "± is half of the 95 % interval over test tasks, of the mean over seeds. From 5 noisy points, after as many steps as "
  "the command evaluates; squared errors at query points with noise of their own, so that none is below 0.09.",
  "A hypothesis reads the points as a line where it departs from its own best line by less than the noise does, else "
  "as a wave. The likelihood is that of a task's query points, one by one, under the mixture of its hypotheses.",
  "MAML and the baselines know one hypothesis. The papers of PLATIPUS (Finn, Xu and Levine 2018) and Bayesian MAML "
  "(Yoon et al. 2018) print no such numbers of this task: published are pictures.",
)


def table(store):
  """A row for each results file, and for each method that was not run."""
  made = Table(("sine or line", "published", *COLUMNS.values(), "seeds", "tasks", "queries", "file", "command line"))
  files = store.of_data_set(DATASOURCE)
  rows = [(file.rank, file.label, _cells(file), file.record()) for file in files]
  there = {file.content["method"] for file in files}
  for method in METHODS.values():
    if AMBIGUOUS in method.kinds and method.name not in there:
      cells = [*[NOT_RUN] * len(COLUMNS), "", "", "", "", Code(command_for(DATASOURCE, method.name))]
      record = {"datasource": DATASOURCE, "method": method.name}
      rows.append((descriptions.rank(method.name), method.title, cells, record))
  for _, label, cells, record in sorted(rows, key=lambda row: row[:2]):
    made.rows.append([label, "not printed", *cells])
    made.records.append(record)
  made.notes = NOTES
  return made


def _cells(file):
  content = file.content
  measured = content["results"][str(file.config.update_batch_size)]["hypotheses"]
  numbers = [Number(measured[name]["mean"][0], measured[name]["ci95"][0]) for name in COLUMNS]
  counts = str(len(content["runs"])), str(content["tasks"]), str(content["queries"])
  return [*numbers, *counts, file.link, Code(train_command(file.config))]
