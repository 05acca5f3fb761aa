"""Few-shot image classification (Finn et al. 2017, section 5.2)."""

import dataclasses

from maml_tf.datasets.records import DATASETS
from maml_tf.experiments.domains.base import Domain

FIFTEEN = 15  # Finn et al. 2017, appendix A.1: query images per class, in miniImageNet's training


@dataclasses.dataclass(frozen=True)
class Recipe:
  """How the paper trains on a data set.

  Attributes:
    title: what tables and figures call the data set.
    preset: settings.
    variants: ((condition on the given settings, settings), ...): what other tasks change.
    global_pool: whether the network ends in the mean over positions. In cbfinn/maml, maml.py, that hangs on the data
      set, with max-pooling or without.
    clip: of every element of the meta-gradient, at the scale of the summed loss; None: it is not clipped.
    training_queries: query images per class in training; None: as many as shots.
  """

  title: str
  preset: dict
  variants: tuple = ()
  global_pool: bool = False
  clip: float | None = None
  training_queries: int | None = None


# cbfinn/maml, main.py, usage: 5-way, 1-shot omniglot.
_OMNIGLOT = dict(
  metatrain_iterations=60000,
  meta_batch_size=32,
  update_batch_size=1,
  update_lr=0.4,
  norm="batch_norm",
  loss_reduction="per_class_sum",  # cbfinn/maml, utils.py, xent, and the unreduced vector in maml.py
  eval_queries=0,  # 1, 15 and, as in cbfinn/maml's main.py, as many as shots
  jit_compile=False,  # on a CPU a graph is as fast or faster (results/benchmark_omniglot.json)
  validate_every=1000,  # as much time as tens of iterations
  checkpoint_every=500,
  validation_tasks=200,
)
# Likewise: 5-way 1-shot mini imagenet.
_MINIIMAGENET = _OMNIGLOT | dict(
  meta_batch_size=4, update_lr=0.01, num_updates=5, num_filters=32, max_pool=True
)  # fmt: skip


def _twenty_ways(given):
  return given.get("num_classes") == 20


def _trained_with_five_shots(given):
  trained = given.get("train_update_batch_size", -1)
  return (given.get("update_batch_size", 1) if trained == -1 else trained) == 5


RECIPES = {
  # The usage of 20-way, 1-shot omniglot.
  "omniglot": Recipe(
    "Omniglot", _OMNIGLOT, ((_twenty_ways, dict(meta_batch_size=16, update_lr=0.1, num_updates=5)),), global_pool=True
  ),
  # Finn et al. 2017, appendix A.1: 2 tasks with 5 shots; the usage in cbfinn/maml repeats the 4 of 1-shot. Clipped:
  # cbfinn/maml, maml.py, miniImageNet only.
  "miniimagenet": Recipe(
    "miniImageNet",
    _MINIIMAGENET,
    ((_trained_with_five_shots, dict(meta_batch_size=2)),),
    clip=10.0,
    training_queries=FIFTEEN,
  ),
  # Image folders are treated as miniImageNet is.
  "folder": Recipe("folder", _MINIIMAGENET, clip=10.0, training_queries=FIFTEEN),
}


def defaults(datasource, method, given):
  """The recipe's settings, for the task that is given; a baseline is fine-tuned with the best step size of a grid."""
  recipe = RECIPES[datasource]
  changed = dict(recipe.preset)
  for holds, settings in recipe.variants:
    changed |= settings if holds(given) else {}
  if not method.meta_learns:
    changed["update_lr"] = None
  return changed


def check(config, require):
  require("num_classes", config.num_classes >= 2, "at least 2")
  splits = DATASETS[config.datasource].class_splits
  others = " (--datasource=omniglot has others)" if len(splits) == 1 else ""
  require("split", config.split in splits, f"{'one of ' if len(splits) > 1 else ''}{', '.join(splits)}{others}")


def check_paths(config):
  DATASETS[config.datasource].check(config.data_dir)


DOMAIN = Domain(
  name="images",
  kind="classification",
  datasources={name: recipe.title for name, recipe in RECIPES.items()},
  settings=frozenset({
    "num_classes", "update_batch_size", "train_update_batch_size", "norm", "num_filters", "conv", "max_pool",
    "init_stddev", "split", "loss_reduction", "bn_mode", "task_chunk", "checkpoint_inner_steps", "mixed_precision",
    "export_half", "export_bn_mode", "eval_queries", "jit_compile", "image_size", "meta_batch_size",
  }),
  defaults=defaults,
  check=check,
  check_paths=check_paths,
  experiment="maml_tf.experiments.domains.images.experiment:ImageExperiment",
)  # fmt: skip
