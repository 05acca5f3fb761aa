"""Command lines that repeat a run, as short as they can be."""

import shlex

from maml_tf.errors import UserError
from maml_tf.experiments.config import PATHS, resolve

# What does not shape training.
ASIDE = (
  *PATHS, "resume", "train", "test_iter", "test_set", "train_update_batch_size", "train_update_lr", "log",
  "export", "export_half", "eval_tasks", "eval_queries", "sim_threads", "render",
)  # fmt: skip
SPEED = ("task_chunk", "checkpoint_inner_steps", "jit_compile")  # these change no result


def given_settings(config):
  """The fewest settings that `resolve` makes this training of: dict of name -> value, the decisive ones first.

  Defaults depend on some settings (20 ways have a step size of their own), so a setting is given where that explains
  most of what still differs.
  """
  wanted = {n: v for n, v in config.to_dict().items() if n not in ASIDE and n != "datasource"}
  given = {}
  while missing := _missing(config.datasource, given, wanted):
    name = min(missing, key=lambda n: len(_missing(config.datasource, given | {n: wanted[n]}, wanted)))
    given[name] = wanted[name]
  return given


def _missing(datasource, given, wanted):
  """Names of the settings that differ from those wanted where these are given; all, where they may not stand alone."""
  try:
    found = resolve(datasource, **given).to_dict()
  except UserError:
    return [name for name in wanted if name not in given]
  return [name for name, value in wanted.items() if found[name] != value]


def train_command(config):
  """The shortest command line that trains as a config does."""
  given = {"datasource": config.datasource, **given_settings(config)}
  return shlex.join(["python", "scripts/main.py", *(f"--{name}={value}" for name, value in given.items())])


def continue_command(kept, config):
  """The command that continues a kept run in logs/, the default folder."""
  return f"mkdir -p logs && cp -r {shlex.quote(str(kept))} logs/ && {train_command(config)}"


def training_of_any_seed(config):
  """The training command without what changes no result but by chance: its seed, and what is for speed."""
  aside = tuple(f"--{name}=" for name in ("seed", *SPEED))
  return " ".join(part for part in train_command(config).split() if not part.startswith(aside))
