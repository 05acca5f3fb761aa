"""Online meta-learning (Finn et al. 2019): Rainbow MNIST, and the strongly convex example."""

import math

from maml_tf.datasets import rainbow
from maml_tf.datasets.records import DATASETS
from maml_tf.errors import UserError
from maml_tf.experiments.domains.base import Domain

# The continual experiments in the authors' fork of cbfinn/maml, where the paper is silent; see docs/online.md.
_RAINBOW = dict(
  num_tasks=56, warm_start_tasks=20, warm_start_batches=10, warm_start_updates=1000, meta_updates=50,
  meta_batch_size=25, meta_lr=0.001, inner_batch=10, update_lr=0.1, num_updates=5, grad_steps=5, num_filters=32,
  log_every=1, checkpoint_every=45, validation_tasks=1, eval_tasks=56, eval_queries=100,
)  # fmt: skip
# Each task arrives at once, and the meta-loss is that of all tasks so far: plain gradient descent, which begins where
# the last round ended, with a step below 2 over its largest curvature.
_QUADRATICS = dict(
  num_tasks=3000, meta_updates=10, update_lr=0.45, num_updates=1, grad_steps=1, log_every=100, validate_every=1000,
  checkpoint_every=1000, validation_tasks=1, eval_tasks=3000,
)  # fmt: skip
# The curvature of a task after a step, (1 - alpha a)^2 a, is below 0.33; before it, up to 2.
_QUADRATICS_LR = {"ftml": 4.0, "ftml_head": 4.0}
_QUADRATICS_LR_OF_OTHERS = 0.8


def warm_rounds(warm_start_tasks, warm_start_updates, meta_updates):
  """Rounds of training before the stream begins."""
  return math.ceil(warm_start_updates / meta_updates) if warm_start_tasks else 0


def num_rounds(settings):
  """Rounds until the stream has ended, of a dict of settings of Rainbow MNIST; at least 1, whatever they are."""
  meta_updates = max(1, settings["meta_updates"])
  warm = warm_rounds(settings["warm_start_tasks"], settings.get("warm_start_updates", 0), meta_updates)
  return warm + rainbow.NUM_BATCHES * max(1, settings["num_tasks"] - settings["warm_start_tasks"])


def rainbow_defaults(datasource, method, given):
  """From scratch there is nothing to warm up, and no step is taken; the authors train it twice as long."""
  del datasource
  changed = dict(_RAINBOW)
  if method.name == "scratch":
    changed |= dict(warm_start_tasks=0, grad_steps=0)
  changed["metatrain_iterations"] = num_rounds(changed | given)
  changed["validate_every"] = rainbow.NUM_BATCHES
  return changed


def quadratics_defaults(datasource, method, given):
  """One round for each task."""
  del datasource
  num_tasks = max(1, given.get("num_tasks", _QUADRATICS["num_tasks"]))
  rate = _QUADRATICS_LR.get(method.name, _QUADRATICS_LR_OF_OTHERS)
  return _QUADRATICS | dict(metatrain_iterations=num_tasks, meta_lr=rate, warm_start_tasks=0)


def check_rainbow(config, require):
  try:
    most = 8 * len(rainbow.parse_colors(config.colors))
  except UserError as error:
    raise UserError(f"--{error}") from error
  require("num_tasks", config.num_tasks <= most, f"at most {most}, two scales and four rotations of every colour")
  warm = config.warm_start_tasks
  require("warm_start_tasks", warm < config.num_tasks, f"fewer than --num_tasks={config.num_tasks}")
  alone = config.method == "scratch" and warm
  require("warm_start_tasks", not alone, "0 from scratch, which remembers no task")
  batches = rainbow.NUM_BATCHES
  require("warm_start_batches", config.warm_start_batches <= batches, f"at most {batches}, which a task has")
  batch = rainbow.BATCH
  require("inner_batch", config.inner_batch <= batch, f"at most {batch}, the examples of a data batch")
  held_out = rainbow.HELD_OUT_IMAGES
  require("eval_queries", config.eval_queries == held_out, f"{held_out}, the held-out images of every task")
  _check_iterations(config, require, num_rounds(config.to_dict()))


def check_quadratics(config, require):
  _check_iterations(config, require, config.num_tasks)


def _check_iterations(config, require, rounds):
  require("metatrain_iterations", config.metatrain_iterations <= rounds, f"at most {rounds}, the stream's rounds")
  alone = config.init_from is not None and not config.train
  require("init_from", not alone, "no --train=False with it: results are those of a walk through the stream")
  require("test_iter", config.test_iter <= 0, "no such flag: the newest checkpoint has the results of all rounds")


def check_paths(config):
  DATASETS["mnist"].check(config.data_dir)


DOMAINS = (
  Domain(
    name="online",
    kind="online",
    datasources={"rainbow_mnist": "Rainbow MNIST"},
    settings=frozenset({
      "meta_batch_size", "num_filters", "task_chunk", "checkpoint_inner_steps", "eval_queries", "num_tasks",
      "order_seed", "warm_start_tasks", "warm_start_batches", "warm_start_updates", "meta_updates", "inner_batch",
      "current_in_buffer", "label_smoothing", "support_reduction", "threshold", "colors",
    }),
    defaults=rainbow_defaults,
    check=check_rainbow,
    check_paths=check_paths,
    experiment="maml_tf.experiments.domains.online.experiment:RainbowExperiment",
  ),
  Domain(
    name="online",
    kind="online",
    datasources={"quadratics": "quadratics"},
    settings=frozenset({"num_tasks", "meta_updates"}),
    defaults=quadratics_defaults,
    check=check_quadratics,
    experiment="maml_tf.experiments.domains.online.experiment:QuadraticsExperiment",
  ),
)  # fmt: skip
