"""Gathers runs of several seeds into one committed results file.

  python scripts/collect.py results/sinusoid_maml.json logs/sinusoid.maml.*
  python scripts/collect.py results/omniglot_5way_1shot.json logs/omniglot.maml.cls_5.*

  python scripts/collect.py results/rl_point_maml.json logs/point.maml.*

Runs of images and of policies may be unfinished. A run directory holds its newest evaluations only, so evaluations of
the same checkpoint that an older results file of images has, with other numbers of tasks, are kept.
"""

import pathlib
import sys

from absl import flags
from common import import_tensorflow, main_of

from maml_tf.errors import UserError

FLAGS = flags.FLAGS
flags.DEFINE_integer("shots", None, "images: shots of the evaluations to gather (default: those of the training)")

ROOT = pathlib.Path(__file__).parents[1]


def run(arguments):
  if len(arguments) < 2:
    raise UserError("expected the file to write and at least one run directory")
  import_tensorflow()
  from maml_tf.results.collect import collect

  output, *folders = arguments
  content = collect(output, folders, ROOT, FLAGS.shots)
  print(f"wrote {output}: {len(content['runs'])} runs")


if __name__ == "__main__":
  sys.exit(main_of(run, __doc__))
