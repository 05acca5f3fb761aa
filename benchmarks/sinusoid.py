"""Meta-iterations per second on sine waves: sampling, second-order MAML and Adam, here and in PyTorch."""

import dataclasses
import json
import math
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

TASKS, SHOTS, HIDDEN, INNER_LR, META_LR = 25, 10, 40, 0.001, 0.001
MAIN = pathlib.Path(__file__).parents[1] / "scripts" / "main.py"


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
  """The package's own loop: `Trainer._run`, 100 meta-iterations per call, as in a training run."""
  from maml_tf.experiments.config import resolve
  from maml_tf.experiments.domains.sinusoid.experiment import SinusoidExperiment
  from maml_tf.training.position import Interval
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
    state, metrics, _ = trainer._run(state, iteration, 100, Interval(iteration, 100, None))
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
  with tempfile.TemporaryDirectory() as folder:
    command = [sys.executable, str(MAIN), f"--metatrain_iterations={iterations}", f"--logdir={folder}"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    (results,) = pathlib.Path(folder).glob("*/results.json")
    return json.loads(results.read_text(encoding="utf-8"))["training"]["iterations_per_second"]


def run(rounds, seconds, main_iterations):
  """Times the contenders; returns a JSON-able dict.

  Args:
    rounds: in which every contender is timed once.
    seconds: of one contender in one round.
    main_iterations: of the run through scripts/main.py; 0: it is left out.
  """
  contenders = [
    maml_tf_contender(True), maml_tf_contender(False), torch_contender(True), torch_contender(False),
  ]  # fmt: skip
  for _ in range(rounds):
    for contender in contenders:
      contender.time_once(seconds)
  rates = {c.name: c.rate for c in contenders}
  spread = {c.name: [min(c.rates), max(c.rates)] for c in contenders}
  if main_iterations > 0:
    name = "maml_tf, scripts/main.py"
    rates[name] = time_main(main_iterations)
    spread[name] = [rates[name]] * 2
  vmap, loop = rates["PyTorch, torch.func.vmap"], rates["PyTorch, loop over tasks"]
  return {
    "iterations_per_second": rates,
    "min_max": spread,
    "over_vmap": {n: r / vmap for n, r in rates.items()},
    "over_loop": {n: r / loop for n, r in rates.items()},
    "rounds": rounds,
    "seconds": seconds,
    "main_iterations": main_iterations,
  }


def report(results):
  """Lines of text."""
  lines = [
    f"Sinusoid, {TASKS} tasks, {SHOTS} + {SHOTS} points, 1 second-order step, sampling and Adam included;",
    f"median of {results['rounds']} rounds of {results['seconds']:g} s each",
    f"{'':28}{'it/s':>8}{'min - max':>16}{'x vmap':>9}{'x loop':>9}",
  ]
  for name, rate in results["iterations_per_second"].items():
    low, high = results["min_max"][name]
    over = results["over_vmap"][name], results["over_loop"][name]
    lines.append(f"{name:28}{rate:8.0f}{f'{low:.0f} - {high:.0f}':>16}{over[0]:9.1f}{over[1]:9.1f}")
  return lines
