"""Command lines that train a run again, go on with it, or are left without this machine's folders."""

import shlex

from maml_tf.errors import UserError
from maml_tf.experiments.config import resolve, train_command
from maml_tf.experiments.settings import SETTINGS
from maml_tf.results import descriptions


def continue_command(kept, config):
  """The command that continues a kept run in logs/, the default folder."""
  return f"mkdir -p logs && cp -r {shlex.quote(str(kept))} logs/ && {train_command(config)}"


def training_of_any_seed(config):
  """The training command without what changes no result but by chance: its seed, and what is for speed."""
  aside = [s.name for s in SETTINGS.values() if s.name == "seed" or (s.topic == "speed" and not s.hashed)]
  return " ".join(part for part in train_command(config).split() if _flag_of(part) not in aside)


def variant(config):
  """Flags by which a training differs from the usual one of its method, data set and size of task."""
  said = {s.name for s in SETTINGS.values() if s.decides or s.name == "seed" or not s.in_hash(config)} - {"init_from"}
  return " ".join(part for part in shlex.split(train_command(config))[2:] if _flag_of(part) not in said)


def _flag_of(part):
  return part.removeprefix("--").partition("=")[0]


def command_for(datasource, method, **settings):
  """The command that makes a figure which was not run; None where this package has no such method."""
  try:
    config = resolve(datasource, **descriptions.settings(method), **settings)
  except UserError:
    return None
  return train_command(config) + (" --test_set=True" if config.applies("test_set") and not config.test_set else "")


def without_paths(content):
  """Nested content whose commands do not name the folders of the machine that they ran on."""
  if isinstance(content, dict):
    return {name: without_paths(value) for name, value in content.items()}
  if isinstance(content, list):
    return [without_paths(value) for value in content]
  if isinstance(content, str) and content.startswith("python scripts/"):
    aside = tuple(f"--{s.name}=" for s in SETTINGS.values() if s.local)
    return shlex.join(part for part in shlex.split(content) if not part.startswith(aside))
  return content
