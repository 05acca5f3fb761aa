"""The command line of the experiments: flags, help and exit statuses, all from the settings' descriptions."""

import os
import re
import shlex
import sys
import textwrap

from absl import flags

from maml_tf.errors import UserError
from maml_tf.experiments import methods
from maml_tf.experiments.config import check_paths, default_of, resolve
from maml_tf.experiments.domains import DATASOURCES, DOMAINS
from maml_tf.experiments.settings import SETTINGS, TOPICS
from maml_tf.training import interrupts

USAGE = (
  "Trains or evaluates one experiment; with no flag at all, the sinusoid.",
  "Flags are --name=value. With --datasource (and --learner or --baseline), --help shows what applies there.",
)


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
  """One flag for each setting; None stands for what the domain or the method has."""
  values = flags.FlagValues()
  flags.DEFINE_bool("help", False, "show this help", short_name="h", flag_values=values)
  for setting in SETTINGS.values():
    if setting.kind is bool:
      flags.DEFINE_bool(setting.name, None, setting.help, flag_values=values)
    elif setting.kind is str:
      flags.DEFINE_string(setting.name, None, setting.help, flag_values=values)
    else:
      expected = "a whole number" if setting.kind is int else "a number"
      flags.DEFINE(NumberParser(setting.kind, expected), setting.name, None, setting.help, flag_values=values)
  return values


def parse(argv, data_dir=None):
  """The config of a command line, and no text; or no config, and the text of its help.

  Args:
    argv: the program's name, then flags.
    data_dir: folder of the data sets where no flag names one; None: the setting's default.

  Raises:
    UserError: the message names the flag.
  """
  given, wants_help = _given(argv)
  if wants_help:
    return None, help_text(**given)
  if data_dir is not None:
    given.setdefault("data_dir", data_dir)
  config = resolve(**given)
  check_paths(config)
  return config, None


def settings_in(flags_given):
  """The settings that flags name, dict of name -> value of its type; what cannot be is left to `resolve`.

  Raises:
    UserError: no flag of a setting, or a value of another type.
  """
  return _given(["", *flags_given])[0]


def _given(argv):
  """(the settings that flags name, whether help is asked for)."""
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
  if rest:
    raise UserError(f"unexpected argument {rest[0]!r}: flags look like --name=value")
  named = {name: values[name].value for name in SETTINGS}
  return {name: value for name, value in named.items() if value is not None}, values.help


def help_text(datasource=None, **given):
  """Every flag with its meaning and its default, by topic; what applies, where a datasource or a method is given."""
  named = {name: given[name] for name in ("learner", "baseline") if name in given}
  config = None
  if datasource is not None or named:
    config = resolve(datasource, **named)
  lines = [*USAGE]
  for topic, title in TOPICS.items():
    settings = [s for s in SETTINGS.values() if s.topic == topic and (config is None or config.applies(s.name))]
    if settings:
      lines += ["", f"{title}:"]
    for setting in settings:
      lines += _described(setting, config)
  return "\n".join(lines)


def _described(setting, config):
  name = f"--[no]{setting.name}" if setting.kind is bool else f"--{setting.name}"
  choices = _choices(setting, config)
  meaning = f"{setting.help}: {', '.join(choices)}" if choices else setting.help
  text = f"{meaning} (default: {_default(setting, config)})"
  return textwrap.wrap(text, 110, initial_indent=f"  {name:27} ", subsequent_indent=" " * 30)


def _choices(setting, config):
  if setting.name == "datasource":
    return tuple(DATASOURCES)
  if setting.name in ("learner", "baseline"):
    return methods.names(setting.name, None if config is None else config.domain.kind)
  return () if setting.name in setting.help or any(c in setting.help for c in setting.choices) else setting.choices


def _default(setting, config):
  if config is not None:
    return _said(getattr(config, setting.name))
  if setting.name == "datasource":
    return setting.default
  domains = [d for d in DOMAINS if d.has(setting)]
  sources = {}
  for source in (source for domain in domains for source in domain.datasources):
    sources.setdefault(_said(default_of(source, setting.name)), []).append(source)
  if len(sources) == 1:
    return next(iter(sources))
  most = max(sources, key=lambda value: len(sources[value]))
  others = [f"{'/'.join(names)} {value}" for value, names in sources.items() if value != most]
  return ", ".join([*others, f"others {most}"])


def _said(value):
  return "none" if value is None else str(value)


def main(argv, data_dir=None, prepare=lambda: None):
  """Runs a command line; returns the exit status: 2 where it makes no sense, 1 for what fails later on.

  Args:
    argv: the program's name, then flags.
    data_dir: as of `parse`.
    prepare: called before TensorFlow is imported.
  """
  program = os.path.basename(argv[0])
  if any(re.match(r"--?learner[= ].*:", argument) for argument in argv[1:]):
    prepare()  # to be asked what settings it has, a class of the user's is imported, and TensorFlow with it
  try:
    config, text = parse(argv, data_dir)
  except UserError as error:
    return fail(program, error, 2)
  try:
    if config is None:
      print(text, flush=True)
    else:
      _run(config, f"python {shlex.join(argv)}", prepare)
  except UserError as error:
    return fail(program, error, 1)
  except BrokenPipeError:
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the interpreter's last flush fails as well
    return fail(program, "nobody reads the output any more; the same command continues from the last checkpoint", 1)
  except OSError as error:
    return fail(program, f"{error.filename or config.logdir}: {error.strerror or error}", 1)
  except KeyboardInterrupt as error:  # `training.interrupts.Interrupted`, but for the time before TensorFlow is there
    message = str(error) or "interrupted; the same command goes on from the last checkpoint"
    return fail(program, message, getattr(error, "status", 130))
  return 0


def _run(config, command, prepare):
  with interrupts.heard():
    prepare()
    from maml_tf.experiments import run

    run.run(config, command=command, say=lambda line: print(line, flush=True))


def fail(program, message, status):
  """Says in one line what is wrong."""
  print(f"{program}: {' '.join(str(message).split())}", file=sys.stderr)
  return status
