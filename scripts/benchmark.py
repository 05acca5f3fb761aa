"""This package and PyTorch, measured side by side in one run.

  python scripts/benchmark.py sinusoid       # meta-iterations per second: sampling, second-order MAML, Adam
  python scripts/benchmark.py omniglot       # one second-order meta-gradient on random images: milliseconds, memory
  python scripts/benchmark.py miniimagenet
  python scripts/benchmark.py memory         # miniImageNet: inner steps kept or recomputed; evaluating in parts
  python scripts/benchmark.py litert         # trained networks in LiteRT's interpreter
  python scripts/benchmark.py large          # heads of large Keras models, beside a plain loop over tasks
  python scripts/benchmark.py rl             # environment steps per second beside Gymnasium's vector environments

The contenders take turns, and the ratios are those of the medians. No data set is needed. PyTorch comes with
`pip install "maml_tf[bench]"`; `rl`, `memory` and `large` need no PyTorch.
"""

import functools
import json
import pathlib
import sys

from absl import flags
from common import import_tensorflow, main_of

sys.path.insert(1, str(pathlib.Path(__file__).parents[1]))  # `benchmarks` is no part of an installation

import benchmarks.images
import benchmarks.large
import benchmarks.litert
import benchmarks.policies
import benchmarks.sinusoid
from benchmarks import circumstances
from maml_tf.errors import UserError

FLAGS, SIZES = flags.FLAGS, ("tasks", "filters", "queries", "num_updates")
flags.DEFINE_integer("rounds", 5, "rounds in which every contender is timed once", lower_bound=1)
flags.DEFINE_float("seconds", 3.0, "time of one contender in one round", lower_bound=0.01)
flags.DEFINE_integer("main_iterations", 70000, "iterations of the run through scripts/main.py; 0: leave it out")
flags.DEFINE_list("contenders", None, "images: only these of xla, graph, recompute, chunk, map_fn, loop, vmap")
for _size in (*SIZES, "size"):
  flags.DEFINE_integer(_size, None, "images and large: other than usual, for a quick look", lower_bound=1)
flags.DEFINE_list("networks", list(benchmarks.large.NETWORKS), "large: which networks")
flags.DEFINE_integer("horizon", 50, "rl: time steps of the rollouts that are timed", lower_bound=1)
flags.DEFINE_string("output", None, "JSON file to write the results to")


def sinusoid():
  torch = circumstances.import_torch()
  import_tensorflow()
  results = benchmarks.sinusoid.run(FLAGS.rounds, FLAGS.seconds, FLAGS.main_iterations)
  print("\n".join([*benchmarks.sinusoid.report(results), f"PyTorch {torch.__version__}"]))
  return {**results, "torch": torch.__version__, **circumstances.describe()}


def images(name):
  contenders = benchmarks.images.contenders_of(name, FLAGS.contenders)
  torch = circumstances.import_torch()
  import_tensorflow()
  sizes = {size: FLAGS[size].value for size in SIZES}
  results = benchmarks.images.run(benchmarks.images.setting_of(name, **sizes), FLAGS.rounds, FLAGS.seconds, contenders)
  print("\n".join(benchmarks.images.report(name, results)))
  return {**results, "torch": torch.__version__, **timed()}


def memory():
  contenders = benchmarks.images.contenders_of("memory", FLAGS.contenders)
  import_tensorflow()
  sizes = {size: FLAGS[size].value for size in SIZES}
  return {**benchmarks.images.run_memory(sizes, FLAGS.rounds, FLAGS.seconds, contenders), **timed()}


def rl():
  benchmarks.policies.check_installed()
  import_tensorflow()
  print("\n".join(benchmarks.policies.report(results := benchmarks.policies.run(FLAGS.rounds, FLAGS.horizon))))
  return {**results, **circumstances.describe(rounds=FLAGS.rounds)}


def timed():
  return circumstances.describe(rounds=FLAGS.rounds, seconds=FLAGS.seconds)


BENCHMARKS = {"sinusoid": sinusoid, "memory": memory, "rl": rl}
BENCHMARKS["large"] = lambda: {**benchmarks.large.run(FLAGS), **timed()}
BENCHMARKS["litert"] = lambda: {**benchmarks.litert.run(FLAGS.rounds), **timed()}
BENCHMARKS |= {name: functools.partial(images, name) for name in ("omniglot", "miniimagenet")}


def measure(arguments):
  if len(arguments) != 1 or arguments[0] not in BENCHMARKS:
    raise UserError(f"expected one argument of {', '.join(BENCHMARKS)}, got {' '.join(arguments) or 'none'}")
  results = {"format_version": 1, "benchmark": arguments[0], **BENCHMARKS[arguments[0]]()}
  if FLAGS.output:
    from maml_tf.training.checkpoints import write_atomically

    write_atomically(FLAGS.output, json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
  sys.exit(main_of(measure, __doc__))
