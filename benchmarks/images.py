"""One second-order meta-gradient on images, timed side by side: this package, `tf.map_fn` over tasks, and PyTorch.

Each contender lives in a process of its own, so that its peak memory is its own and no
library's threads are in another's way; the processes take turns.
"""

import contextlib
import dataclasses
import math
import multiprocessing
import pathlib
import statistics
import time

import numpy as np

from maml_tf.errors import UserError

OURS, GRAPH, MAP_FN = "maml_tf, XLA", "maml_tf, graph", "tf.map_fn over tasks"
RECOMPUTED, CHUNKED = "maml_tf, steps recomputed", "maml_tf, one task at a time"
AT_ONCE, AS_FITS = "evaluation, 20 tasks at once", "evaluation, as many at a time as fit"
LOOP, VMAP = "PyTorch, loop over tasks", "PyTorch, torch.func.vmap"
CONTENDERS = {
  "xla": OURS, "graph": GRAPH, "recompute": RECOMPUTED, "chunk": CHUNKED, "map_fn": MAP_FN, "loop": LOOP, "vmap": VMAP,
}  # fmt: skip
# XLA compiles the unrolled convolutions of large images for minutes, and then runs them more slowly.
DEFAULT_CONTENDERS = {
  "omniglot": ("xla", "graph", "map_fn", "loop", "vmap"),
  "miniimagenet": ("graph", "recompute", "chunk", "map_fn", "loop", "vmap"),
  "memory": ("graph", "recompute"),
}
SGEMM = "sgemm"
SGEMM_SIZE = 2048
NUM_BLOCKS = 4
KERNEL = 9  # 3 x 3


@dataclasses.dataclass(frozen=True)
class Setting:
  """What is computed: a batch of tasks and the paper's network for it."""

  tasks: int
  ways: int
  shots: int
  queries: int
  size: tuple
  filters: int
  num_updates: int
  inner_lr: float
  max_pool: bool


# Finn et al. 2017, section 5.2 and appendix A.1; the commands in cbfinn/maml, main.py.
OMNIGLOT = Setting(32, 5, 1, 1, (28, 28, 1), 64, 1, 0.4, False)
# The step size is a tenth of the published one: on random images that one diverges, and then rounding decides the loss.
MINIIMAGENET = Setting(4, 5, 1, 15, (84, 84, 3), 32, 5, 0.001, True)
EVALUATED = dataclasses.replace(MINIIMAGENET, num_updates=10)
SETTINGS = {"omniglot": OMNIGLOT, "miniimagenet": MINIIMAGENET, "memory": MINIIMAGENET, "evaluation": EVALUATED}
INNER_STEPS = (1, 5, 10)  # of the measurement of memory


def setting_of(name, **sizes):
  """The published `Setting` of this name, with sizes other than published where they are not None."""
  return dataclasses.replace(SETTINGS[name], **{size: n for size, n in sizes.items() if n is not None})


def contenders_of(name, chosen=None):
  """Full names of the contenders; `chosen`: short ones, None: those that this benchmark usually has.

  Raises:
    UserError: one is unknown.
  """
  chosen = DEFAULT_CONTENDERS[name] if chosen is None else chosen
  if not chosen or not set(chosen) <= set(CONTENDERS):
    raise UserError(f"contenders={','.join(chosen) or 'none'}: expected some of {', '.join(CONTENDERS)}")
  return [CONTENDERS[short] for short in chosen]


def count_flops(setting):
  """Floating-point operations of the convolutions and the classifier in one second-order step, all tasks.

  A layer y = x W is one product forward and two backward: x' dy for W, dy W' for x (not in the first layer, whose x is
  data). A query image needs just these. A support image needs them at each inner step, and then the products of the
  way back through that step: two for x' dy (adjoints of x and of dy), two for dy W' (adjoints of dy and of W), and the
  two of the forward pass. Together 9 and 3; in the first layer, where all that concerns x drops out, 4 and 2.
  """
  height, width, channels = setting.size
  support, query = setting.ways * setting.shots * setting.num_updates, setting.ways * setting.queries
  total = 0
  for block in range(NUM_BLOCKS):
    pixels, (height, width) = _pixels_and_next_size(height, width, setting.max_pool)
    product = 2 * pixels * KERNEL * channels * setting.filters
    total += product * ((4 * support + 2 * query) if block == 0 else (9 * support + 3 * query))
    channels = setting.filters
  features = channels * (height * width if setting.max_pool else 1)
  total += 2 * features * setting.ways * (9 * support + 3 * query)
  return total * setting.tasks


def _pixels_and_next_size(height, width, max_pool):
  """Output positions of a block's convolution, and the size that the next block sees."""
  if max_pool:
    return height * width, (height // 2, width // 2)
  height, width = -(-height // 2), -(-width // 2)
  return height * width, (height, width)


def random_episodes(setting):
  """(support x, support y, query x, query y): random images, labels in order; NumPy arrays."""
  rng = np.random.default_rng(0)
  arrays = []
  for per_class in (setting.shots, setting.queries):
    arrays.append(rng.random((setting.tasks, setting.ways * per_class, *setting.size), np.float32))
    arrays.append(np.tile(np.repeat(np.arange(setting.ways), per_class), (setting.tasks, 1)))
  return arrays


def initial_weights(setting):
  return {name: value.numpy() for name, value in _model(setting).initial_weights(0).items()}


def _model(setting):
  from maml_tf import models

  return models.ConvNet(setting.ways, setting.filters, setting.size, max_pool=setting.max_pool)


def maml_tf_step(setting, weights, episodes, jit_compile=False, recompute=False, task_chunk=None):
  """A function () -> (loss, gradients): the package's own meta-gradient."""
  import tensorflow as tf

  from maml_tf import MAML, tasks, tracing
  from maml_tf.over_tasks import meta_gradients

  maml = MAML(
    _model(setting),
    "crossentropy",
    setting.inner_lr,
    setting.num_updates,
    loss_reduction="per_class_sum",
    checkpoint_inner_steps=recompute,
  )
  weights = {name: tf.constant(value) for name, value in weights.items()}
  batch = tasks.TaskBatch(*map(tf.constant, episodes))

  @tracing.function(jit_compile=jit_compile)
  def step(weights, batch):
    return meta_gradients(maml.meta_loss, weights, batch, task_chunk)[:2]

  return lambda: _as_numpy(*step(weights, batch))


def evaluation_step(setting, weights, episodes, task_chunk):
  """A function () -> (mean loss after the last step, nothing): an evaluation of one block of tasks."""
  import tensorflow as tf

  from maml_tf import MAML, evaluation, randomness, tasks, tracing

  maml = MAML(_model(setting), "crossentropy", setting.inner_lr)
  batch = tasks.TaskBatch(*map(tf.constant, episodes))

  class Given(tasks.TaskDistribution):
    def sample(self, seed, num_tasks):
      return batch

  @tracing.function
  def block(weights):
    measure = evaluation.of_algorithm(maml, weights, setting.num_updates)
    return evaluation.evaluate_block(measure, Given(), randomness.make_seed(0), 0, task_chunk)["loss"]

  weights = {name: tf.constant(value) for name, value in weights.items()}
  return lambda: (block(weights).numpy()[-1].mean(), {})


def map_fn_step(setting, weights, episodes):
  """The same as the published code organises it: one task's graph, mapped over the tasks."""
  import tensorflow as tf

  from maml_tf import losses, tracing

  model = _model(setting)
  weights = {name: tf.constant(value) for name, value in weights.items()}
  episodes = tuple(map(tf.constant, episodes))

  def loss(weights, x, y):
    return tf.reduce_sum(losses.crossentropy(y, model.apply(weights, x))) / setting.shots

  def task_loss(task):
    support_x, support_y, query_x, query_y = task
    adapted = weights
    for _ in range(setting.num_updates):
      changed = {name: adapted[name] for name in model.adapted_names}
      with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(changed)
        support_loss = loss(adapted | changed, support_x, support_y)
      gradients = tape.gradient(support_loss, changed)
      adapted = adapted | {name: changed[name] - setting.inner_lr * gradients[name] for name in changed}
    return loss(adapted, query_x, query_y)

  @tracing.function
  def meta_gradients():
    with tf.GradientTape(watch_accessed_variables=False) as tape:
      tape.watch(weights)
      task_losses = tf.map_fn(task_loss, episodes, fn_output_signature=tf.float32, parallel_iterations=setting.tasks)
      meta_loss = tf.reduce_mean(task_losses)
    return meta_loss, tape.gradient(meta_loss, weights)

  return lambda: _as_numpy(*meta_gradients())


def _as_numpy(loss, gradients):
  return loss.numpy(), {name: gradient.numpy() for name, gradient in gradients.items()}


def torch_step(setting, weights, episodes, vectorised):
  """The same in PyTorch, by `torch.func.vmap` or by a loop over tasks."""
  import torch

  from benchmarks.torch_maml import TorchMaml, from_torch, images_to_torch, to_torch

  maml = TorchMaml(setting.max_pool, setting.inner_lr, setting.num_updates, setting.shots)
  compute = maml.gradients_by_vmap if vectorised else maml.gradients_by_loop
  weights = to_torch(weights)
  batch = [images_to_torch(array) if array.ndim == 5 else torch.tensor(array) for array in episodes]

  def step():
    loss, gradients = compute(weights, batch)
    return loss.numpy(), from_torch(gradients)

  return step


def sgemm_step(setting, weights, episodes):
  """A product of two square matrices, for the rate of a large one; it has no loss and no gradients."""
  import tensorflow as tf

  del setting, weights, episodes
  a = tf.random.stateless_normal([SGEMM_SIZE, SGEMM_SIZE], [0, 0])
  product = tf.function(lambda: tf.matmul(a, a))

  def step():
    product().numpy()
    return np.float32(0), {}

  return step


def make_step(name, *arguments):
  if name in (AT_ONCE, AS_FITS):
    return evaluation_step(*arguments, arguments[0].tasks if name == AT_ONCE else None)
  if name in (OURS, GRAPH, RECOMPUTED, CHUNKED):
    chunk = 1 if name == CHUNKED else None
    return maml_tf_step(*arguments, jit_compile=name == OURS, recompute=name == RECOMPUTED, task_chunk=chunk)
  if name in (LOOP, VMAP):
    return torch_step(*arguments, vectorised=name == VMAP)
  return {MAP_FN: map_fn_step, SGEMM: sgemm_step}[name](*arguments)


def serve(connection, name, setting, weights, episodes):
  """A contender's process: prepares, reports its first result, then runs for as long as it is asked to each time.

  Memory is what Linux calls the high-water mark of the resident set, less the resident set once the library is
  imported and has the data, before anything was traced, compiled or run.
  """
  import_library(name)
  baseline = resident("VmRSS")
  began = time.perf_counter()
  step = make_step(name, setting, weights, episodes)
  loss, gradients = step()
  norm = math.sqrt(sum(float(np.sum(np.square(g, dtype=np.float64))) for g in gradients.values()))
  connection.send({"loss": float(loss), "norm": norm, "first_call_s": time.perf_counter() - began})
  with contextlib.suppress(EOFError):  # the benchmark gave up
    while (seconds := connection.recv()) is not None:
      connection.send(time_steps(step, seconds))
    connection.send(resident("VmHWM") - baseline)


def import_library(name):
  if name in (LOOP, VMAP):
    import torch

    import benchmarks.torch_maml  # noqa: F401

    torch.ones(8, 8) @ torch.ones(8, 8)
  else:
    from maml_tf.startup import import_tensorflow

    import_tensorflow()
    import tensorflow as tf

    import maml_tf  # noqa: F401

    tf.matmul(tf.ones([8, 8]), tf.ones([8, 8]))


def time_steps(step, seconds):
  """Milliseconds of each step, one at least, for that long."""
  times, began = [], time.perf_counter()
  while not times or time.perf_counter() - began < seconds:
    start = time.perf_counter()
    step()
    times.append(1000 * (time.perf_counter() - start))
  return times


def resident(which):
  """Bytes: VmRSS, the resident set now, or VmHWM, its peak; None where there is no /proc."""
  try:
    lines = pathlib.Path("/proc/self/status").read_text(encoding="ascii").splitlines()
  except OSError:
    return math.nan
  return next(1024 * int(line.split()[1]) for line in lines if line.startswith(which))


class Worker:
  """A contender in its own process."""

  def __init__(self, name, *arguments):
    context = multiprocessing.get_context("spawn")
    self._connection, other = context.Pipe()
    self._process = context.Process(target=serve, args=(other, name, *arguments), daemon=True)
    self._process.start()
    other.close()
    self.name, self.times = name, []
    self.first = self._receive()

  def run(self, seconds):
    self._connection.send(seconds)
    self.times += self._receive()

  def close(self):
    """Ends the process; returns its peak memory in bytes."""
    self._connection.send(None)
    memory = self._receive()
    self._process.join()
    return memory

  def _receive(self):
    try:
      return self._connection.recv()
    except EOFError:
      self._process.join()
      raise UserError(f"{self.name}: its process ended with status {self._process.exitcode}") from None

  @property
  def milliseconds(self):
    return statistics.median(self.times)


def run(setting, rounds, seconds, contenders):
  """Times the contenders of these names; returns a JSON-able dict.

  Raises:
    UserError: the contenders do not compute the same.
  """
  arguments = setting, initial_weights(setting), random_episodes(setting)
  sgemm, *workers = [_started(name, *arguments) for name in (SGEMM, *contenders)]
  check_same([worker.first for worker in workers], contenders)
  for _ in range(rounds):
    for worker in (sgemm, *workers):
      worker.run(min(seconds, 1.0) if worker is sgemm else seconds)
  sgemm.close()
  memory = {worker.name: worker.close() for worker in workers}
  return summarise(setting, sgemm.milliseconds, workers, memory)


def run_named(name, sizes, rounds, seconds, contenders):
  """`run` of a published setting, with other sizes as of `setting_of`; printed too."""
  results = run(setting_of(name, **sizes), rounds, seconds, contenders)
  print("\n".join(report(name, results)), flush=True)
  return results


def run_memory(sizes, rounds, seconds, contenders):
  """What inner steps cost in memory, printed as it is measured: dict of their number -> as `run`.

  Args:
    sizes: dict of other sizes than published, as of `setting_of`.
    rounds: as of `run`.
    seconds: as of `run`.
    contenders: of the meta-gradient.
  """
  results = {}
  for steps in INNER_STEPS if sizes["num_updates"] is None else (sizes["num_updates"],):
    results[steps] = run(setting_of("memory", **sizes | {"num_updates": steps}), rounds, seconds, contenders)
    print("\n".join(report("miniimagenet", results[steps])), flush=True)
  return results


def run_evaluation(sizes, rounds, seconds):
  """Times the evaluation of a block of tasks, all at once and as many at a time as fit, and prints it: as `run`.

  Args:
    sizes: dict of other sizes than published, as of `setting_of`; the tasks are those of a block.
    rounds: as of `run`.
    seconds: as of `run`.
  """
  from maml_tf.evaluation import BLOCK

  setting = setting_of("evaluation", **sizes | {"tasks": BLOCK})
  arguments = setting, initial_weights(setting), random_episodes(setting)
  workers = [_started(name, *arguments) for name in (AT_ONCE, AS_FITS)]
  check_same([worker.first for worker in workers], [worker.name for worker in workers])
  for _ in range(rounds):
    for worker in workers:
      worker.run(seconds)
  results = {
    "setting": dataclasses.asdict(setting),
    "milliseconds_of_a_block": {worker.name: worker.milliseconds for worker in workers},
    "min_max": {worker.name: [min(worker.times), max(worker.times)] for worker in workers},
    "peak_memory_bytes": {worker.name: worker.close() for worker in workers},
  }
  print("\n".join(report_evaluation(results)), flush=True)
  return results


def report_evaluation(results):
  """Lines of text."""
  lines = [f"evaluation of {results['setting']['tasks']} tasks, {results['setting']['num_updates']} steps; medians"]
  for name, milliseconds in results["milliseconds_of_a_block"].items():
    low, high = results["min_max"][name]
    memory = results["peak_memory_bytes"][name] / 1e9
    lines.append(f"{name:40}{milliseconds:9.0f} ms{f'{low:.0f} - {high:.0f}':>18}{memory:9.2f} GB")
  return lines


def _started(name, *arguments):
  worker = Worker(name, *arguments)
  print(f"{name}: first call {worker.first['first_call_s']:.1f} s", flush=True)
  return worker


def check_same(firsts, names):
  """The first step's loss and gradient norm must be those of the first contender, or it is not the same work."""
  for first, name in zip(firsts, names, strict=True):
    for key, tolerance in (("loss", 1e-3), ("norm", 1e-2)):
      if not math.isclose(first[key], firsts[0][key], rel_tol=tolerance):
        raise UserError(f"{name} has another {key} than {names[0]}: {first[key]:.6g}, not {firsts[0][key]:.6g}")


def summarise(setting, sgemm_milliseconds, workers, memory):
  rate = 2 * SGEMM_SIZE**3 / sgemm_milliseconds / 1e6
  flops = count_flops(setting)
  floor = flops / rate / 1e6
  times = {worker.name: worker.milliseconds for worker in workers}
  baselines = {"over_loop": LOOP, "over_vmap": VMAP, "over_map_fn": MAP_FN}
  return {
    "setting": dataclasses.asdict(setting),
    "milliseconds": times,
    "min_max": {worker.name: [min(worker.times), max(worker.times)] for worker in workers},
    "first_call_seconds": {worker.name: worker.first["first_call_s"] for worker in workers},
    **{key: {n: times[other] / t for n, t in times.items()} for key, other in baselines.items() if other in times},
    "times_floor": {n: t / floor for n, t in times.items()},
    "floor": {"gflop": flops / 1e9, "sgemm_gflop_per_second": rate, "milliseconds": floor},
    "peak_memory_bytes": memory,
    "loss": workers[0].first["loss"],
  }


def report(name, results):
  """Lines of text."""
  setting, floor = results["setting"], results["floor"]
  lines = [
    f"{name}: {setting['tasks']} tasks, {setting['ways']}-way {setting['shots']}-shot, "
    f"{setting['queries']} query images per class, {setting['filters']} filters, second order; "
    f"inner steps: {setting['num_updates']}; medians",
    f"floor: {floor['gflop']:.2f} GFLOP at {floor['sgemm_gflop_per_second']:.0f} GFLOP/s, "
    f"{floor['milliseconds']:.1f} ms",
    f"{'':28}{'ms':>9}{'min - max':>18}{'x loop':>8}{'x vmap':>8}{'x map_fn':>9}{'/ floor':>9}{'peak GB':>9}",
  ]
  for contender, milliseconds in results["milliseconds"].items():
    low, high = results["min_max"][contender]
    memory = results["peak_memory_bytes"][contender] / 1e9
    ratios = [results.get(key, {}).get(contender, math.nan) for key in ("over_loop", "over_vmap", "over_map_fn")]
    lines.append(
      f"{contender:28}{milliseconds:9.1f}{f'{low:.0f} - {high:.0f}':>18}{ratios[0]:8.2f}{ratios[1]:8.2f}"
      f"{ratios[2]:9.2f}{results['times_floor'][contender]:9.2f}{memory:9.2f}"
    )
  return lines
