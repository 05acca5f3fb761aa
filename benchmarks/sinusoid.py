"""This package and PyTorch, measured side by side in one run.

  python scripts/benchmark.py sinusoid       # meta-iterations per second: sampling, second-order MAML, Adam
  python scripts/benchmark.py omniglot       # one second-order meta-gradient on random images: milliseconds, memory
  python scripts/benchmark.py miniimagenet
  python scripts/benchmark.py memory         # miniImageNet after 1, 5 and 10 inner steps, with and without recomputing
  python scripts/benchmark.py rl             # environment steps per second beside Gymnasium's vector environments

The contenders take turns, several rounds, and the ratios are those of the medians. No data set is needed. PyTorch comes
with `pip install "maml_tf[bench]"`; `rl` needs no PyTorch.
"""

import dataclasses
import json
import math
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

from absl import flags
from common import TENSORFLOW_VARIABLES, import_tensorflow, main_of

from maml_tf.errors import UserError

FLAGS = flags.FLAGS
flags.DEFINE_integer("rounds", 5, "rounds in which every contender is timed once", lower_bound=1)
flags.DEFINE_float("seconds", 3.0, "time of one contender in one round", lower_bound=0.01)
flags.DEFINE_integer("main_iterations", 70000, "iterations of the run through scripts/main.py; 0: leave it out")
flags.DEFINE_list("contenders", None, "images: only these of xla, graph, recompute, chunk, map_fn, loop, vmap")
for _size in ("tasks", "filters", "queries", "num_updates"):
  flags.DEFINE_integer(_size, None, "images: other than published, for a quick look", lower_bound=1)
flags.DEFINE_integer("horizon", 50, "rl: time steps of the rollouts that are timed", lower_bound=1)
flags.DEFINE_string("output", None, "JSON file to write the results to")

TASKS, SHOTS, HIDDEN, INNER_LR, META_LR = 25, 10, 40, 0.001, 0.001


@dataclasses.dataclass
class Contender:
  """A name and a function that runs some meta-iterations and returns how many."""

  name: str
  run: object
  rates: list = dataclasses.field(default_factory=list)

  def time_once(self, seconds):
    began, done = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
      done += self.run()
    self.rates.append(done / (time.perf_counter() - began))

  @property
  def rate(self):
    return statistics.median(self.rates)


def maml_tf_contender(jit_compile):
  """The package's own loop: `Trainer._advance`, 100 meta-iterations per call, as in a training run."""
  from maml_tf.experiments.config import resolve
  from maml_tf.experiments.domains.sinusoid.experiment import SinusoidExperiment
  from maml_tf.training.run_directory import RunDirectory
  from maml_tf.training.trainer import Schedule, Trainer

  config = resolve("sinusoid", meta_batch_size=TASKS, update_batch_size=SHOTS, update_lr=INNER_LR, meta_lr=META_LR)
  learner = SinusoidExperiment(config).learner()
  trainer = Trainer(
    learner, RunDirectory(tempfile.gettempdir()), 0, Schedule(1), jit_compile=jit_compile, tensorboard=False
  )
  state, iteration = learner.initial_state(0), 0

  def run():
    nonlocal state, iteration
    state, metrics, _ = trainer._advance(state, iteration, 100)
    float(metrics["loss"])  # wait for it
    iteration += 100
    return 100

  run()
  return Contender(f"maml_tf, {'XLA' if jit_compile else 'graph'}", run)


def torch_contender(vectorised):
  """PyTorch: `torch.func.vmap` over tasks, or a Python loop with `functional_call` and `autograd.grad`."""
  import torch
  from torch.func import functional_call, grad, vmap

  torch.manual_seed(0)
  relu, linear = torch.nn.ReLU, torch.nn.Linear
  network = torch.nn.Sequential(linear(1, HIDDEN), relu(), linear(HIDDEN, HIDDEN), relu(), linear(HIDDEN, 1))
  parameters = dict(network.named_parameters())
  optimizer = torch.optim.Adam(network.parameters(), lr=META_LR)

  def sample():
    amplitude = torch.rand(TASKS, 1, 1) * 4.9 + 0.1
    phase = torch.rand(TASKS, 1, 1) * math.pi
    x = torch.rand(TASKS, 2 * SHOTS, 1) * 10 - 5
    return x, amplitude * torch.sin(x - phase)

  def loss(weights, x, y):
    return torch.nn.functional.mse_loss(functional_call(network, weights, (x,)), y)

  def task_loss_loop(x, y):
    gradients = torch.autograd.grad(
      loss(parameters, x[:SHOTS], y[:SHOTS]), list(parameters.values()), create_graph=True
    )
    adapted = {n: w - INNER_LR * g for (n, w), g in zip(parameters.items(), gradients, strict=True)}
    return loss(adapted, x[SHOTS:], y[SHOTS:])

  def task_loss_vmap(weights, x, y):
    gradients = grad(loss)(weights, x[:SHOTS], y[:SHOTS])
    adapted = {n: w - INNER_LR * gradients[n] for n, w in weights.items()}
    return loss(adapted, x[SHOTS:], y[SHOTS:])

  batched = vmap(task_loss_vmap, in_dims=(None, 0, 0))

  def run():
    for _ in range(10):
      x, y = sample()
      if vectorised:
        meta_loss = batched(parameters, x, y).mean()
      else:
        meta_loss = torch.stack([task_loss_loop(x[i], y[i]) for i in range(TASKS)]).mean()
      optimizer.zero_grad()
      meta_loss.backward()
      optimizer.step()
    return 10

  run()
  return Contender("PyTorch, torch.func.vmap" if vectorised else "PyTorch, loop over tasks", run)


def time_main(iterations):
  """Meta-iterations per second of a whole training run through scripts/main.py, with its logs and checkpoints."""
  main = pathlib.Path(__file__).with_name("main.py")
  with tempfile.TemporaryDirectory() as folder:
    command = [sys.executable, str(main), f"--metatrain_iterations={iterations}", f"--logdir={folder}"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    (results,) = pathlib.Path(folder).glob("*/results.json")
    return json.loads(results.read_text(encoding="utf-8"))["training"]["iterations_per_second"]


def import_torch():
  try:
    import torch
  except ImportError as error:
    raise UserError('PyTorch is not installed; pip install ".[bench]" (or torch) brings it') from error
  return torch


def images(name):
  """One meta-gradient on images; the contenders are in benchmark_images.py."""
  import benchmark_images

  torch = import_torch()
  import_tensorflow()
  results = benchmark_images.run(chosen_setting(name), FLAGS.rounds, FLAGS.seconds, chosen_contenders(name))
  print("\n".join(benchmark_images.report(name, results)))
  return {"format_version": 1, "benchmark": name, **results, "torch": torch.__version__, **circumstances()}


def memory():
  """What --checkpoint_inner_steps saves and costs, by inner steps; no PyTorch in it."""
  import benchmark_images

  import_tensorflow()
  setting, contenders = chosen_setting("memory"), chosen_contenders("memory")
  results = {}
  for steps in (1, 5, 10) if FLAGS.num_updates is None else (FLAGS.num_updates,):
    setting = dataclasses.replace(setting, num_updates=steps)
    results[steps] = benchmark_images.run(setting, FLAGS.rounds, FLAGS.seconds, contenders)
    print("\n".join(benchmark_images.report("miniimagenet", results[steps])))
  return {"format_version": 1, "benchmark": "memory", "by_inner_steps": results, **circumstances()}


def circumstances():
  """How images were timed, and on what."""
  from maml_tf.experiments import provenance

  environment = {name: os.environ[name] for name in TENSORFLOW_VARIABLES}
  return {"rounds": FLAGS.rounds, "seconds": FLAGS.seconds, "environment": environment, **provenance.describe()}


def rl():
  """Rollouts beside Gymnasium's, and a meta-iteration; in benchmark_rl.py."""
  import benchmark_rl

  benchmark_rl.check_installed()
  import_tensorflow()
  from maml_tf.experiments import provenance

  results = benchmark_rl.run(FLAGS.rounds, FLAGS.horizon)
  print("\n".join(benchmark_rl.report(results)))
  return {"format_version": 1, "benchmark": "rl", **results, "rounds": FLAGS.rounds, **provenance.describe()}


def chosen_setting(name):
  from benchmark_images import SETTINGS

  sizes = {size: FLAGS[size].value for size in ("tasks", "filters", "queries", "num_updates")}
  return dataclasses.replace(SETTINGS[name], **{size: value for size, value in sizes.items() if value is not None})


def chosen_contenders(name):
  from benchmark_images import CONTENDERS, DEFAULT_CONTENDERS

  chosen = DEFAULT_CONTENDERS[name] if FLAGS.contenders is None else FLAGS.contenders
  if not chosen or not set(chosen) <= set(CONTENDERS):
    raise UserError(f"--contenders: expected some of {', '.join(CONTENDERS)}, got {','.join(chosen) or 'none'}")
  return [CONTENDERS[short] for short in chosen]


def sinusoid():
  torch = import_torch()
  import_tensorflow()
  from maml_tf.experiments import provenance

  contenders = [
    maml_tf_contender(True), maml_tf_contender(False), torch_contender(True), torch_contender(False),
  ]  # fmt: skip
  for _ in range(FLAGS.rounds):
    for contender in contenders:
      contender.time_once(FLAGS.seconds)
  rates = {c.name: c.rate for c in contenders}
  spread = {c.name: [min(c.rates), max(c.rates)] for c in contenders}
  if FLAGS.main_iterations > 0:
    name = "maml_tf, scripts/main.py"
    rates[name] = time_main(FLAGS.main_iterations)
    spread[name] = [rates[name]] * 2
  vmap, loop = rates["PyTorch, torch.func.vmap"], rates["PyTorch, loop over tasks"]
  print(f"Sinusoid, {TASKS} tasks, {SHOTS} + {SHOTS} points, 1 second-order step, sampling and Adam included;")
  print(f"median of {FLAGS.rounds} rounds of {FLAGS.seconds:g} s each; PyTorch {torch.__version__}")
  print(f"{'':28}{'it/s':>8}{'min - max':>16}{'x vmap':>9}{'x loop':>9}")
  for name, rate in rates.items():
    low, high = spread[name]
    print(f"{name:28}{rate:8.0f}{f'{low:.0f} - {high:.0f}':>16}{rate / vmap:9.1f}{rate / loop:9.1f}")
  return {
    "format_version": 1, "benchmark": "sinusoid", "iterations_per_second": rates, "min_max": spread,
    "over_vmap": {n: r / vmap for n, r in rates.items()}, "over_loop": {n: r / loop for n, r in rates.items()},
    "rounds": FLAGS.rounds, "seconds": FLAGS.seconds, "main_iterations": FLAGS.main_iterations,
    "torch": torch.__version__, **provenance.describe(),
  }  # fmt: skip


BENCHMARKS = {
  "sinusoid": sinusoid,
  "omniglot": lambda: images("omniglot"),
  "miniimagenet": lambda: images("miniimagenet"),
  "memory": memory,
  "rl": rl,
}


def measure(arguments):
  if len(arguments) != 1 or arguments[0] not in BENCHMARKS:
    raise UserError(f"expected one argument of {', '.join(BENCHMARKS)}, got {' '.join(arguments) or 'none'}")
  results = BENCHMARKS[arguments[0]]()
  if FLAGS.output:
    from maml_tf.training.checkpoints import write_atomically

    write_atomically(FLAGS.output, json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
  sys.exit(main_of(measure, __doc__))
