"""The command `maml-tf`, and `python -m maml_tf`: `predict`, `demo`, or the same as `python scripts/main.py`."""

import os
import sys

from maml_tf.experiments import command_line, demo_command, predict_command
from maml_tf.startup import import_tensorflow


def console():
  """Runs the command line; returns the exit status."""
  commands = {"predict": predict_command.main, "demo": demo_command.main}
  if sys.argv[1:2] and sys.argv[1] in commands:
    return commands[sys.argv[1]](sys.argv[2:], import_tensorflow)
  return command_line.main(sys.argv, os.environ.get("MAML_TF_DATA") or None, import_tensorflow)


if __name__ == "__main__":
  sys.exit(console())
