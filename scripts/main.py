"""Trains or evaluates one experiment. `python scripts/main.py --help` lists the flags; with none it is the sinusoid."""

import dataclasses
import os
import shlex
import sys

from absl import flags

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # TensorFlow's start-up messages are not the user's

from maml_tf.errors import UserError
from maml_tf.experiments.config import Config, resolve

_DEFINE = {
  "int": flags.DEFINE_integer,
  "float": flags.DEFINE_float,
  "bool": flags.DEFINE_bool,
  "str": flags.DEFINE_string,
}


def define_flags():
  """One flag for each field of `Config`; the default of each is the domain's preset."""
  for field in dataclasses.fields(Config):
    kind = getattr(field.type, "__name__", str(field.type)).split(" |")[0]
    _DEFINE[kind](field.name, None, field.metadata["help"])


def parse(argv):
  """The config of a command line."""
  flags.DEFINE_bool("help", False, "show this help", short_name="h", allow_override=True)
  define_flags()
  try:
    rest = flags.FLAGS(argv)[1:]
  except flags.Error as error:
    raise UserError(str(error).replace("\n", " ")) from error
  if flags.FLAGS.help:
    print(f"{__doc__}\n\n{flags.FLAGS.module_help(sys.modules['__main__'])}")
    sys.exit(0)
  if rest:
    raise UserError(f"unexpected argument {rest[0]!r}: flags look like --name=value")
  return resolve(**{f.name: flags.FLAGS[f.name].value for f in dataclasses.fields(Config)})


def main(argv):
  try:
    config = parse(argv)
  except UserError as error:
    print(f"main.py: {error}", file=sys.stderr)
    return 2
  try:
    from maml_tf.experiments import run

    run.run(config, command=f"python {shlex.join(argv)}")
  except UserError as error:
    print(f"main.py: {error}", file=sys.stderr)
    return 1
  except KeyboardInterrupt:
    print("main.py: interrupted; the same command continues from the last checkpoint", file=sys.stderr)
    return 130
  return 0


if __name__ == "__main__":
  sys.exit(main(sys.argv))
