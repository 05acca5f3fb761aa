"""This package and PyTorch, measured side by side in one run.

  python scripts/benchmark.py sinusoid       # meta-iterations per second: sampling, second-order MAML, Adam
  python scripts/benchmark.py omniglot       # one second-order meta-gradient, or miniimagenet: milliseconds, memory
  python scripts/benchmark.py memory         # miniImageNet after 1, 5 and 10 inner steps, with and without recomputing
  python scripts/benchmark.py evaluation     # miniImageNet: 20 tasks at once, and as many at a time as fit
  python scripts/benchmark.py rl             # environment steps per second beside Gymnasium's vector environments
  python scripts/benchmark.py online         # a stream of 400 tasks: time of a round and memory, from first to last

Contenders take turns; ratios are those of medians. No data set is needed. `maml_tf[bench]` brings PyTorch, for some.
"""

import functools
import json
import pathlib
import sys

from absl import flags
from common import import_tensorflow, main_of

sys.path.insert(1, str(pathlib.Path(__file__).parents[1]))  # `benchmarks` is no part of an installation

import benchmarks.images
import benchmarks.online
import benchmarks.policies
import benchmarks.sinusoid
from benchmarks import circumstances
from maml_tf.errors import UserError

FLAGS = flags.FLAGS
flags.DEFINE_integer("rounds", 5, "rounds in which every contender is timed once", lower_bound=1)
flags.DEFINE_float("seconds", 3.0, "time of one contender in one round", lower_bound=0.01)
flags.DEFINE_integer("main_iterations", 70000, "iterations of the run through scripts/main.py; 0: leave it out")
flags.DEFINE_list("contenders", None, "images: only these of xla, graph, recompute, chunk, map_fn, loop, vmap")
for _size in (SIZES := ("tasks", "filters", "queries", "num_updates")):
  flags.DEFINE_integer(_size, None, "images: other than published, for a quick look", lower_bound=1)
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
  results = benchmarks.images.run_named(name, sizes(), FLAGS.rounds, FLAGS.seconds, contenders)
  return {**results, "torch": torch.__version__, **timed()}


def memory():
  contenders = benchmarks.images.contenders_of("memory", FLAGS.contenders)
  import_tensorflow()
  return {"by_inner_steps": benchmarks.images.run_memory(sizes(), FLAGS.rounds, FLAGS.seconds, contenders), **timed()}


def evaluation():
  import_tensorflow()
  return {"evaluation": benchmarks.images.run_evaluation(sizes(), FLAGS.rounds, FLAGS.seconds), **timed()}


def rl():
  benchmarks.policies.check_installed()
  import_tensorflow()
  print("\n".join(benchmarks.policies.report(results := benchmarks.policies.run(FLAGS.rounds, FLAGS.horizon))))
  return {**results, **circumstances.describe(rounds=FLAGS.rounds)}


def sizes():
  return {size: FLAGS[size].value for size in SIZES}


def timed():
  return circumstances.describe(rounds=FLAGS.rounds, seconds=FLAGS.seconds)


BENCHMARKS = {name: functools.partial(images, name) for name in ("omniglot", "miniimagenet")}
BENCHMARKS |= {"sinusoid": sinusoid, "memory": memory, "evaluation": evaluation, "rl": rl}
BENCHMARKS["online"] = lambda: benchmarks.online.measured(import_tensorflow, FLAGS.tasks or benchmarks.online.TASKS)


def measure(arguments):
  if len(arguments) != 1 or arguments[0] not in BENCHMARKS:
    raise UserError(f"expected one argument of {', '.join(BENCHMARKS)}, got {' '.join(arguments) or 'none'}")
  results = {"format_version": 1, "benchmark": arguments[0], **BENCHMARKS[arguments[0]]()}
  if FLAGS.output:
    from maml_tf.training.checkpoints import write_atomically

    write_atomically(FLAGS.output, json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
  sys.exit(main_of(measure, __doc__))
