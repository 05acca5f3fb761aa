"""The front page's tables, made from the rows of the whole ones: what was trained here beside what was published."""

import dataclasses
import os

from maml_tf.experiments.config import resolve
from maml_tf.results import descriptions
from maml_tf.results.cells import Link, Number, Series, Table

METHOD = "maml"  # the paper's; its relatives and the baselines are in the whole tables
SHOWN = ("sinusoid", "omniglot", "miniimagenet")  # of the benchmarks, the published settings


@dataclasses.dataclass(frozen=True)
class Linked:
  """A cell, with the file of the checkout that it comes from."""

  cell: object
  link: Link

  def markdown(self, folder):
    text = self.cell if isinstance(self.cell, str) else self.cell.markdown(folder)
    return f"[{text}]({os.path.relpath(self.link.path, folder)})"

  def plain(self):
    return self.cell if isinstance(self.cell, str) else self.cell.plain()

  @property
  def ci95(self):
    return getattr(self.cell, "ci95", None)


def experiments(store, sinusoid, images, policies):
  """A line for each training of MAML.

  Args:
    store: `Store`.
    sinusoid, images, policies: the whole tables.
  """
  rows = [*_sinusoid(store, sinusoid), *_images(images), *_policies(policies)]
  return Table(("experiment", "measure", "published", "here", "iterations"), rows)


def _trainings(table, *, method):
  """Rows of the table as dicts by heading, of those of MAML that have a file here."""
  for cells, record in zip(table.rows, table.records, strict=True):
    row = dict(zip(table.headings, cells, strict=True))
    row["file"] = row.get("file", row.get("file, or command"))
    if record["method"] == METHOD and isinstance(row["file"], Link) and row.get("iterations") != "":
      row["changed"] = row[method].removeprefix(descriptions.title(METHOD))  # ", `--flag=value`", or nothing
      yield row


def _sinusoid(store, table):
  configs = {file.link: file.config for file in store.files}
  for row in _trainings(table, method="5 points"):
    errors = Series(tuple(Number(row[step].value) for step in ("after 1 step", "5 steps", "10 steps")))
    here = Linked(errors, row["file"])
    measure = "squared error after 1 / 5 / 10 steps"
    count = f"{configs[row['file']].metatrain_iterations:,}"
    yield [f"sine waves, 5 points{row['changed']}", measure, row["published"], here, count]


def _images(table):
  """With as many queries as published, which the whole table has in bold; on the largest number of tasks."""
  found = {}
  for row in _trainings(table, method="method"):
    accuracy = next((cell for cell in row.values() if isinstance(cell, Number) and cell.bold), None)
    name, count = f"{row['accuracy in %']}{row['changed']}", row["test tasks"].replace(",", "")
    tasks = int(count) if count.isdigit() else 0  # none yet, or of another protocol
    if accuracy is not None and tasks > found.get(name, (0,))[0]:
      here = Linked(dataclasses.replace(accuracy, bold=False), row["file"])
      found[name] = tasks, [name, "accuracy in %", row["published"], here, row["iterations"]]
  return [cells for _, cells in found.values()]


def _policies(table):
  """The share of the gap to the oracle: returns themselves differ between versions of the simulator."""
  for row in _trainings(table, method="method"):
    here = Linked(row["gap closed"].partition(";")[0], row["file"])
    measure = "gap closed after 1 / 2 / 3 steps"
    yield [f"{row['task']}{row['changed']}", measure, row["its gap"], here, row["iterations"]]


def speed(benchmarks):
  """How long a second-order step takes as the preset computes it, and how many times faster than others that is.

  Args:
    benchmarks: name -> content of the files that the benchmarks made.
  """
  rows = []
  for name in (name for name in SHOWN if name in benchmarks):
    content = benchmarks[name]
    contender = "maml_tf, XLA" if resolve(name).jit_compile else "maml_tf, graph"
    if "milliseconds" in content:
      milliseconds = content["milliseconds"][contender]
    else:
      milliseconds = 1000 / content["iterations_per_second"][contender]
    over = [content.get(key, {}).get(contender) for key in ("over_loop", "over_vmap", "over_map_fn")]
    ratios = ["—" if ratio is None else Number(ratio, format=".1f") for ratio in over]
    title = descriptions.data_set(name)
    rows.append([title, Number(milliseconds, format=",.0f" if milliseconds > 10 else ".2f"), *ratios])
  return Table(("second-order step", "ms", "× PyTorch loop", "× PyTorch vmap", "× tf.map_fn"), rows)
