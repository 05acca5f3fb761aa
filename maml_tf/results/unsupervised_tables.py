"""The tables of learning without labels: classifiers on an embedding, and what was meta-trained on its clusters."""

from maml_tf.experiments.comparisons_described import CELLS, TITLES, cell_name
from maml_tf.experiments.domains.images import published_unlabelled
from maml_tf.results import descriptions
from maml_tf.results.cells import NOT_RUN, Link, Number, Table
from maml_tf.results.store import iterations

DATA_SETS = ("omniglot", "miniimagenet")


def makers(store):
  """Name -> function that makes the table."""
  return {f"unsupervised_{name}": (lambda name=name: _table(store, name)) for name in DATA_SETS}


def _table(store, datasource):
  names = [cell_name(*cell) for cell in CELLS[datasource]]
  table = Table((f"{descriptions.data_set(datasource)}, accuracy in %", "embedding", *names, "iterations", "from"))
  measured = [*_compared(store, datasource, names), *_trained(store, datasource)]
  for row, record in [*measured, *_published(datasource)] if measured else ():
    table.rows.append(row)
    table.records.append(record)
  return table


def _compared(store, datasource, names):
  for path, content in store.comparisons().items():
    if content["datasource"] == datasource:
      for name, found in content["results"].items():
        cells = [_number(found.get(cell)) for cell in names]
        row = [TITLES[name], content["comparison"], *cells, "", Link(f"results/{path.name}")]
        yield row, {"datasource": datasource, "method": name, "command": content["command"] or ""}


def _trained(store, datasource):
  for file in sorted(store.of_images(labelled=False), key=lambda file: (file.config.tasks, file.rank)):
    config = file.config
    if config.datasource == datasource:
      cells = [_of_cell(file.content["results"], str(config.eval_queries), *cell) for cell in CELLS[datasource]]
      embedding = f"{config.embedding}{config.embedding_size or ''}" if config.tasks == "cactus" else "none"
      yield [file.label, embedding, *cells, iterations(file.content), file.link], file.record()


def _of_cell(results, queries, ways, shots):
  """The last step's accuracy on tasks of a size, of the evaluation with most tasks."""
  wanted = [*([f"num_classes={ways}"] if ways != 5 else []), *([f"update_batch_size={shots}"] if shots != 1 else [])]
  for label, by_queries in reversed(results.items()):
    if label.split(", ")[1:] == wanted and queries in by_queries:
      found = by_queries[queries]
      return Number(100 * found["mean"][-1], 100 * found["ci95"][-1])
  return NOT_RUN


def _number(found):
  return NOT_RUN if found is None else Number(100 * found["mean"], 100 * found["ci95"])


def _published(datasource):
  rows = []
  for (title, embedding), values in published_unlabelled.ACCURACIES[datasource].items():
    cells = [Number(value, ci95) for value, ci95 in values]
    row = [f"{title}, published", embedding, *cells, "", "the paper"]
    rows.append((row, {"datasource": datasource, "method": title, "command": ""}))
  return rows
