"""Every setting of the experiments, described once: help, refusals, hashes, names and commands derive from here.

Imports no TensorFlow: a command line is answered within a second.
"""

import dataclasses
import numbers
import os
from collections.abc import Callable
from typing import Any

from maml_tf.errors import UserError

COUNT_LIMIT = 2**31  # iterations and sizes are int32 tensors
RATE_LIMIT = 3.4e38  # and rates float32
NEVER = object()  # of `Setting.unless`: no value is left out


@dataclasses.dataclass(frozen=True)
class Setting:
  """One setting of a run, and one flag of the command line.

  Attributes:
    name: of the flag, and of the field of `Config`.
    default: where neither the domain nor the method has another.
    help: what it means.
    topic: of `--help`, a key of `TOPICS`.
    kind: bool, int, float or str.
    check: function of a value -> None, or what was expected in its place.
    choices: the values that there are; empty: any that `check` takes.
    optional: whether it may be None.
    sentinel: a value that means "not given", legal everywhere; None: there is none.
    of_domain: only where the domain lists it.
    of_method: only where the method lists it.
    argument: what an algorithm calls it, where it is an argument of one.
    convert: function of a value -> the argument's value; None: the value itself.
    library_name: what errors of the library call it, where it is not an argument of an algorithm.
    hashed: whether it shapes training, and so is in the run's hash.
    unless: a value at which it is left out of the hash, since there are runs that are older than the setting.
    hash_name: its name there; None: its own.
    read: function of a config -> the value that counts in the hash; None: the setting's.
    shown: (place, function of a config -> text or None): how a run directory's name shows it.
    decides: whether defaults of other settings hang on it.
    repeats: whether it is part of the command that repeats a training.
    local: a path on the machine that a run is on.
    when: function of a config -> None, or what it needs, where the setting means nothing beside the others.
  """

  name: str
  default: Any
  help: str
  topic: str
  kind: type = int
  check: Callable | None = None
  choices: tuple = ()
  optional: bool = False
  sentinel: Any = None
  of_domain: bool = False
  of_method: bool = False
  argument: str | None = None
  convert: Callable | None = None
  library_name: str | None = None
  hashed: bool = False
  unless: Any = NEVER
  hash_name: str | None = None
  read: Callable | None = None
  shown: tuple | None = None
  decides: bool = False
  repeats: bool = True
  local: bool = False
  when: Callable | None = None

  def typed(self, value):
    """`value` as the setting's type: a command line converts by itself, a notebook may give 1 for 1.0.

    Raises:
      UserError: it is of another type.
    """
    whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    fits = {
      bool: isinstance(value, bool),
      int: whole,
      float: isinstance(value, numbers.Real) and not isinstance(value, bool),
      str: isinstance(value, (str, os.PathLike)),
    }[self.kind]
    if not fits:
      raise UserError(f"--{self.name}={value}: expected a value of type {self.kind.__name__}")
    return os.fspath(value) if self.kind is str else self.kind(value)

  def problem(self, value):
    """What was expected in place of the value; None where it is fine."""
    if (value is None and self.optional) or (self.sentinel is not None and value == self.sentinel):
      return None
    if self.choices and value not in self.choices:
      return f"one of {', '.join(self.choices)}"
    problem = self.check(value) if self.check else None
    if problem is None and self.kind is int and not self.choices and self.name != "seed" and value >= COUNT_LIMIT:
      problem = "a number below 2**31"
    return problem

  def in_hash(self, config):
    """Whether a run's hash has the setting."""
    return self.hashed and (self.unless is NEVER or self.value_in(config) != self.unless)

  def value_in(self, config):
    return getattr(config, self.name) if self.read is None else self.read(config)


def at_least(least):
  return lambda value: None if value >= least else f"a whole number of at least {least}"


def _rate(value):
  return None if 0 < value < RATE_LIMIT else "a finite number above 0"


def _as_in_training(value):
  return None if 0 < value < RATE_LIMIT else "-1 (as update_...) or a finite number above 0"


def _share(value):
  return None if 0 < value <= 1 else "a share of the tasks, above 0 and at most 1"


def _seed(value):
  return None if 0 <= value < 2**62 else "a whole number of at least 0 and below 2**62"


def _threads(value):
  return None if 0 <= value <= 1024 else "0 (as many as cores) to 1024"


def _only_trpo(config):
  return None if config.outer == "trpo" else "--outer=trpo"


def _only_adam(config):
  return "--outer=vpg or ppo" if config.applies("outer") and config.outer == "trpo" else None


def _only_scheduled(config):
  return "--meta_lr_schedule=linear or cosine" if config.meta_lr_schedule == "constant" else None


def _only_normalised(config):
  return "--norm=batch_norm or layer_norm" if config.norm == "None" else None


def _only_full_context(config):
  return None if config.full_context else "--full_context"


def _only_regularised(config):
  return "--regulariser=l2 or mean" if config.regulariser == "none" else None


def _bfloat16(value):
  import tensorflow as tf

  return tf.bfloat16 if value else None


def _between(value):
  return None if 0 < value < 1 else "a number between 0 and 1"


def _smoothing(value):
  return None if 0 <= value < 1 else "a share, at least 0 and below 1"


def _only_with_gradient_steps(config):
  return None if config.applies("grad_steps") and config.grad_steps else "--grad_steps above 0"


def _only_with_buffer(config):
  return None if config.method != "scratch" else "a --learner that trains on past tasks"


def _factor(value):
  return None if 1 <= value < RATE_LIMIT else "a factor of at least 1"


def _only_warm(config):
  return None if config.warm_start_tasks else "--warm_start_tasks above 0"


TOPICS = {
  "task": "The task",
  "method": "The method",
  "network": "The network",
  "training": "Training",
  "policy": "Policies",
  "stream": "Tasks that arrive one after another",
  "evaluation": "Evaluation",
  "speed": "Speed and memory",
  "run": "The run and its files",
}
# In the order of the published code's flags (cbfinn/maml, main.py), whose names and meanings these have down to
# `train_update_lr`. Help is grouped by topic.
_DESCRIBED = (
  Setting("datasource", "sinusoid", "data or environment", "task", str, decides=True, hashed=True,
          shown=(0, lambda c: c.datasource)),
  Setting("num_classes", 5, "classes per task (N of N-way)", "task", check=at_least(1), of_domain=True, hashed=True,
          shown=(20, lambda c: f"cls_{c.num_classes}"), decides=True, library_name="ways"),
  Setting("baseline", "None", "what to train in place of a meta-learner", "method", str, decides=True),
  Setting("pretrain_iterations", 0, "iterations of training on all tasks without adaptation", "training",
          check=at_least(0), of_domain=True, hashed=True, unless=0,
          read=lambda c: c.pretrain_iterations if c.pretrains_first else 0),
  Setting("metatrain_iterations", 70000, "meta-training iterations", "training", check=at_least(0)),
  Setting("meta_batch_size", 25, "tasks per meta-iteration", "training", check=at_least(1), of_domain=True,
          hashed=True, shown=(30, lambda c: f"mbs_{c.meta_batch_size}")),
  Setting("meta_lr", 0.001, "step size of the meta-optimiser, Adam", "training", float, _rate, hashed=True,
          when=_only_adam),
  Setting("update_batch_size", 10, "support examples per class (K of K-shot)", "task", check=at_least(1),
          of_domain=True, hashed=True, hash_name="shots", read=lambda c: c.training_shots,
          shown=(40, lambda c: f"ubs_{c.training_shots}"), decides=True, library_name="shots"),
  Setting("update_lr", 0.001, "step size alpha of the inner loop; not given to a baseline, it is tuned on validation "
          "tasks", "method", float, _rate, optional=True, of_method=True, argument="inner_lr", hashed=True,
          read=lambda c: c.training_lr, shown=(60, lambda c: f"updatelr{c.training_lr:g}")),
  Setting("num_updates", 1, "inner steps in training", "method", check=at_least(1), of_method=True,
          argument="num_updates", hashed=True, shown=(50, lambda c: f"numstep{c.num_updates}")),
  Setting("norm", "None", "normalisation", "network", str, choices=("None", "batch_norm", "layer_norm"), of_domain=True,
          hashed=True, shown=(110, lambda c: "nonorm" if c.norm == "None" else c.norm.replace("_", ""))),
  Setting("num_filters", 64, "filters of every convolution", "network", check=at_least(1), of_domain=True,
          hashed=True, shown=(90, lambda c: f"hidden{c.num_filters}" if c.conv else "fc")),
  Setting("conv", True, "convolutional rather than fully connected network", "network", bool, of_domain=True,
          hashed=True),
  Setting("max_pool", False, "max-pooling rather than strided convolutions", "network", bool, of_domain=True,
          hashed=True, shown=(100, lambda c: "maxpool" if c.conv and c.max_pool else None)),
  Setting("stop_grad", False, "first-order MAML", "method", bool, of_method=True, argument="first_order", hashed=True,
          shown=(70, lambda c: "stopgrad" if c.stop_grad else None)),
  Setting("log", True, "write TensorBoard event files", "run", bool, repeats=False),
  Setting("logdir", "logs", "folder of the run directories", "run", str, repeats=False, local=True),  # published: /tmp
  Setting("resume", True, "continue from the newest checkpoint; False: put an older run aside and start anew", "run",
          bool, repeats=False),
  Setting("train", True, "True to train (and then evaluate), False to evaluate only", "run", bool, repeats=False),
  Setting("test_iter", -1, "with --train=False: iteration of the checkpoint to evaluate; 0 or less: the newest",
          "evaluation", sentinel=-1, repeats=False, library_name="iteration"),
  Setting("test_set", False, "evaluate on test tasks rather than validation tasks", "evaluation", bool, repeats=False),
  Setting("train_update_batch_size", -1, "with --train=False: update_batch_size in training, where it differed; -1: "
          "did not", "evaluation", check=_as_in_training, sentinel=-1, of_domain=True, repeats=False),
  Setting("train_update_lr", -1.0, "with --train=False: update_lr in training, where it differed; -1: did not",
          "evaluation", float, _as_in_training, sentinel=-1, of_method=True, repeats=False),
  Setting("init_stddev", 0.01, "deviation of a fully connected network's initial weights; the published code's is 0.01",
          "network", float, _rate, of_domain=True, hashed=True),
  Setting("seed", 0, "seed of the initialisation and of every task", "training", check=_seed, hashed=True,
          shown=(130, lambda c: f"seed{c.seed}")),
  Setting("data_dir", "data", "folder of the data sets; on the command line MAML_TF_DATA names it, where that is set",
          "run", str, repeats=False, local=True, library_name="data_dir"),
  Setting("split", "published", "how classes are divided for training, validation and test", "task", str,
          of_domain=True, hashed=True, library_name="class_split"),
  Setting("loss_reduction", "mean", "how examples make a loss; per_class_sum: their sum over the shots", "method", str,
          choices=("mean", "per_class_sum"), of_domain=True, of_method=True, argument="loss_reduction", hashed=True),
  Setting("learner", "maml", "method that learns to learn, or module:Class of one's own", "method", str, decides=True),
  Setting("bn_mode", "transductive", "whose statistics batch normalisation uses for query examples: transductive "
          "(their own), support (the support set's), running (averages over training)", "method", str,
          choices=("transductive", "support", "running"), of_domain=True, of_method=True, argument="bn_mode",
          hashed=True, unless="transductive"),
  Setting("task_chunk", 0, "tasks computed at a time, to save memory; 0: as many as fit into 2 GB in training, 0.5 GB "
          "in an evaluation", "speed", check=at_least(0), of_domain=True),
  Setting("checkpoint_inner_steps", False, "recompute inner steps in the backward pass, to save memory", "speed", bool,
          of_domain=True, of_method=True, argument="checkpoint_inner_steps"),
  Setting("mixed_precision", False, "compute in bfloat16, where the hardware has it; weights stay in float32", "speed",
          bool, of_domain=True, of_method=True, argument="compute_dtype", convert=_bfloat16, hashed=True, unless=False),
  Setting("init_from", None, "SavedModel to start training from, or to evaluate", "run", str, optional=True),
  Setting("export", True, "write the SavedModel of the result into the run directory", "run", bool, repeats=False),
  Setting("export_half", False, "keep its weights as float16, in half the space; it computes in float32 all the same",
          "run", bool, of_domain=True, repeats=False),
  Setting("export_bn_mode", "support", "whose statistics normalise query examples in the SavedModel: support (one "
          "example can be asked at a time) or transductive (as published)", "run", str,
          choices=("support", "transductive"), of_domain=True, of_method=True, repeats=False),
  Setting("eval_tasks", 600, "tasks in the evaluation", "evaluation", check=at_least(1), repeats=False),
  Setting("eval_updates", 10, "most inner steps in the evaluation", "evaluation", check=at_least(0), of_method=True),
  Setting("eval_queries", 0, "query examples per task (sinusoid) or per class (images) in the evaluation; images: 0 "
          "for 1, 15 and as many as shots, one after the other", "evaluation", check=at_least(0), of_domain=True,
          repeats=False),
  Setting("jit_compile", False, "compile the training loop with XLA", "speed", bool, of_domain=True),
  Setting("rollouts_per_task", 0, "rollouts of each task for each gradient", "policy", check=at_least(1),
          of_domain=True, hashed=True, shown=(45, lambda c: f"rollouts{c.rollouts_per_task}")),
  Setting("horizon", 0, "time steps of a rollout", "policy", check=at_least(1), of_domain=True, hashed=True),
  Setting("inner", "log_likelihood", "what a policy's inner step descends, with the same gradient", "policy", str,
          choices=("log_likelihood", "ratio"), of_domain=True, of_method=True, hashed=True, unless="log_likelihood",
          shown=(80, lambda c: "ratio" if c.inner == "ratio" else None)),
  Setting("outer", "trpo", "meta-optimiser of policies (vpg and ppo: Adam with --meta_lr)", "policy", str,
          choices=("trpo", "vpg", "ppo"), of_domain=True, hashed=True,
          shown=(120, lambda c: f"kl{c.max_kl:g}" if c.outer == "trpo" else c.outer)),
  Setting("max_kl", 0.01, "TRPO's bound on the mean KL divergence, in nats", "policy", float, _rate, of_domain=True,
          hashed=True, when=_only_trpo),
  Setting("hvp", "exact", "TRPO's products with the KL's Hessian", "policy", str,
          choices=("exact", "finite_difference"), of_domain=True, hashed=True, when=_only_trpo),
  Setting("hvp_subsample", 1.0, "share of the tasks that they are computed on, to save time (a baseline has one)",
          "policy", float, _share, of_domain=True, hashed=True, when=_only_trpo),
  Setting("sim_threads", 0, "threads or processes of the simulator; 0: as many as cores", "speed", check=_threads,
          of_domain=True, repeats=False),
  Setting("render", False, "write videos of a policy before and after adaptation", "evaluation", bool, of_domain=True,
          repeats=False),
  # These came with the redesign.
  Setting("image_size", None, "height and width that images are resized to; none: the data set's own", "task",
          check=at_least(1), optional=True, of_domain=True, hashed=True, unless=None, library_name="image_size"),
  Setting("log_every", 100, "iterations between rows of the log", "training", check=at_least(1)),
  Setting("validate_every", 1000, "iterations between validations", "training", check=at_least(1)),
  Setting("checkpoint_every", 1000, "iterations between checkpoints", "training", check=at_least(1)),
  Setting("validation_tasks", 600, "tasks of a validation", "training", check=at_least(1)),
  # These came with the other learners.
  Setting("meta_lr_schedule", "constant", "how the meta-step size falls: linear, to 0; cosine, to a hundredth",
          "training", str, choices=("constant", "linear", "cosine"), of_method=True, hashed=True, unless="constant"),
  Setting("schedule_iterations", 50000, "meta-iterations over which it falls", "training", check=at_least(1),
          of_method=True, hashed=True, when=_only_scheduled),
  Setting("proximal_weight", 2.0, "lambda of implicit MAML, which holds adapted weights near the initialisation",
          "method", float, _rate, of_method=True, argument="proximal_weight", hashed=True),
  Setting("cg_iterations", 5, "conjugate-gradient iterations of implicit MAML", "method", check=at_least(1),
          of_method=True, argument="cg_iterations", hashed=True),
  Setting("multi_step_iterations", 7500, "meta-iterations over which the losses after earlier steps fade; 0: the last "
          "step's alone", "method", check=at_least(0), of_method=True, argument="multi_step_iterations", hashed=True),
  Setting("first_order_iterations", 25000, "meta-iterations before second derivatives are taken", "method",
          check=at_least(0), of_method=True, argument="first_order_iterations", hashed=True),
  Setting("per_step_norm", False, "MAML++: weights of normalisation for every inner step", "method", bool,
          of_method=True, argument="per_step_norm", hashed=True, unless=False, when=_only_normalised),
  Setting("attention_scale", 10.0, "what matching networks multiply cosines by; the paper's is 1", "method", float,
          _rate, of_method=True, argument="attention_scale", hashed=True),
  Setting("full_context", False, "matching networks: embed examples in the context of the support set", "method", bool,
          of_method=True, argument="full_context", hashed=True,
          shown=(65, lambda c: "fce" if c.full_context else None)),
  Setting("attention_steps", 3, "readings of the support set for each query, with full context", "method",
          check=at_least(1), of_method=True, argument="attention_steps", hashed=True, when=_only_full_context),
  Setting("context_size", 10, "free parameters joined to the input, of a context vector", "method", check=at_least(1),
          of_method=True, argument="context_size", hashed=True),
  Setting("num_regressors", 500, "separate regressors whose parameters are averaged, each with a task of its own",
          "method", check=at_least(1), of_method=True, argument="num_regressors", hashed=True),
  Setting("regulariser", "none", "of the regressors: l2, or mean (towards the mean of all of them)", "method", str,
          choices=("none", "l2", "mean"), of_method=True, argument="regulariser", hashed=True,
          shown=(66, lambda c: None if c.regulariser == "none" else f"reg{c.regulariser}")),
  Setting("regulariser_strength", 0.001, "what the regulariser is multiplied by", "method", float, _rate,
          of_method=True, argument="regulariser_strength", hashed=True, when=_only_regularised),
  # Learners that read their support sets.
  Setting("recurrent_size", 128, "units of an LSTM that reads the support set", "method", check=at_least(1),
          of_method=True, argument="recurrent_size", hashed=True),
  Setting("temporal_filters", 128, "filters of SNAIL's temporal convolutions", "method", check=at_least(1),
          of_method=True, argument="temporal_filters", hashed=True),
  Setting("temporal_blocks", 4, "dense blocks of each of them, which spans 2 to this power of examples", "method",
          check=at_least(1), of_method=True, argument="temporal_blocks", hashed=True),
  Setting("memory_slots", 128, "places in a memory", "method", check=at_least(1), of_method=True,
          argument="memory_slots", hashed=True),
  Setting("slot_size", 40, "entries of a place in the memory of a network", "method", check=at_least(1),
          of_method=True, argument="slot_size", hashed=True),
  Setting("read_heads", 4, "heads that read from it, and write to it", "method", check=at_least(1), of_method=True,
          argument="read_heads", hashed=True),
  Setting("margin", 0.1, "by how much the memory module has the nearest right key nearer than any wrong one", "method",
          float, _rate, of_method=True, argument="margin", hashed=True),
  Setting("statistic_size", 512, "entries of a neural statistician's context", "method", check=at_least(1),
          of_method=True, argument="statistic_size", hashed=True),
  Setting("latent_size", 16, "entries of an image's latent variable", "method", check=at_least(1), of_method=True,
          argument="latent_size", hashed=True),
  # Reptile as published. Its runs of before have none of these.
  Setting("inner_optimizer", "sgd", "of Reptile's inner steps; adam, with beta_1 = 0, is the published one", "method",
          str, choices=("sgd", "adam"), of_method=True, argument="inner_optimizer", hashed=True, unless="sgd",
          shown=(67, lambda c: "inneradam" if c.inner_optimizer == "adam" else None)),
  Setting("inner_batch_size", 0, "examples of each inner step in training; 0: all of the task", "method",
          check=at_least(0), of_method=True, argument="inner_batch_size", hashed=True, unless=0),
  Setting("meta_optimizer", "adam", "what moves the initialisation; sgd: by --meta_lr towards the adapted weights, as "
          "published", "training", str, choices=("adam", "sgd"), of_method=True, hashed=True, unless="adam"),
  # Online meta-learning.
  Setting("num_tasks", 56, "tasks of the stream, those of a warm start included", "stream", check=at_least(1),
          of_domain=True, hashed=True, shown=(15, lambda c: f"tasks_{c.num_tasks}")),
  Setting("order_seed", None, "seed of the order of the tasks; none: the run's", "stream", check=_seed, optional=True,
          of_domain=True, hashed=True, unless=None),
  Setting("warm_start_tasks", 0, "tasks that are in the buffer before the stream begins", "stream", check=at_least(0),
          of_domain=True, hashed=True),
  Setting("warm_start_batches", 10, "data batches of each of them that are there", "stream", check=at_least(1),
          of_domain=True, hashed=True, when=_only_warm),
  Setting("warm_start_updates", 1000, "meta-updates on them before the next task arrives, in whole rounds", "stream",
          check=at_least(0), of_domain=True, hashed=True, when=_only_warm),
  Setting("meta_updates", 50, "meta-updates whenever a data batch arrives (N_meta)", "stream", check=at_least(1),
          of_domain=True, hashed=True, shown=(25, lambda c: f"meta_{c.meta_updates}")),
  Setting("grad_steps", 5, "gradient steps on all data of the current task, before it is judged (N_grad)", "stream",
          check=at_least(0), of_method=True, hashed=True),
  Setting("inner_batch", 10, "examples of a support set, and of a query set, in a meta-update", "stream",
          check=at_least(1), of_domain=True, hashed=True),
  Setting("current_in_buffer", True, "draw the current task for meta-updates as well", "stream", bool, of_domain=True,
          hashed=True, when=_only_with_buffer),
  Setting("label_smoothing", 0.1, "share of every label that is spread over all classes", "stream", float, _smoothing,
          of_domain=True, hashed=True),
  Setting("support_reduction", "sum_over_k", "how examples make the loss that the gradient steps descend; sum_over_k: "
          "their sum over --inner_batch, so that steps grow with the data", "stream", str,
          choices=("mean", "sum_over_k"), of_domain=True, hashed=True, when=_only_with_gradient_steps),
  Setting("judge_growth", 1.0, "factor by which a task's data grows between two judgments of it; 1: it is judged after "
          "every data batch", "stream", float, _factor, of_domain=True, hashed=True, unless=1.0),
  Setting("threshold", 0.9, "accuracy (poses: error) at which a task counts as learned", "evaluation", float, _between,
          of_domain=True, repeats=False),
  # CSS' red, orange, yellow, green, blue, indigo and violet; the paper names seven colours, without values.
  Setting("colors", "ff0000,ffa500,ffff00,008000,0000ff,4b0082,ee82ee", "grounds of the digits, rrggbb", "task", str,
          of_domain=True, hashed=True),
  Setting("images", "cifar100", "whose classes arrive", "task", str, choices=("cifar100", "miniimagenet"),
          of_domain=True, hashed=True, shown=(12, lambda c: c.images)),
  Setting("examples_per_task", 2000, "examples of a task that arrive, without those held out", "stream",
          check=at_least(1), of_domain=True, hashed=True, library_name="examples_per_task"),
  Setting("renderer", "mujoco", "what draws the objects: mujoco, or numpy, which needs no OpenGL", "task", str,
          choices=("mujoco", "numpy"), of_domain=True, hashed=True, library_name="renderer"),
)  # fmt: skip
SETTINGS = {setting.name: setting for setting in _DESCRIBED}
