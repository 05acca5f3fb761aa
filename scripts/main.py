"""Trains or evaluates one experiment. `python scripts/main.py --help` lists the flags; with none it is the sinusoid."""

import os
import sys

from common import import_tensorflow

from maml_tf.experiments import command_line


def main(argv):
  """Runs a command line; returns the exit status: 2 where it makes no sense, 1 for what fails later on."""
  return command_line.main(argv, os.environ.get("MAML_TF_DATA") or None, import_tensorflow)


if __name__ == "__main__":
  sys.exit(main(sys.argv))
