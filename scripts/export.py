"""Writes a trained initialisation anew, with other statistics for the query examples.

  python scripts/export.py MODEL OUTPUT --bn_mode=transductive

MODEL is a SavedModel of a run, or a folder of pretrained/; OUTPUT may be the same folder.
"""

import sys

from absl import flags
from common import import_tensorflow, main_of

from maml_tf.errors import UserError

FLAGS = flags.FLAGS
flags.DEFINE_enum(
  "bn_mode", "support", ("support", "transductive"),
  "support: statistics of the support set, so that one example can be asked at a time; transductive: the query "
  "examples' own, as published",
)  # fmt: skip
flags.DEFINE_bool("half", False, "keep the weights as float16")


def export(arguments):
  if len(arguments) != 2:
    raise UserError(f"expected a SavedModel and the folder to write, got {' '.join(arguments) or 'nothing'}")
  import_tensorflow()
  from maml_tf.experiments.reexport import reexport

  reexport(*arguments, FLAGS.bn_mode, FLAGS.half)
  print(f"wrote {arguments[1]}: query examples are normalised by {FLAGS.bn_mode} statistics")


if __name__ == "__main__":
  sys.exit(main_of(export, __doc__))
