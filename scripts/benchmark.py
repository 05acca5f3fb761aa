"""This package and PyTorch, measured side by side in one run.

  python scripts/benchmark.py sinusoid       # meta-iterations per second: sampling, second-order MAML, Adam
  python scripts/benchmark.py omniglot       # one second-order meta-gradient on random images: milliseconds, memory
  python scripts/benchmark.py miniimagenet
  python scripts/benchmark.py memory         # miniImageNet after 1, 5 and 10 inner steps, with and without recomputing
  python scripts/benchmark.py evaluation     # miniImageNet: 20 tasks at once, and as many at a time as fit
  python scripts/benchmark.py large          # heads of large Keras models, beside a plain loop over tasks
  python scripts/benchmark.py litert         # trained networks in LiteRT's interpreter
  python scripts/benchmark.py rl             # environment steps per second beside Gymnasium's vector environments
  python scripts/benchmark.py online         # a stream of 400 tasks: time of a round and memory, from first to last

The contenders take turns, several rounds, and the ratios are those of the medians. No data set is needed. PyTorch comes
with `pip install "maml_tf[bench]"`; only `sinusoid`, `omniglot` and `miniimagenet` need it.
"""

import json
import pathlib
import sys

from absl import flags
from common import main_of

sys.path.insert(1, str(pathlib.Path(__file__).parents[1]))  # `benchmarks` is no part of an installation

from benchmarks import by_name, large
from maml_tf.errors import UserError

FLAGS = flags.FLAGS
flags.DEFINE_integer("rounds", 5, "rounds in which every contender is timed once", lower_bound=1)
flags.DEFINE_float("seconds", 3.0, "time of one contender in one round", lower_bound=0.01)
flags.DEFINE_integer("main_iterations", 70000, "iterations of the run through scripts/main.py; 0: leave it out")
flags.DEFINE_list("contenders", None, "images: only these of xla, graph, recompute, chunk, map_fn, loop, vmap")
for _size in (*by_name.SIZES, "size"):
  flags.DEFINE_integer(_size, None, "images and large: other than usual, for a quick look", lower_bound=1)
flags.DEFINE_list("networks", list(large.NETWORKS), "large: which networks")
flags.DEFINE_integer("horizon", 50, "rl: time steps of the rollouts that are timed", lower_bound=1)
flags.DEFINE_string("output", None, "JSON file to write the results to")


def measure(arguments):
  if len(arguments) != 1 or arguments[0] not in by_name.BENCHMARKS:
    raise UserError(f"expected one argument of {', '.join(by_name.BENCHMARKS)}, got {' '.join(arguments) or 'none'}")
  (name,) = arguments
  results = {"format_version": 1, "benchmark": name, **by_name.BENCHMARKS[name](FLAGS)}
  if FLAGS.output:
    from maml_tf.training.checkpoints import write_atomically

    write_atomically(FLAGS.output, json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
  sys.exit(main_of(measure, __doc__))
