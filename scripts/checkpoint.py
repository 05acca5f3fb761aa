"""Keeps what an unfinished training can be continued from, small enough to be committed.

python scripts/checkpoint.py logs/omniglot.maml.cls_20.*

Copies the newest checkpoint of each run directory, with its logs, and prints the command that goes on from there.
"""

import sys

from absl import flags
from common import import_tensorflow, main_of

from maml_tf.errors import UserError

FLAGS = flags.FLAGS
flags.DEFINE_string("output", "results/checkpoints", "folder to write to")


def run(arguments):
  if not arguments:
    raise UserError("expected at least one run directory")
  import_tensorflow()
  from maml_tf.results import commands, kept, runs

  for folder in arguments:
    target, config, checkpoint = kept.keep(folder, FLAGS.output)
    megabytes = kept.size_of(target) / 1e6
    print(f"wrote {target}: iteration {runs.iteration_of(checkpoint)}, {megabytes:.1f} MB; to continue it:")
    print(commands.continue_command(target, config))


if __name__ == "__main__":
  sys.exit(main_of(run, __doc__))
