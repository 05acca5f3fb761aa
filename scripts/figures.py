"""Draws the paper's figures from run directories, and others from results files, as PNG and PDF.

python scripts/figures.py sinusoid --logdir=logs --output=results/figures
python scripts/figures.py probabilistic --logdir=logs       # hypotheses of sine waves and lines
python scripts/figures.py images --output=results/figures   # learning curves
python scripts/figures.py online --output=results/figures   # streams of tasks, by task; and regret
python scripts/figures.py rl --output=results/figures       # returns against steps, and 2D paths of pretrained/point
"""

import pathlib
import sys

from absl import flags
from common import import_tensorflow, main_of

from maml_tf.errors import UserError
from maml_tf.results import figures

FLAGS = flags.FLAGS
flags.DEFINE_string("logdir", "logs", "folder of the run directories; sinusoid and probabilistic")
flags.DEFINE_string("results", "results", "folder of the results files; images, online and rl")
flags.DEFINE_string("output", "results/figures", "folder to write to")
flags.DEFINE_integer("seed", 0, "seed of the runs to draw; sinusoid and probabilistic")

FORMATS = ("png", "pdf")
POINT = pathlib.Path(__file__).parents[1] / "pretrained" / "point"


def sinusoid():
  runs = figures.newest_runs("sinusoid", figures.FIGURE_3, FLAGS.logdir, FLAGS.seed)
  for directory, _ in runs.values():
    print(f"from  {directory}")
  import_tensorflow()
  return figures.sinusoid(runs)


def probabilistic():
  runs = figures.newest_runs("sine_or_line", figures.PROBABILISTIC, FLAGS.logdir, FLAGS.seed)
  import_tensorflow()
  return figures.probabilistic(runs)


def images():
  import_tensorflow()
  return figures.images(FLAGS.results)


def online():
  import_tensorflow()
  return figures.online(FLAGS.results)


def rl():
  import_tensorflow()
  return figures.policies(FLAGS.results, POINT if POINT.is_dir() else None, FLAGS.seed)


FIGURES = {"sinusoid": sinusoid, "probabilistic": probabilistic, "images": images, "online": online, "rl": rl}


def draw(arguments):
  if len(arguments) != 1 or arguments[0] not in FIGURES:
    raise UserError(f"expected one argument of {', '.join(FIGURES)}, got {' '.join(arguments) or 'none'}")
  drawn = FIGURES[arguments[0]]()
  from maml_tf.experiments.figures import save_all

  for path in save_all(drawn, FLAGS.output, FORMATS):
    print(f"wrote {path}")


if __name__ == "__main__":
  sys.exit(main_of(draw, __doc__))
