"""The tables of walks through streams of tasks: a row for each results file, and for each method that was not run."""

from maml_tf.experiments.methods import METHODS, ONLINE
from maml_tf.results import descriptions
from maml_tf.results.cells import NOT_RUN, Code, Number, Table
from maml_tf.results.commands import command_for


def _accuracies(threshold, *amounts):
  columns = {"examples_to_threshold": (f"images to {threshold}", 1, ".0f")}
  for place, amount in enumerate(amounts):
    heading = f"{amount:,} images" if place else f"accuracy in %, {amount:,} images"
    columns[f"accuracy_after_{amount}"] = (heading, 100, ".1f")
  return columns


RAINBOW = _accuracies("90 %", 20, 100, 900)
IMAGE_SEQUENCE = _accuracies("50 %", 50, 250, 2000)
POSE = {
  "examples_to_threshold": ("images to 0.05", 1, ".0f"),
  "loss_after_20": ("squared error, 20 images", 1, ".4f"),
  "loss_after_60": ("60 images", 1, ".4f"),
  "loss_after_400": ("400 images", 1, ".4f"),
}
QUADRATICS = {
  "regret_after_10": ("regret after 10 tasks", 1, ".1f"),
  "regret_after_100": ("100 tasks", 1, ".1f"),
  "regret_after_1000": ("1,000 tasks", 1, ".1f"),
  "regret_after_3000": ("3,000 tasks", 1, ".1f"),
}
LACKING = {"quadratics": ("ftml_head",)}  # the last layer is all that there is


def makers(store):
  """Name -> function that makes the table."""
  return {
    "online": lambda: _table(store, "rainbow_mnist", "Rainbow MNIST, last 10 tasks", RAINBOW),
    "online_images": lambda: _table(store, "image_sequence", "classes in sequence, last 10 tasks", IMAGE_SEQUENCE),
    "online_pose": lambda: _table(store, "pose", "poses, last 10 tasks", POSE),
    "online_regret": lambda: _table(store, "quadratics", "quadratics", QUADRATICS),
  }


def _table(store, datasource, title, columns):
  table = Table((title, *(heading for heading, _, _ in columns.values()), "seeds", "tasks", "file, or command"))
  files = store.of_data_set(datasource)
  there = {file.content["method"] for file in files}
  rows = [(file.rank, file.label, _cells(file.content, columns, file.link), file.record()) for file in files]
  for method in METHODS.values():
    if ONLINE in method.kinds and method.name not in (*there, *LACKING.get(datasource, ())):
      command = Code(command_for(datasource, method.name))
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
