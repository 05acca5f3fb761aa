"""One experiment as a dataclass. This module imports no TensorFlow: bad settings are refused at once."""

import dataclasses
import numbers
import os
import pathlib
import typing

from maml_tf.datasets import locate
from maml_tf.errors import UserError
from maml_tf.experiments.presets import IMAGE_DATASOURCES, PRESETS, RL_DATASOURCES, preset

BASELINES = ("None", "pretrain", "oracle", "random")
NORMS = ("None", "batch_norm", "layer_norm")
SPLITS = ("published", "alphabets")
LOSS_REDUCTIONS = ("mean", "per_class_sum")
LEARNERS = ("maml", "anil", "metasgd", "reptile")
INNERS = ("log_likelihood", "ratio")
OUTERS = ("trpo", "vpg", "ppo")
HVPS = ("exact", "finite_difference")
# What only one kind of experiment has: elsewhere it is refused, not ignored.
RL_SETTINGS = (
  "rollouts_per_task", "horizon", "inner", "outer", "max_kl", "hvp", "hvp_subsample", "sim_threads", "render",
)  # fmt: skip
NOT_RL_SETTINGS = (
  "num_classes", "update_batch_size", "norm", "num_filters", "conv", "max_pool", "train_update_batch_size",
  "init_stddev", "split", "loss_reduction", "learner", "bn_mode", "checkpoint_inner_steps", "mixed_precision",
  "eval_queries", "jit_compile", "export_half",
)  # fmt: skip
PATHS = ("logdir", "data_dir")  # of the machine that a run is on
BN_MODES = ("transductive", "support", "running")
_COUNT_LIMIT = 2**31  # iterations and sizes are int32 tensors
_RATE_LIMIT = 3.4e38  # and rates float32


def _setting(meaning):
  return dataclasses.field(metadata={"help": meaning})


@dataclasses.dataclass(frozen=True)
class Config:
  """All settings of a run. `resolve` makes one; a domain's preset has each default, with its source.

  The names and meanings down to `train_update_lr` are those of the published code (cbfinn/maml, main.py).
  """

  datasource: str = _setting(f"experiment: {', '.join(PRESETS)}")
  num_classes: int = _setting("classes per task (N of N-way); classification only")
  baseline: str = _setting(f"what to train in place of MAML: {', '.join(BASELINES)}")
  pretrain_iterations: int = _setting("iterations of training on all tasks without adaptation")
  metatrain_iterations: int = _setting("meta-training iterations")
  meta_batch_size: int = _setting("tasks per meta-iteration")
  meta_lr: float = _setting("step size of the meta-optimiser, Adam")
  update_batch_size: int = _setting("support examples per class (K of K-shot)")
  update_lr: float | None = _setting(
    "step size alpha of the inner loop; not given to a baseline, it is tuned on validation tasks"
  )
  num_updates: int = _setting("inner steps in training")
  norm: str = _setting(f"normalisation: {', '.join(NORMS)}")
  num_filters: int = _setting("filters of every convolution; images only")
  conv: bool = _setting("convolutional rather than fully connected network; images only")
  max_pool: bool = _setting("max-pooling rather than strided convolutions; images only")
  stop_grad: bool = _setting("first-order MAML")
  log: bool = _setting("write TensorBoard event files")
  logdir: str = _setting("folder of the run directories")
  resume: bool = _setting("continue from the newest checkpoint; False: put an older run aside and start anew")
  train: bool = _setting("True to train (and then evaluate), False to evaluate only")
  test_iter: int = _setting("with --train=False: iteration of the checkpoint to evaluate; 0 or less: the newest")
  test_set: bool = _setting("evaluate on test tasks rather than validation tasks")
  train_update_batch_size: int = _setting(
    "with --train=False: update_batch_size in training, where it differed; -1: did not"
  )
  train_update_lr: float = _setting("with --train=False: update_lr in training, where it differed; -1: did not")
  init_stddev: float = _setting(
    "deviation of a fully connected network's initial weights; the published code's is 0.01"
  )
  seed: int = _setting("seed of the initialisation and of every task")
  data_dir: str = _setting("folder of the data sets; on the command line MAML_TF_DATA names it, where that is set")
  split: str = _setting(f"classes of Omniglot for training, validation and test: {', '.join(SPLITS)}")
  loss_reduction: str = _setting(
    f"how examples make a loss: {', '.join(LOSS_REDUCTIONS)} (their sum over the shots); images only"
  )
  learner: str = _setting(
    f"algorithm: {', '.join(LEARNERS)} (anil adapts the last layer only, metasgd learns a step size for each weight, "
    "reptile moves towards the adapted weights)"
  )
  bn_mode: str = _setting(
    "whose statistics batch normalisation uses for query examples: transductive (their own), support (the support "
    "set's), running (averages over training)"
  )
  task_chunk: int = _setting("tasks computed at a time, to save memory; 0: all of them")
  checkpoint_inner_steps: bool = _setting("recompute inner steps in the backward pass, to save memory")
  mixed_precision: bool = _setting("compute in bfloat16, where the hardware has it; weights stay in float32")
  init_from: str | None = _setting("SavedModel to start training from, or to evaluate")
  export: bool = _setting("write the SavedModel of the result into the run directory")
  export_half: bool = _setting("keep its weights as float16, in half the space; it computes in float32 all the same")
  eval_tasks: int = _setting("tasks in the evaluation")
  eval_updates: int = _setting("most inner steps in the evaluation")
  eval_queries: int = _setting(
    "query examples per task (sinusoid) or per class (images) in the evaluation; images: 0 for 1, 15 and as many as "
    "shots, one after the other"
  )
  jit_compile: bool = _setting("compile the training loop with XLA")
  rollouts_per_task: int = _setting(
    "rollouts of each task for each gradient; this and what follows: reinforcement learning only"
  )
  horizon: int = _setting("time steps of a rollout")
  inner: str = _setting(f"what a policy's inner step descends, with the same gradient: {', '.join(INNERS)}")
  outer: str = _setting(f"meta-optimiser of policies: {', '.join(OUTERS)} (vpg and ppo: Adam with --meta_lr)")
  max_kl: float = _setting("TRPO's bound on the mean KL divergence, in nats")
  hvp: str = _setting(f"TRPO's products with the KL's Hessian: {', '.join(HVPS)}")
  hvp_subsample: float = _setting("share of the tasks that they are computed on, to save time (a baseline has one)")
  sim_threads: int = _setting("threads or processes of the simulator; 0: as many as cores")
  render: bool = _setting("write videos of a policy before and after adaptation")

  @property
  def method(self):
    """What is trained: maml, pretrain, oracle or random."""
    if self.baseline != "None":
      return self.baseline
    return "pretrain" if self.metatrain_iterations == 0 and self.pretrain_iterations > 0 else "maml"

  @property
  def iterations(self):
    """Iterations of the method; the oracle's are all pretraining (as in the published code)."""
    if self.method == "random":
      return 0
    if self.method == "maml":
      return self.metatrain_iterations
    return self.pretrain_iterations + self.metatrain_iterations

  @property
  def pretrains_first(self):
    """Whether meta-training starts from weights that are pretrained first (both iteration counts given)."""
    return self.method == "maml" and self.pretrain_iterations > 0

  @property
  def trained_with(self):
    """What a run directory and a table call it: the learner, or the baseline."""
    return self.learner if self.method == "maml" else self.method

  @property
  def has_images(self):
    return self.datasource in IMAGE_DATASOURCES

  @property
  def has_policy(self):
    return self.datasource in RL_DATASOURCES

  @property
  def training_shots(self):
    return self.update_batch_size if self.train_update_batch_size == -1 else self.train_update_batch_size

  @property
  def training_lr(self):
    return self.update_lr if self.train_update_lr == -1 else self.train_update_lr

  def to_dict(self):
    return dataclasses.asdict(self)

  def portable(self):
    """All settings but the folders of this machine, as a dict: what goes with weights that leave it."""
    return {name: value for name, value in self.to_dict().items() if name not in PATHS}


def resolve(datasource=None, **given):
  """The config of a domain: its preset, with what is given on top (None counts as not given).

  Args:
    datasource: name of the domain; None: sinusoid.
    **given: settings by name.

  Returns:
    `Config`.

  Raises:
    UserError: an unknown name or a value that makes no sense; the message names the flag.
  """
  datasource = "sinusoid" if datasource is None else datasource
  if datasource not in PRESETS:
    raise UserError(f"--datasource={datasource}: expected one of {', '.join(PRESETS)}")
  given = {name: _typed(name, value) for name, value in given.items() if value is not None}
  defaults = preset(datasource, given)
  if datasource == "sinusoid":
    defaults |= _baseline_defaults(given, defaults)
  config = Config(datasource=datasource, **(defaults | given))
  _check(config)
  return config


def _baseline_defaults(given, defaults):
  """What a baseline has in place of MAML's defaults."""
  changed = {}
  baseline = given.get("baseline", "None") != "None"
  if baseline or (given.get("metatrain_iterations") == 0 and given.get("pretrain_iterations", 0) > 0):
    changed["update_lr"] = None  # a baseline fine-tunes with the best of a grid
  if given.get("baseline") in ("pretrain", "oracle"):
    # As many iterations as MAML would have, unless they are given, under either name: the published code moves the
    # oracle's from one to the other.
    changed["pretrain_iterations"] = 0 if "metatrain_iterations" in given else defaults["metatrain_iterations"]
    changed["metatrain_iterations"] = 0
  return changed


def check_paths(config):
  """Refuses paths that cannot work, before anything slow is imported. It writes nothing.

  Raises:
    UserError: the message names the flag and the path.
  """
  try:
    _check_logdir(config)
    if config.init_from is not None:
      _check_init_from(config.init_from)
    if config.has_images:
      locate.check(config.datasource, config.data_dir)
  except OSError as error:  # a name that is too long, a folder that may not be searched
    raise UserError(f"{error.filename}: {error.strerror}; name another path") from error


def training_settings(config, init_fingerprint=None, data_fingerprint=None):
  """What shapes training, as a JSON-able dict: its hash is in the run directory's name.

  Args:
    config: `Config`.
    init_fingerprint: of the weights of --init_from; None: there are none.
    data_fingerprint: of the training data where the datasource does not say which they are; None: it does.
  """
  settings = {
    "datasource": config.datasource,
    "method": config.method,
    "meta_batch_size": config.meta_batch_size,
    "meta_lr": config.meta_lr,
    "shots": config.training_shots,
    "norm": config.norm,
    "init_stddev": config.init_stddev,
    "seed": config.seed,
  }
  if config.has_policy:
    settings = _policy_training_settings(config)
  if config.method == "maml":
    settings |= {
      "update_lr": config.training_lr,
      "num_updates": config.num_updates,
      "stop_grad": config.stop_grad,
    }
  if config.has_images:
    names = ("num_classes", "num_filters", "conv", "max_pool", "loss_reduction", "split")
    settings |= {name: getattr(config, name) for name in names}
  # These came later: where they are as before, a run keeps the name that it had.
  before = {"learner": "maml", "bn_mode": "transductive", "mixed_precision": False, "inner": "log_likelihood"}
  settings |= {name: getattr(config, name) for name, value in before.items() if getattr(config, name) != value}
  if data_fingerprint is not None:
    settings["data"] = data_fingerprint
  if config.pretrains_first:
    settings["pretrain_iterations"] = config.pretrain_iterations
  if init_fingerprint is not None:
    settings["init_from"] = init_fingerprint
  return settings


def _policy_training_settings(config):
  """What shapes the training of a policy, apart from the inner loop."""
  names = ["datasource", "method", "meta_batch_size", "rollouts_per_task", "horizon", "outer", "seed"]
  names += ["max_kl", "hvp", "hvp_subsample"] if config.outer == "trpo" else ["meta_lr"]
  return {name: getattr(config, name) for name in names}


def readable_name(config):
  """The readable part of a run directory's name, in the manner of the published code's."""
  if config.has_policy:
    return _readable_name_of_policy(config)
  parts = [config.datasource, config.trained_with]
  parts += [f"cls_{config.num_classes}"] if config.has_images else []
  parts += [f"mbs_{config.meta_batch_size}", f"ubs_{config.training_shots}"]
  if config.method == "maml":
    parts += [f"numstep{config.num_updates}", f"updatelr{config.training_lr:g}"]
    parts += ["stopgrad"] if config.stop_grad else []
  if config.has_images:
    parts += [f"hidden{config.num_filters}" if config.conv else "fc"]
    parts += ["maxpool"] if config.conv and config.max_pool else []
  parts += [
    "nonorm" if config.norm == "None" else config.norm.replace("_", ""),
    f"seed{config.seed}",
  ]
  return ".".join(parts)


def _readable_name_of_policy(config):
  parts = [
    config.datasource,
    config.trained_with,
    f"mbs_{config.meta_batch_size}",
    f"rollouts{config.rollouts_per_task}",
  ]
  if config.method == "maml":
    parts += [f"numstep{config.num_updates}", f"updatelr{config.training_lr:g}"]
    parts += ["stopgrad"] if config.stop_grad else []
    parts += ["ratio"] if config.inner == "ratio" else []
  parts += [f"kl{config.max_kl:g}" if config.outer == "trpo" else config.outer]
  return ".".join([*parts, f"seed{config.seed}"])


def _typed(name, value):
  """`value` as the type of the setting: the command line converts by itself, a notebook may give 1 for 1.0."""
  field = next((f for f in dataclasses.fields(Config) if f.name == name), None)
  if field is None:
    raise UserError(f"{name}: no such setting; there are {', '.join(f.name for f in dataclasses.fields(Config))}")
  kind = kind_of(field)
  whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
  fits = {
    bool: isinstance(value, bool),
    int: whole,
    float: isinstance(value, numbers.Real) and not isinstance(value, bool),
    str: isinstance(value, (str, os.PathLike)),
  }[kind]
  if not fits:
    raise UserError(f"--{name}={value}: expected a value of type {kind.__name__}")
  return os.fspath(value) if kind is str else kind(value)


def kind_of(field):
  """The type of a setting: bool, int, float or str; an optional one's without its None."""
  kinds = typing.get_args(field.type) or (field.type,)
  return next(kind for kind in kinds if kind is not type(None))


def _check(config):
  def require(name, holds, expected):
    if not holds:
      raise UserError(f"--{name}={getattr(config, name)}: expected {expected}")

  _check_numbers(config, require)
  require("baseline", config.baseline in BASELINES, f"one of {', '.join(BASELINES)}")
  require("norm", config.norm in NORMS, f"one of {', '.join(NORMS)}")
  require("split", config.split in SPLITS, f"one of {', '.join(SPLITS)}")
  require("loss_reduction", config.loss_reduction in LOSS_REDUCTIONS, f"one of {', '.join(LOSS_REDUCTIONS)}")
  require("learner", config.learner in LEARNERS, f"one of {', '.join(LEARNERS)}")
  require("bn_mode", config.bn_mode in BN_MODES, f"one of {', '.join(BN_MODES)}")
  _check_combinations(config, require)
  _check_learner(config, require)
  _check_domain(config, require)


def _check_numbers(config, require):
  for name in ("num_classes", "meta_batch_size", "update_batch_size", "num_updates", "num_filters",
               "eval_tasks"):  # fmt: skip
    require(name, getattr(config, name) >= 1, "a whole number of at least 1")
  least = 0 if config.has_images or config.has_policy else 1
  require("eval_queries", config.eval_queries >= least, f"a whole number of at least {least}")
  for name in ("pretrain_iterations", "metatrain_iterations", "eval_updates", "task_chunk", "seed"):
    require(name, getattr(config, name) >= 0, "a whole number of at least 0")
  require("seed", config.seed < 2**62, "a number below 2**62")
  for field in dataclasses.fields(config):
    if kind_of(field) is int and field.name != "seed":
      require(field.name, getattr(config, field.name) < _COUNT_LIMIT, "a number below 2**31")
  require(
    "metatrain_iterations",
    config.pretrain_iterations + config.metatrain_iterations < _COUNT_LIMIT,
    "a number that is, with --pretrain_iterations, below 2**31",
  )
  for name in ("meta_lr", "update_lr", "init_stddev"):
    value = getattr(config, name)
    require(name, value is None or 0 < value < _RATE_LIMIT, "a finite number above 0")
  for name in ("train_update_batch_size", "train_update_lr"):
    value = getattr(config, name)
    require(name, value == -1 or 0 < value < _RATE_LIMIT, "-1 (as update_...) or a finite number above 0")


def _check_combinations(config, require):
  """Refuses flags that would otherwise be ignored without a word."""
  for name in ("train_update_batch_size", "train_update_lr"):
    value, same = getattr(config, name), getattr(config, name.removeprefix("train_"))
    require(name, not config.train or value in (-1, same), "-1, or --train=False: training itself goes by "
            f"--{name.removeprefix('train_')}")  # fmt: skip
  if config.test_iter > 0:
    require("test_iter", not config.train, "--train=False with it: training goes on from the newest checkpoint")
    require("test_iter", config.init_from is None, "no --init_from with it: that is evaluated, not a checkpoint")
    require("test_iter", config.method != "random", "no --baseline=random with it, which has no checkpoints")
  require(
    "init_from",
    config.init_from is None or config.method != "random",
    "no --baseline=random with it, whose weights are drawn at random",
  )
  nothing = config.train and config.method != "random" and config.iterations == 0
  require(
    "metatrain_iterations",
    not nothing,
    "at least 1 (or --pretrain_iterations above 0, or --train=False)",
  )


def _check_learner(config, require):
  """Refuses settings that the learner or the normalisation makes meaningless."""
  require(
    "learner", config.learner == "maml" or config.method == "maml", "maml with a baseline: that is trained instead"
  )
  reptile = config.learner == "reptile"
  require(
    "stop_grad", not (reptile and config.stop_grad), "False with --learner=reptile, which is first order by nature"
  )
  require(
    "checkpoint_inner_steps",
    not (config.checkpoint_inner_steps and (reptile or config.method != "maml")),
    "False: only --learner=maml, anil and metasgd go backward through inner steps",
  )
  if config.bn_mode != "transductive":
    require("bn_mode", config.norm == "batch_norm", "transductive, or --norm=batch_norm with it")
  if config.bn_mode == "running":
    require("bn_mode", config.method == "maml", "transductive or support with a baseline, which keeps no averages")
  learned = config.learner == "metasgd" and config.train_update_lr not in (-1, config.update_lr)
  require("train_update_lr", not learned, "-1 with --learner=metasgd, whose step sizes are learned")
  chunks = config.task_chunk
  require(
    "task_chunk",
    not config.train or chunks == 0 or config.meta_batch_size % chunks == 0,
    f"0 or a number that divides --meta_batch_size={config.meta_batch_size}",
  )


def _check_domain(config, require):
  """Refuses what the datasource does not have."""
  foreign, there = (NOT_RL_SETTINGS, "of images or sinusoids") if config.has_policy else (RL_SETTINGS, "of policies")
  for name in foreign:
    default = PRESETS[config.datasource][name]
    require(name, getattr(config, name) == default, f"{default}, which means nothing here: it is a setting {there}")
  if config.has_policy:
    return _check_policy(config, require)
  omniglot = config.datasource == "omniglot"
  require("split", omniglot or config.split == "published", "published, or --datasource=omniglot: only that has others")
  if not config.has_images:
    require("loss_reduction", config.loss_reduction == "mean", "mean, or a --datasource of images")
    return None
  require("num_classes", config.num_classes >= 2, "at least 2")
  fixed = "None or random: every task labels its classes anew, so there is nothing to train without adaptation"
  require("baseline", config.baseline in ("None", "random"), fixed)
  require("pretrain_iterations", config.pretrain_iterations == 0, "0 with images: every task labels its classes anew")
  return None


def _check_policy(config, require):
  for name in ("rollouts_per_task", "horizon"):
    require(name, 1 <= getattr(config, name) < _COUNT_LIMIT, "a whole number, 1 or more")
  require("inner", config.inner in INNERS, f"one of {', '.join(INNERS)}")
  require("outer", config.outer in OUTERS, f"one of {', '.join(OUTERS)}")
  require("hvp", config.hvp in HVPS, f"one of {', '.join(HVPS)}")
  require("max_kl", 0 < config.max_kl < _RATE_LIMIT, "a finite number above 0")
  require("hvp_subsample", 0 < config.hvp_subsample <= 1, "a share of the tasks, above 0 and at most 1")
  require("sim_threads", 0 <= config.sim_threads <= 1024, "0 (as many as cores) to 1024")
  require("task_chunk", config.task_chunk == 0, "0: all tasks are stepped together")
  defaults = PRESETS[config.datasource]
  others = ("meta_lr",) if config.outer == "trpo" else ("hvp", "hvp_subsample")
  for name in others:
    needs = "--outer=vpg or ppo" if config.outer == "trpo" else "--outer=trpo"
    require(name, getattr(config, name) == defaults[name], f"{defaults[name]}, or {needs}, which alone uses it")
  if config.method != "maml":
    for name in ("stop_grad", "num_updates", "inner"):
      require(
        name, getattr(config, name) == defaults[name], f"{defaults[name]}: a baseline is trained without adapting"
      )
  drawable = config.datasource not in ("bandit", "tabular")
  require("render", drawable or not config.render, "False: there is nothing to see of a bandit or a table")
  pretrains = config.method in ("maml", "random")
  require("pretrain_iterations", not pretrains or config.pretrain_iterations == 0, "0, or --baseline=pretrain")


def _check_logdir(config):
  flag = f"--logdir={config.logdir}"
  if not config.logdir:
    raise UserError(f"{flag}: expected the name of a folder")
  path = pathlib.Path(config.logdir).absolute()
  if config.train is False and config.init_from is None and config.method != "random" and not path.exists():
    raise UserError(f"{flag}: no such folder, so there is no checkpoint to evaluate; train first, or name another")
  there = next(parent for parent in (path, *path.parents) if parent.exists())
  if not there.is_dir():
    raise UserError(f"{flag}: {there} is a file, a folder was expected; name another")
  if not os.access(there, os.W_OK | os.X_OK):
    read_only = os.statvfs(there).f_flag & os.ST_RDONLY
    reason = "the file system is read-only" if read_only else "permission denied"
    raise UserError(f"{flag}: cannot write in {there} ({reason}); name a folder that can be written")


def _check_init_from(init_from):
  flag, path = f"--init_from={init_from}", pathlib.Path(init_from)
  if not init_from or not path.exists():
    raise UserError(f"{flag}: no such folder; expected a SavedModel that maml_tf exported, <run>/saved_model")
  if not path.is_dir():
    raise UserError(f"{flag}: this is a file; expected a SavedModel, a folder with saved_model.pb in it")
  if not (path / "saved_model.pb").is_file():
    raise UserError(f"{flag}: no SavedModel in this folder; expected one with saved_model.pb in it")
