"""The installed command `maml-tf`, and `python -m maml_tf`: `predict`, or the same as `python scripts/main.py`."""

import os
import sys

from maml_tf.experiments import command_line, predict_command
from maml_tf.startup import import_tensorflow


def console():
  """Runs the command line; returns the exit status."""
  if sys.argv[1:2] == ["predict"]:
    return predict_command.main(sys.argv[2:], import_tensorflow)
  return command_line.main(sys.argv, os.environ.get("MAML_TF_DATA") or None, import_tensorflow)


if __name__ == "__main__":
  sys.exit(console())
