"""The tables of results: one row for each results file and for each published figure that was not reproduced yet.

What a row says comes from the file: a method or a data set that is new needs no line here.
"""

import functools

from maml_tf.errors import UserError
from maml_tf.experiments.config import train_command
from maml_tf.results import benchmark_tables, descriptions, headline, online_tables, paper_tables, published
from maml_tf.results.cells import NOT_RUN, Code, Number, Series, Table, Words, after
from maml_tf.results.commands import command_for
from maml_tf.results.files import read_json
from maml_tf.results.store import Store, iterations

SINUSOID_STEPS = (1, 5, 10)
# No simulator's version stands between the published returns and ours: the dynamics are one addition.
EXACT = ("point",)


def make(root, names=()):
  """Tables by name.

  Args:
    root: the checkout with results/ and pretrained/.
    names: of tables, or of data sets: the rows of that alone; none: all tables that have a row.

  Raises:
    UserError: an unknown name, or a results file that cannot be read.
  """
  store = Store(root)
  makers = _makers(store)
  unknown = [name for name in names if name not in makers]
  if unknown:
    raise UserError(f"{unknown[0]}: no such table; there are {', '.join(makers)}")
  chosen = names or [name for name in makers if name not in _parts(store)]
  tables = {name: makers[name]() for name in chosen}
  return {name: table for name, table in tables.items() if table.rows or name in names}


def _makers(store):
  """Name -> function that makes the table: whole tables, then the parts of them that are one data set's."""
  makers = {
    "headline": lambda: headline.experiments(store, sinusoid(store), images(store), policies(store)),
    "headline_speed": lambda: headline.speed(store.benchmarks()),
    "sinusoid": functools.partial(sinusoid, store),
    "images": functools.partial(images, store),
    "rl": functools.partial(policies, store),
    "pretrained": functools.partial(pretrained, store),
  }
  return makers | online_tables.makers(store) | benchmark_tables.makers(store.benchmarks()) | _parts(store)


def _parts(store):
  of_images = [cell.datasource for cell in published.accuracies()] + [
    f.config.datasource for f in store.of_domain("images")
  ]
  of_policies = [*published.returns(), *(file.config.datasource for file in store.of_domain("policies"))]
  parts = {name: functools.partial(images, store, name) for name in dict.fromkeys(of_images)}
  parts |= {name: functools.partial(policies, store, name) for name in dict.fromkeys(of_policies)}
  return parts | paper_tables.makers(store)


def sinusoid(store):
  """5-shot mean squared errors, mean over seeds, beside the published ones."""
  table = Table((
    "5 points", "after 1 step", "5 steps", "10 steps", "published", "seeds", "tasks", "queries", "file", "command line",
  ))  # fmt: skip
  files, printed = store.of_data_set("sinusoid"), published.sinusoid()
  there = {(file.content["method"], file.config.regulariser) for file in files}
  rows = [(file.rank, file.label, *_sinusoid_row(file)) for file in files]
  for name, settings, errors in printed:
    if (name, settings.get("regulariser", "none")) not in there:
      changed = "".join(f", `--{n}={v}`" for n, v in settings.items())
      cells = [*[NOT_RUN] * len(SINUSOID_STEPS), _mse(errors), "", "", "", "", command_of("sinusoid", name, **settings)]
      record = {"datasource": "sinusoid", "method": name}
      rows.append((descriptions.rank(name), descriptions.title(name) + changed, cells, record))
  for _, label, cells, record in sorted(rows, key=lambda row: row[:2]):
    table.rows.append([label, *cells])
    table.records.append(record)
  return table


def _sinusoid_row(file):
  content, summary = file.content, file.content["results"]["5"]
  cells = [_number(after(summary, step)) for step in SINUSOID_STEPS]
  errors, record = published.sinusoid_errors(file.config), file.record()
  counts = str(len(content["runs"])), str(content["tasks"]), str(content["queries"])
  return [*cells, _mse(errors), *counts, file.link, Code(train_command(file.config))], record


def _mse(printed):
  if printed is None:
    return "not printed"
  return Series(tuple(Number(printed[step]) for step in SINUSOID_STEPS))


def _number(found, **style):
  return NOT_RUN if found is None else Number(*found, **style)


def command_of(datasource, method, **settings):
  """The command that makes a figure which was not run, as a cell."""
  command = command_for(datasource, method, **settings)
  return "not in this package" if command is None else Code(command)


def images(store, datasource=None):
  """Published and measured test accuracy in %, by queries per class; a row for each number of test tasks.

  Args:
    store: `Store`.
    datasource: of this data set alone; None: of all.
  """
  cells = [cell for cell in published.accuracies() if datasource in (None, cell.datasource)]
  files = [file for file in store.of_domain("images") if datasource in (None, file.config.datasource)]
  evaluated = {int(n) for file in files for by_queries in file.content["results"].values() for n in by_queries}
  queries = sorted(evaluated | {published.queries(cell.datasource, cell.shots) for cell in cells})
  rows, reproduced = [], set()
  for file in files:
    cell = cell_of(file)
    reproduced.add(cell)
    rows += _rows_of_file(file, cell, cells, queries, store)
  rows += [_row_not_run(cell, queries) for cell in cells if cell not in reproduced]
  order = list(dict.fromkeys(cell.datasource for cell in published.accuracies()))
  rows.sort(key=lambda row: (order.index(row[0][0]) if row[0][0] in order else len(order), *row[0]))
  by_queries = [f"{n} {'query' if n == 1 else 'queries'}" for n in queries]
  headings = ("accuracy in %", "method", "published", *by_queries, "test tasks", "iterations", "file, or command")
  return Table(headings, [row[1] for row in rows], [row[2] for row in rows])


def _key(config, shots):
  return config.datasource, config.num_classes, shots, config.conv, config.stop_grad


def _key_of_cell(cell):
  return cell.datasource, cell.ways, cell.shots, cell.conv, cell.first_order


def cell_of(file):
  """The published cell that a results file reproduces, or None."""
  if file.content["published"] is None:
    return None
  key = (*_key(file.config, file.content["shots"]), file.content["method"])
  return next((cell for cell in published.accuracies_of_all() if (*_key_of_cell(cell), cell.method) == key), None)


def _rows_of_file(file, cell, cells, queries, store):
  """(sort key, cells, record) for each number of test tasks; one that says so where there is none yet."""
  content, config = file.content, file.config
  digits = ".1f" if cell and cell.datasource == "omniglot" else ".2f"
  step, usual = published.step_of(config, content["shots"]), published.queries(config.datasource, content["shots"])
  start = [
    task_of(config.datasource, config.num_classes, content["shots"]), file.label, published_of(cell, digits)
  ]  # fmt: skip
  key = (config.datasource, config.num_classes, content["shots"], file.rank, file.label)
  end = [iterations(content), _origin(file, store)]
  rows = []
  for tasks, results in content["results"].items():
    accuracies = [_accuracy(results.get(str(n)), step, bold=n == usual) for n in queries]
    count = f"{int(tasks):,}" if tasks.isdigit() else tasks
    evaluation = next((e for e in content["runs"][0]["evaluations"] if str(e["tasks"]) == tasks.split(",")[0]), None)
    rows.append(((*key, len(rows)), [*start, *accuracies, count, *end], file.record(evaluation)))
  unevaluated = [*start, *["not evaluated yet"] * len(queries), "", *end]
  return rows or [((*key, 0), unevaluated, file.record({}))]


def _row_not_run(cell, queries):
  digits = ".1f" if cell.datasource == "omniglot" else ".2f"
  title = descriptions.title(cell.method)
  settings = cell.settings
  command = command_of(cell.datasource, cell.method, **settings)
  changed = [f"--{n}={v}" for n, v in (("conv", cell.conv), ("stop_grad", cell.first_order)) if v != (n == "conv")]
  label = f"{title}, `{' '.join(changed)}`" if changed else title
  cells = [task_of(cell.datasource, cell.ways, cell.shots), label, published_of(cell, digits)]
  key = (cell.datasource, cell.ways, cell.shots, descriptions.rank(cell.method), label, 0)
  return key, [*cells, *[NOT_RUN] * len(queries), "", "", command], {
    "datasource": cell.datasource, "method": cell.method,
  }  # fmt: skip


def task_of(datasource, ways, shots):
  return f"{descriptions.data_set(datasource)}, {ways}-way {shots}-shot"


def published_of(cell, digits):
  if cell is None:
    return "not printed"
  return Number(100 * cell.accuracy, None if cell.ci95 is None else 100 * cell.ci95, digits)


def _accuracy(summary, step, bold):
  found = None if summary is None else after(summary, step)
  return NOT_RUN if found is None else Number(100 * found[0], 100 * found[1], bold=bold)


def _origin(file, store):
  """The file; where it evaluates weights that are not in the checkout, also the command that brings them."""
  name = (file.content["runs"][0].get("init_from") or "").removeprefix("pretrained/")
  about = _index(store.root).get(name)
  if about is None or about.get("here", True):
    return file.link
  return Words((file.link, "; first ", Code(about["command"])))


def policies(store, datasource=None):
  """Returns of policies after gradient steps, and the share of the gap to the oracle that they close."""
  table = Table((
    "task", "method", "returns after 0, 1, 2, 3 steps", "gap closed", "published returns", "its gap", "iterations",
    "file, or command",
  ))  # fmt: skip
  printed, files = published.returns(), store.of_domain("policies")
  for task in dict.fromkeys([*printed, *(file.config.datasource for file in files)]):
    if datasource in (None, task):
      _add_task(table, task, printed.get(task, {}), [file for file in files if file.config.datasource == task])
  return table


def _add_task(table, task, printed, files):
  """A row for each method that was run or published on one task."""
  by_method = {}
  for file in files:
    by_method.setdefault(file.content["method"], []).append(file)
  oracle = next((file.content["results"]["mean"][0] for file in by_method.get("oracle", ())), None)
  ideal = printed["oracle"][0][0] if "oracle" in printed else None
  for name in sorted({*printed, *by_method}, key=lambda name: (descriptions.rank(name), name)):
    there = _returns(*printed[name]) if name in printed else "not printed"
    its_gap = _gap(printed[name][0], ideal) if name in printed else ""
    for file in by_method.get(name, ()):
      mean, ci95 = file.content["results"]["mean"], file.content["results"]["ci95"]
      closed = _gap(mean, oracle) if oracle is not None or len(mean) == 1 else "no oracle yet"
      if task in EXACT and len(mean) > 1 and ideal is not None and oracle is not None:
        closed = f"{closed}; to the published oracle {_gap(mean, ideal)}"
      start = [descriptions.data_set(task), file.label, _returns(mean, ci95), closed]
      table.rows.append([*start, there, its_gap, iterations(file.content), file.link])
      table.records.append(file.record())
    if name not in by_method:
      start = [descriptions.data_set(task), descriptions.title(name), NOT_RUN, ""]
      table.rows.append([*start, there, its_gap, "", command_of(task, name)])
      table.records.append({"datasource": task, "method": name})


def _returns(mean, ci95):
  return Series(tuple(Number(m, c, ".1f") for m, c in zip(mean[:4], ci95, strict=False)), ", ")


def _gap(mean, oracle):
  """Of a method that takes steps; text, since an interval of a ratio is no simple matter."""
  return " / ".join(f"{closed:.2f}" for closed in gap_closed(mean[:4], oracle)[1:]) if len(mean) > 1 else ""


def gap_closed(mean, oracle):
  """(R_k - R_0) / (R_oracle - R_0) for each step k: what carries over between versions of the simulator."""
  return [(value - mean[0]) / (oracle - mean[0]) for value in mean]


def _index(root):
  """Folder in pretrained/ -> what it is and how it was made."""
  path = root / "pretrained" / "index.json"
  return read_json(path) if path.exists() else {}


def pretrained(store):
  """The initialisations in pretrained/: what they are, and how large."""
  table = Table(("folder", "what it is", "made by", "size"))
  index, folder = _index(store.root), store.root / "pretrained"
  found = {path.parent.name for path in folder.glob("*/saved_model.pb")}
  unknown = sorted(found - index.keys())
  if unknown:
    raise UserError(f"pretrained/{unknown[0]}: pretrained/index.json does not say what it is; add a line")
  for name, about in sorted(index.items()):
    what, command = about["what"], about["command"]
    if "results" in about:
      content = read_json(store.root / "results" / about["results"])
      what += f", {iterations(content)} iterations"
      if content["iterations"] < content["of_iterations"]:
        command += f" --metatrain_iterations={content['iterations']}"
    here = about.get("here", True)
    size = sum(path.stat().st_size for path in (folder / name).rglob("*") if path.is_file()) / 1e6
    table.rows.append([Code(name), what, Code(command), f"{size:.1f} MB" if here else "not in the repository"])
  return table


def as_text(tables, folder=""):
  """Markdown of all tables, a blank line between them."""
  return "\n\n".join("\n".join(table.markdown(folder)) for table in tables.values())


def write(tables, folder, root=None):
  """Writes each table as NAME.md, NAME.csv and NAME.json; returns the paths.

  Args:
    tables: name -> `Table`.
    folder: to write to.
    root: of the checkout, where the folder is inside of one: links begin there; None: where they are read from.
  """
  from maml_tf.training.checkpoints import write_atomically

  paths = []
  for name, table in tables.items():
    for suffix, content in forms(table, "" if root is None else folder.relative_to(root).as_posix()).items():
      paths.append(folder / f"{name}.{suffix}")
      write_atomically(paths[-1], content)
  return paths


def forms(table, folder=""):
  """Suffix of a file -> its text."""
  return {"md": "\n".join(table.markdown(folder)) + "\n", "csv": table.csv(), "json": table.json()}
