"""Trains or evaluates one experiment. `python scripts/main.py --help` lists the flags; with none it is the sinusoid."""

import dataclasses
import os
import re
import shlex
import sys
import textwrap

from absl import flags
from common import import_tensorflow

from maml_tf.errors import UserError
from maml_tf.experiments.config import Config, check_paths, kind_of, resolve
from maml_tf.experiments.presets import PRESETS


class NumberParser(flags.ArgumentParser):
  """absl's own parsers quote Python at the user ("invalid literal for int() with base 10")."""

  def __init__(self, kind, expected):
    super().__init__()
    self._kind, self._expected = kind, expected

  def parse(self, argument):
    try:
      return self._kind(argument)
    except ValueError:
      raise ValueError(f"expected {self._expected}") from None


def make_flags():
  """One flag for each field of `Config`; None stands for the default of the domain's preset."""
  values = flags.FlagValues()
  flags.DEFINE_bool("help", False, "show this help", short_name="h", flag_values=values)
  for field in dataclasses.fields(Config):
    kind, meaning = kind_of(field), field.metadata["help"]
    if kind is bool:
      flags.DEFINE_bool(field.name, None, meaning, flag_values=values)
    elif kind is str:
      flags.DEFINE_string(field.name, None, meaning, flag_values=values)
    else:
      expected = "a whole number" if kind is int else "a number"
      flags.DEFINE(NumberParser(kind, expected), field.name, None, meaning, flag_values=values)
  return values


def parse(argv):
  """The config of a command line; None where it asks for help.

  Raises:
    UserError: the message names the flag.
  """
  values = make_flags()
  try:
    rest = values(argv)[1:]
  except flags.UnrecognizedFlagError as error:
    hint = re.search(r"Did you mean: (.*?) *\?", str(error))
    hint = f"; did you mean --{hint[1]}?" if hint else "; --help lists them"
    raise UserError(f"--{error.flagname}: no such flag{hint}") from error
  except flags.Error as error:
    message = re.sub(r"\('Non-boolean argument.*", "expected True or False", str(error))
    raise UserError(message.removeprefix("flag ")) from error
  if values.help:
    return None
  if rest:
    raise UserError(f"unexpected argument {rest[0]!r}: flags look like --name=value")
  given = {field.name: values[field.name].value for field in dataclasses.fields(Config)}
  if given["data_dir"] is None:
    given["data_dir"] = os.environ.get("MAML_TF_DATA") or None
  config = resolve(**given)
  check_paths(config)
  return config


def help_text():
  """Every flag with its meaning and its default."""
  presets = "maml_tf/experiments/presets.py; it has others for 20 ways and for 5 shots"
  lines = [__doc__, f"Flags, as --name=value, with the defaults of the presets ({presets}):", ""]
  for field in dataclasses.fields(Config):
    name = f"--[no]{field.name}" if kind_of(field) is bool else f"--{field.name}"
    text = f"{field.metadata['help']} (default: {_default(field.name)})"
    lines += textwrap.wrap(text, 110, initial_indent=f"  {name:27} ", subsequent_indent=" " * 30)
  return "\n".join(lines)


def _default(name):
  if name == "datasource":
    return "sinusoid"
  defaults = {domain: "none" if preset[name] is None else str(preset[name]) for domain, preset in PRESETS.items()}
  if len(set(defaults.values())) == 1:
    return next(iter(defaults.values()))
  return ", ".join(f"{domain} {default}" for domain, default in defaults.items())


def train_and_evaluate(config, command):
  import_tensorflow()
  from maml_tf.experiments import run

  run.run(config, command=command, say=lambda line: print(line, flush=True))


def main(argv):
  """Returns the exit status: 2 for a command line that makes no sense, 1 for what fails later on."""
  try:
    config = parse(argv)
  except UserError as error:
    return fail(error, 2)
  try:
    if config is None:
      print(help_text(), flush=True)
    else:
      train_and_evaluate(config, f"python {shlex.join(argv)}")
  except UserError as error:
    return fail(error, 1)
  except BrokenPipeError:
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the interpreter's last flush fails as well
    return fail("nobody reads the output any more; the same command continues from the last checkpoint", 1)
  except OSError as error:
    return fail(f"{error.filename or config.logdir}: {error.strerror or error}", 1)
  except KeyboardInterrupt:
    return fail("interrupted; the same command continues from the last checkpoint", 130)
  return 0


def fail(message, status):
  """Says in one line what is wrong."""
  print(f"main.py: {' '.join(str(message).split())}", file=sys.stderr)
  return status


if __name__ == "__main__":
  sys.exit(main(sys.argv))
