"""Trains or evaluates one experiment. `python scripts/main.py --help` lists the flags; with none it is the sinusoid."""

import contextlib
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


@contextlib.contextmanager
def native_messages_hidden():
  """Keeps what TensorFlow's C++ code prints while it starts from the terminal; Python's own errors still show."""
  sys.stderr.flush()
  kept, sink = os.dup(2), os.open(os.devnull, os.O_WRONLY)
  os.dup2(sink, 2)
  try:
    yield
  finally:
    os.dup2(kept, 2)
    os.close(kept)
    os.close(sink)


def main(argv):
  try:
    config = parse(argv)
  except UserError as error:
    print(f"main.py: {error}", file=sys.stderr)
    return 2
  try:
    with native_messages_hidden():
      import tensorflow as tf

      tf.config.list_physical_devices()
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
