"""Online meta-learning (Finn et al. 2019): Rainbow MNIST, sequences of classes, poses, the strongly convex example."""

import math

from maml_tf.datasets import rainbow, sequence_sizes
from maml_tf.datasets.records import DATASETS
from maml_tf.errors import UserError
from maml_tf.experiments.domains.base import Domain

# The continual experiments in the authors' fork of cbfinn/maml, where the paper is silent; see docs/online.md.
_SHARED = dict(
  warm_start_batches=10, warm_start_updates=1000, meta_updates=50, meta_batch_size=25, meta_lr=0.001, inner_batch=10,
  num_updates=5, grad_steps=5, log_every=1,
)  # fmt: skip
_RAINBOW = _SHARED | dict(num_tasks=56, warm_start_tasks=20, update_lr=0.1, num_filters=32)
# What the paper says of these two leaves more open: docs/online.md. On the mean loss, since the sum diverges.
_IMAGE_SEQUENCE = _SHARED | dict(
  num_tasks=sequence_sizes.TASKS, examples_per_task=sequence_sizes.EXAMPLES, warm_start_tasks=0, update_lr=0.1,
  num_filters=32, support_reduction="mean", threshold=0.5,
)  # fmt: skip
_POSE = _SHARED | dict(
  num_tasks=90, examples_per_task=900, image_size=125, warm_start_tasks=20, update_lr=0.1, num_filters=16,
  support_reduction="mean", threshold=0.05,
)  # fmt: skip
# Each task arrives at once, and the meta-loss is that of all tasks so far: plain gradient descent, which begins where
# the last round ended, with a step below 2 over its largest curvature.
_QUADRATICS = dict(
  num_tasks=3000, meta_updates=10, update_lr=0.45, num_updates=1, grad_steps=1, log_every=100, validate_every=1000,
  checkpoint_every=1000,
)  # fmt: skip
# The curvature of a task after a step, (1 - alpha a)^2 a, is below 0.33; before it, up to 2.
_QUADRATICS_LR = {"ftml": 4.0, "ftml_head": 4.0}
_QUADRATICS_LR_OF_OTHERS = 0.8
POSE_BATCH, POSE_HELD_OUT = 20, 100
MOST_POSE_TASKS = 90

_LACKS = frozenset({"eval_tasks", "validation_tasks", "test_set", "test_iter"})
_OF_A_STREAM = frozenset({
  "meta_batch_size", "num_filters", "task_chunk", "checkpoint_inner_steps", "num_tasks", "order_seed",
  "warm_start_tasks", "warm_start_batches", "warm_start_updates", "meta_updates", "inner_batch", "current_in_buffer",
  "support_reduction", "threshold", "judge_growth",
})  # fmt: skip


def warm_rounds(warm_start_tasks, warm_start_updates, meta_updates):
  """Rounds of training before the stream begins."""
  return math.ceil(warm_start_updates / meta_updates) if warm_start_tasks else 0


def num_batches(datasource, settings):
  """Data batches of a task, of a dict of settings."""
  if datasource == "rainbow_mnist":
    return rainbow.NUM_BATCHES
  return math.ceil(settings["examples_per_task"] / batch_size(datasource))


def batch_size(datasource):
  """Examples that arrive at a time."""
  return {"rainbow_mnist": rainbow.BATCH, "image_sequence": sequence_sizes.BATCH, "pose": POSE_BATCH}[datasource]


def num_rounds(datasource, settings):
  """Rounds until the stream has ended, of a dict of settings; at least 1, whatever they are."""
  meta_updates = max(1, settings["meta_updates"])
  warm = warm_rounds(settings["warm_start_tasks"], settings.get("warm_start_updates", 0), meta_updates)
  return warm + num_batches(datasource, settings) * max(1, settings["num_tasks"] - settings["warm_start_tasks"])


def _defaults_of(preset):
  """From scratch there is nothing to warm up, and no step is taken; the authors train it twice as long."""

  def defaults(datasource, method, given):
    changed = dict(preset)
    if method.name == "scratch":
      changed |= dict(warm_start_tasks=0, grad_steps=0)
    changed["metatrain_iterations"] = num_rounds(datasource, changed | given)
    a_task = max(1, num_batches(datasource, changed | given))
    return changed | dict(validate_every=a_task, checkpoint_every=a_task)

  return defaults


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
  _check_stream(config, require)


def check_image_sequence(config, require):
  most, batch = sequence_sizes.TASKS, sequence_sizes.BATCH
  require("num_tasks", config.num_tasks <= most, f"at most {most}, five classes each")
  whole = config.examples_per_task % batch == 0 and config.examples_per_task <= 2500
  require("examples_per_task", whole, f"a multiple of {batch}, ten of each class, and at most 2500")
  _check_stream(config, require)


def check_pose(config, require):
  require("num_tasks", config.num_tasks <= MOST_POSE_TASKS, f"at most {MOST_POSE_TASKS}, objects and their views")
  large = config.image_size is not None and config.image_size >= 16
  require("image_size", large, "at least 16, or the convolutions leave nothing")
  _check_stream(config, require)


def _check_stream(config, require):
  warm, batches = config.warm_start_tasks, num_batches(config.datasource, config.to_dict())
  require("warm_start_tasks", warm < config.num_tasks, f"fewer than --num_tasks={config.num_tasks}")
  alone = config.method == "scratch" and warm
  require("warm_start_tasks", not alone, "0 from scratch, which remembers no task")
  fits = not warm or config.warm_start_batches <= batches
  require("warm_start_batches", fits, f"at most {batches}, which a task has")
  batch = batch_size(config.datasource)
  require("inner_batch", config.inner_batch <= batch, f"at most {batch}, the examples of a data batch")
  _check_iterations(config, require, num_rounds(config.datasource, config.to_dict()))


def check_quadratics(config, require):
  _check_iterations(config, require, config.num_tasks)


def _check_iterations(config, require, rounds):
  require("metatrain_iterations", config.metatrain_iterations <= rounds, f"at most {rounds}, the stream's rounds")
  alone = config.init_from is not None and not config.train
  require("init_from", not alone, "no --train=False with it: results are those of a walk through the stream")


_EXPERIMENTS = "maml_tf.experiments.domains.online"
DOMAINS = (
  Domain(
    name="online",
    kind="online",
    datasources={"rainbow_mnist": "Rainbow MNIST"},
    settings=_OF_A_STREAM | {"label_smoothing", "colors"},
    defaults=_defaults_of(_RAINBOW),
    check=check_rainbow,
    check_paths=lambda config: DATASETS["mnist"].check(config.data_dir),
    experiment=f"{_EXPERIMENTS}.experiment:RainbowExperiment",
    lacks=_LACKS,
  ),
  Domain(
    name="online",
    kind="online",
    datasources={"image_sequence": "classes in sequence"},
    settings=_OF_A_STREAM | {"label_smoothing", "images", "examples_per_task"},
    defaults=_defaults_of(_IMAGE_SEQUENCE),
    check=check_image_sequence,
    check_paths=lambda config: DATASETS[config.images].check(config.data_dir),
    experiment=f"{_EXPERIMENTS}.experiment:ImageSequenceExperiment",
    lacks=_LACKS,
  ),
  Domain(
    name="online",
    kind="online",
    datasources={"pose": "poses"},
    settings=_OF_A_STREAM | {"image_size", "examples_per_task", "renderer"},
    defaults=_defaults_of(_POSE),
    check=check_pose,
    experiment=f"{_EXPERIMENTS}.experiment:PoseExperiment",
    lacks=_LACKS,
  ),
  Domain(
    name="online",
    kind="online",
    datasources={"quadratics": "quadratics"},
    settings=frozenset({"num_tasks", "meta_updates"}),
    defaults=quadratics_defaults,
    check=check_quadratics,
    experiment=f"{_EXPERIMENTS}.quadratics:QuadraticsExperiment",
    lacks=_LACKS,
  ),
)
