"""Writes a trained initialisation anew, with other statistics for the query examples or for LiteRT.

  python scripts/export.py MODEL OUTPUT --bn_mode=transductive
  python scripts/export.py MODEL OUTPUT.tflite --support_size=5

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


flags.DEFINE_integer("support_size", None, "of a LiteRT model, OUTPUT.tflite: examples to adapt on", lower_bound=1)


def export(arguments):
  if len(arguments) != 2:
    raise UserError(f"expected a SavedModel and the folder to write, got {' '.join(arguments) or 'nothing'}")
  if arguments[1].endswith(".tflite"):
    return export_litert(*arguments)
  import_tensorflow()
  from maml_tf.experiments.reexport import reexport

  reexport(*arguments, FLAGS.bn_mode, FLAGS.half)
  print(f"wrote {arguments[1]}: query examples are normalised by {FLAGS.bn_mode} statistics")


def export_litert(model, output):
  if FLAGS.support_size is None:
    raise UserError("support_size=None: name the number of examples to adapt on, which a LiteRT model fixes")
  import_tensorflow()
  from maml_tf import litert
  from maml_tf.training.checkpoints import write_atomically

  content = litert.convert(model, FLAGS.support_size)
  write_atomically(output, content)
  print(f"wrote {output}: {len(content) / 1e3:.0f} kB, with the signatures adapt and predict")


if __name__ == "__main__":
  sys.exit(main_of(export, __doc__))
