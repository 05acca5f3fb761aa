"""The tables of walks through streams of tasks: a row for each results file, and for each method that was not run."""

from maml_tf.experiments.methods import METHODS, ONLINE
from maml_tf.results import descriptions
from maml_tf.results.cells import NOT_RUN, Code, Number, Table
from maml_tf.results.commands import command_for

RAINBOW = {
  "examples_to_threshold": ("images to 90 %", 1, ".0f"),
  "accuracy_after_20": ("accuracy in %, 20 images", 100, ".1f"),
  "accuracy_after_100": ("100 images", 100, ".1f"),
  "accuracy_after_900": ("900 images", 100, ".1f"),
}
QUADRATICS = {
  "regret_after_10": ("regret after 10 tasks", 1, ".1f"),
  "regret_after_100": ("100 tasks", 1, ".1f"),
  "regret_after_1000": ("1,000 tasks", 1, ".1f"),
  "regret_after_3000": ("3,000 tasks", 1, ".1f"),
}
NO_LAST_LAYER = {"quadratics": ("ftml_head",)}  # it is all that there is


def makers(store):
  """Name -> function that makes the table."""
  return {
    "online": lambda: _table(store, "rainbow_mnist", "Rainbow MNIST, last 10 tasks", RAINBOW),
    "online_regret": lambda: _table(store, "quadratics", "quadratics", QUADRATICS),
  }


def _table(store, datasource, title, columns):
  table = Table((title, *(heading for heading, _, _ in columns.values()), "seeds", "tasks", "file, or command"))
  files = store.of_data_set(datasource)
  there = {file.content["method"] for file in files}
  rows = [(file.rank, file.label, _cells(file.content, columns, file.link), file.record()) for file in files]
  for method in METHODS.values():
    if ONLINE in method.kinds and method.name not in (*there, *NO_LAST_LAYER.get(datasource, ())):
      command = Code(command_for(datasource, method.name).removesuffix(" --test_set=True"))
      cells = [*[NOT_RUN] * len(columns), "", "", command]
      record = {"datasource": datasource, "method": method.name}
      rows.append((descriptions.rank(method.name), method.title, cells, record))
  for _, label, cells, record in sorted(rows, key=lambda row: row[:2]):
    table.rows.append([label, *cells])
    table.records.append(record)
  return table


def _cells(content, columns, link):
  return [
    *(_number(content["results"].get(name), factor, style) for name, (_, factor, style) in columns.items()),
    str(len(content["runs"])),
    _progress(content),
    link,
  ]


def _number(found, factor, style):
  if found is None:
    return "not there yet"
  ci95 = None if found["ci95"] is None else factor * found["ci95"]
  return Number(factor * found["mean"], ci95, style)


def _progress(content):
  done, of = content["tasks"], content["of_tasks"]
  return f"{done:,}" if done >= of else f"{done:,} of {of:,}"
