"""Classifiers that do not meta-learn, on the embedding that a config trains on."""

import time

import numpy as np

from maml_tf import evaluation, randomness, tasks
from maml_tf.datasets.records import DATASETS
from maml_tf.errors import UserError
from maml_tf.experiments import provenance
from maml_tf.experiments.comparisons_described import CELLS, TITLES, USUAL, cell_name
from maml_tf.experiments.config import check_paths, with_flags
from maml_tf.experiments.domains.images.training_tasks import TrainingTasks
from maml_tf.unsupervised import comparisons, partitions
from maml_tf.unsupervised.records import is_array


def compare(config, classifiers=USUAL, command=None, say=print):
  """Accuracies of classifiers on labelled tasks of held-out classes, in their embedding.

  Args:
    config: `Config` with `tasks="cactus"`: its embedding, clusters, evaluation (`eval_tasks`, `eval_queries`,
      `test_set`) and seed count.
    classifiers: names of `comparisons_described.TITLES`.
    command: the command line, kept in the results.
    say: function of one line of text.

  Returns:
    The content of a results file.

  Raises:
    UserError: an unknown name, or data that is not there.
  """
  unknown = [name for name in classifiers if name not in TITLES]
  if unknown:
    raise UserError(f"classifiers={unknown[0]}: expected some of {', '.join(TITLES)}")
  check_paths(config)
  return with_flags(_compare, config, classifiers, command, say)


def _compare(config, classifiers, command, say):
  began = time.perf_counter()
  data_set = DATASETS[config.datasource]
  training = TrainingTasks(config, data_set)
  if not training.labelled:
    raise UserError(f"data_dir={config.data_dir}: no val/ and test/ with labels there, and nothing to compare on")
  part = "test" if config.test_set else "val"
  bank = data_set.load(config.data_dir, part, config.split, config.image_size)
  embedded = training.embedded()
  values, labels = _embed(config, embedded, bank, part), np.repeat(np.arange(len(bank.names)), bank.sizes)
  functions = dict(comparisons.CLASSIFIERS)
  if "cluster_matching" in classifiers:
    functions["cluster_matching"] = _cluster_matching(config, embedded, training)
  seed = randomness.fold(randomness.make_seed(config.seed), "evaluation", part)
  results = {name: {} for name in classifiers}
  for ways, shots in CELLS[config.datasource]:
    distribution = tasks.from_arrays(values, labels, ways, shots, config.eval_queries)
    for name in classifiers:
      cell = cell_name(ways, shots)
      found = comparisons.accuracies(distribution, functions[name], config.eval_tasks, seed, f"{name}, {cell}")
      summary = {key: value.item() for key, value in evaluation.summarise(found[np.newaxis]).items()}
      results[name][cell] = summary
      say(f"{TITLES[name]:34} {cell:14} {100 * summary['mean']:.2f} ± {100 * summary['ci95']:.2f}")
  return {
    "format_version": 1,
    "comparison": f"{'array' if is_array(config.embedding) else config.embedding}{config.embedding_size or ''}",
    "datasource": config.datasource,
    "split": "test" if config.test_set else "validation",
    "tasks": config.eval_tasks,
    "queries": config.eval_queries,
    "seed": config.seed,
    "metric": "accuracy; 95 % intervals are 1.96 standard errors over tasks",
    "results": results,
    "command": command,
    **provenance.describe(),
    "wall_seconds": time.perf_counter() - began,
  }


def _embed(config, embedded, bank, part):
  """The embedding of held-out images."""
  if embedded.transform is not None:
    return embedded.transform(np.asarray(bank.images))
  if part not in embedded.parts:
    raise UserError(
      f"embedding={config.embedding}: it has no array named {part}; a .npz file can have one beside train"
    )
  values = embedded.parts[part]
  if len(values) != len(bank.images):
    raise UserError(f"embedding={config.embedding}: {part} has {len(values)} rows for {len(bank.images)} images")
  return values


def _cluster_matching(config, embedded, training):
  labels = partitions.kmeans(embedded, config.clusters, 1, 1, config.seed, training.cache)
  return comparisons.cluster_matching(embedded.values, labels[0])
