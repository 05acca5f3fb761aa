"""Every benchmark by its name: a function of the command line's options that prints, and returns what is kept."""

import functools

import benchmarks.images
import benchmarks.large
import benchmarks.litert
import benchmarks.online
import benchmarks.policies
import benchmarks.sinusoid
from benchmarks import circumstances
from maml_tf.startup import import_tensorflow

SIZES = ("tasks", "filters", "queries", "num_updates")


def sinusoid(options):
  torch = circumstances.import_torch()
  import_tensorflow()
  results = benchmarks.sinusoid.run(options.rounds, options.seconds, options.main_iterations)
  print("\n".join([*benchmarks.sinusoid.report(results), f"PyTorch {torch.__version__}"]))
  return {**results, "torch": torch.__version__, **circumstances.describe()}


def images(name, options):
  contenders = benchmarks.images.contenders_of(name, options.contenders)
  torch = circumstances.import_torch()
  import_tensorflow()
  results = benchmarks.images.run_named(name, _sizes(options), options.rounds, options.seconds, contenders)
  return {**results, "torch": torch.__version__, **_timed(options)}


def memory(options):
  contenders = benchmarks.images.contenders_of("memory", options.contenders)
  import_tensorflow()
  found = benchmarks.images.run_memory(_sizes(options), options.rounds, options.seconds, contenders)
  return {"by_inner_steps": found, **_timed(options)}


def evaluation(options):
  import_tensorflow()
  found = benchmarks.images.run_evaluation(_sizes(options), options.rounds, options.seconds)
  return {"evaluation": found, **_timed(options)}


def rl(options):
  benchmarks.policies.check_installed()
  import_tensorflow()
  results = benchmarks.policies.run(options.rounds, options.horizon)
  print("\n".join(benchmarks.policies.report(results)))
  return {**results, **circumstances.describe(rounds=options.rounds)}


def online(options):
  import_tensorflow()
  results = benchmarks.online.run(options.tasks or benchmarks.online.TASKS)
  print("\n".join(benchmarks.online.report(results)))
  return {**results, **circumstances.describe()}


def large(options):
  return {**benchmarks.large.run(options), **_timed(options)}


def litert(options):
  return {**benchmarks.litert.run(options.rounds), **_timed(options)}


def _sizes(options):
  return {size: getattr(options, size) for size in SIZES}


def _timed(options):
  return circumstances.describe(rounds=options.rounds, seconds=options.seconds)


BENCHMARKS = {
  "sinusoid": sinusoid,
  "omniglot": functools.partial(images, "omniglot"),
  "miniimagenet": functools.partial(images, "miniimagenet"),
  "memory": memory,
  "evaluation": evaluation,
  "large": large,
  "litert": litert,
  "rl": rl,
  "online": online,
}
