"""The paper's comparisons, a row for each cell: published, here, with how many tasks and queries, and the command."""

from maml_tf.experiments.domains.policies import published as policies
from maml_tf.results import descriptions, probabilistic, published
from maml_tf.results.cells import NOT_RUN, Code, Number, Series, Table, after
from maml_tf.results.commands import command_for
from maml_tf.results.store import iterations

NAMES = ("sinusoid", "omniglot", "miniimagenet", "context", "probabilistic")
HEADINGS = ("task", "method", "published", "source", "here", "steps", "test tasks", "queries", "iterations", "file",
            "command line")  # fmt: skip
NOT_HERE = "not in this package"
INTERVALS = "± is half of the 95 % interval over test tasks, of the mean over seeds."
SPLIT = (
  "Every run here has the same data, splits, episodes, network and evaluation, with the queries' own batch statistics."
)


def makers(store):
  """Name -> function that makes the table."""
  return {
    "omniglot": lambda: accuracies(store, "omniglot"),
    "miniimagenet": lambda: accuracies(store, "miniimagenet"),
    "context": lambda: context(store),
    "probabilistic": lambda: probabilistic.table(store),
  }


def accuracies(store, datasource, methods=None):
  """Test accuracy in % on a data set.

  Args:
    store: `Store`.
    datasource: its name.
    methods: of these alone; None: of all.
  """
  cells = [cell for cell in published.accuracies_of_all() if cell.datasource == datasource]
  files = [file for file in store.of_domain("images") if file.config.datasource == datasource]
  if methods is not None:
    cells, files = ([each for each in many if _method(each) in methods] for many in (cells, files))
  rows, done = [], set()
  for file in files:
    task = _task_of_file(file)
    cell = next((cell for cell in cells if _is_of(cell, *task, file.content["method"])), None)
    done.add(cell)
    rows.append((*_place(*task, file.content["method"], file.label), *_measured(file, cell)))
  for cell in (cell for cell in cells if cell not in done):
    task = cell.ways, cell.shots, cell.conv, cell.first_order
    rows.append((*_place(*task, cell.method, _title(cell)), *_not_run(cell)))
  rows.sort(key=lambda row: row[:-2])
  notes = (INTERVALS, SPLIT, *published.notes(datasource)) if rows else ()
  return Table(HEADINGS, [row[-2] for row in rows], [row[-1] for row in rows], notes)


def context(store):
  """Context vectors beside MAML: the paper's tables 3, 4 and 5, and sine waves."""
  images = accuracies(store, "omniglot", ("context", "maml"))
  found = [
    (cells, record)
    for cells, record in zip(images.rows, images.records, strict=True)
    if "5-way" in cells[0] and "conv=False" not in cells[1]
  ]
  for method in ("context", "maml"):
    found += [_sine(store, method), *(_returns(store, task, method) for task in policies.CONTEXT)]
  found.sort(key=lambda each: each[0][:2])
  notes = (
    INTERVALS,
    "Accuracy in % on images; 5-shot squared error after 1, 5 and 10 steps on sine waves; returns after 0, 1, 2 and 3 "
    "steps of policies, where simulators differ between versions (docs/reinforcement.md).",
    "The paper does not say how many parameters its context has, nor with what step size it is adapted.",
  )
  return Table(HEADINGS, [cells for cells, _ in found], [record for _, record in found], notes)


def _method(each):
  return each.method if hasattr(each, "method") else each.content["method"]


def _task_of_file(file):
  config = file.config
  return config.num_classes, file.content["shots"], config.conv, config.stop_grad


def _is_of(cell, ways, shots, conv, first_order, method):
  """Whether a published cell is that of a run; first-order MAML goes by two names."""
  if method == "fomaml":
    method, first_order = ("maml", True) if cell.method == "maml" else (method, cell.first_order)
  there = cell.ways, cell.shots, cell.conv, cell.first_order, cell.method
  return there == (ways, shots, conv, first_order, method)


def _place(ways, shots, conv, first_order, method, label):
  rank = descriptions.rank("fomaml" if method == "maml" and first_order else method)
  return ways, shots, not conv, rank, label


def _title(cell):
  title = descriptions.title("fomaml" if cell.first_order else cell.method)
  return title if cell.conv else f"{title}, `--conv=False`"


def _measured(file, cell):
  """(cells, record) of a results file: its evaluation with the published number of queries, on most tasks."""
  content, config = file.content, file.config
  start = [
    _task(config.datasource, config.num_classes, content["shots"]),
    file.label,
    *_printed(cell),
  ]
  end = [iterations(content), file.link, Code(_train_command(file))]
  found = _evaluation(file, published.queries(config.datasource, content["shots"]))
  if found is None:
    return [*start, "not evaluated yet", "", "", "", *end], file.record({})
  tasks, queries, summary = found
  step = published.step_of(config, content["shots"])
  mean, ci95 = after(summary, step) or after(summary, None)
  count = "none" if len(summary["mean"]) == 1 else str(len(summary["mean"]) - 1 if step is None else step)
  evaluations = content["runs"][0]["evaluations"]
  evaluation = next((e for e in evaluations if str(e["tasks"]) == tasks and queries in e["results"]), None)
  here = Number(100 * mean, 100 * ci95)
  return [*start, here, count, f"{int(tasks):,}", queries, *end], file.record(evaluation)


def _evaluation(file, queries):
  """(tasks, queries, summary): of the wanted number of queries if there is one, then of the most tasks."""
  found = [
    (label.partition(",")[0], n, summary, label.isdigit())
    for label, by_queries in file.content["results"].items()
    for n, summary in by_queries.items()
  ]
  # First those by the published protocol; another, such as bn_mode=support, is in the label of the row.
  best = max(found, key=lambda each: (each[3], each[1] == str(queries), int(each[0])), default=None)
  return best and best[:3]


def _train_command(file):
  run = file.content["runs"][0]
  return run.get("train_command") or run.get("command") or run["evaluations"][0]["command"]


def _not_run(cell):
  method = "fomaml" if cell.first_order else cell.method
  settings = {name: value for name, value in cell.settings.items() if name != "stop_grad"}
  command = command_for(cell.datasource, method, **settings)
  cells = [_task(cell.datasource, cell.ways, cell.shots), _title(cell), *_printed(cell), NOT_RUN]
  record = {"datasource": cell.datasource, "method": method}
  return [*cells, "", "", "", "", "", NOT_HERE if command is None else Code(command)], record


def _printed(cell):
  """(number as it is printed, where)."""
  if cell is None:
    return "not printed", ""
  accuracy, ci95 = 100 * cell.accuracy, None if cell.ci95 is None else 100 * cell.ci95
  one_decimal = all(abs(value - round(value, 1)) < 1e-6 for value in (accuracy, ci95 or 0.0))
  return Number(accuracy, ci95, ".1f" if one_decimal else ".2f"), cell.source


def _task(datasource, ways, shots):
  return f"{descriptions.data_set(datasource)}, {ways}-way {shots}-shot"


def _sine(store, method):
  """5-shot errors of sine waves, as cells of `HEADINGS`."""
  errors = next(errors for name, _, errors in published.sinusoid() if name == method)
  printed = "not printed" if errors is None else Series(tuple(Number(errors[step]) for step in (1, 5, 10)))
  start = ["sine waves, 5 points", descriptions.title(method), printed, "Finn et al. 2017, table 2" if errors else ""]
  file = next((f for f in store.of_data_set("sinusoid") if f.content["method"] == method), None)
  if file is None:
    command = Code(command_for("sinusoid", method))
    return [*start, NOT_RUN, "", "", "", "", "", command], {"datasource": "sinusoid", "method": method}
  content = file.content
  found = [after(content["results"]["5"], step) for step in (1, 5, 10)]
  here = Series(tuple(Number(*each) for each in found))
  count = f"{file.config.iterations:,}"
  end = ["1 / 5 / 10", str(content["tasks"]), str(content["queries"]), count, file.link, Code(_train_command(file))]
  return [*start, here, *end], file.record()


def _returns(store, task, method):
  """Returns of policies, likewise."""
  mean = policies.CONTEXT[task] if method == "context" else policies.RETURNS[task][method][0][:4]
  source = "Finn et al. 2017, table 4" if task == "point" else "Finn et al. 2017, table 5"
  start = [
    descriptions.data_set(task),
    descriptions.title(method),
    Series(tuple(Number(m) for m in mean), ", "),
    source,
  ]
  file = next((f for f in store.of_data_set(task) if f.content["method"] == method), None)
  if file is None:
    command = command_for(task, method)
    record = {"datasource": task, "method": method}
    return [*start, NOT_RUN, "", "", "", "", "", NOT_HERE if command is None else Code(command)], record
  results = file.content["results"]
  here = Series(tuple(Number(m, c) for m, c in zip(results["mean"][:4], results["ci95"], strict=False)), ", ")
  end = ["0 / 1 / 2 / 3", "", "", iterations(file.content), file.link, Code(_train_command(file))]
  return [*start, here, *end], file.record()
