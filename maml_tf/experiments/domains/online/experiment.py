"""Walks through streams of tasks (Finn et al. 2019): what is particular to Rainbow MNIST, and to quadratics."""

import functools

import keras
import numpy as np
import tensorflow as tf

from maml_tf import models, tasks
from maml_tf.datasets import rainbow, rainbow_mnist
from maml_tf.experiments import figures, report
from maml_tf.experiments.domains import online as records
from maml_tf.experiments.domains.online import plots
from maml_tf.experiments.experiment import Experiment
from maml_tf.losses import mse, smoothed_crossentropy
from maml_tf.online import STRATEGIES, OnlineLearner, Stream, UpdateProcedure, WarmStart, metrics, quadratics
from maml_tf.training import optimizers

AMOUNTS = (20, 100, 900)  # examples after which an accuracy is read
LAST_TASKS = 10
REGRET_POINTS = 100


class OnlineExperiment(Experiment):
  """What a walk through any stream needs."""

  stream = None  # of a subclass, made when it is needed

  def learner(self, initial_weights=None, inner_lr=None):
    config = self.config
    return OnlineLearner(
      self.algorithm(config.update_lr if inner_lr is None else inner_lr),
      self.stream,
      STRATEGIES[config.method],
      self.optimizer(),
      meta_updates=config.meta_updates,
      initial_weights=initial_weights,
      metadata={"config": config.portable()},
      **self.sampling(),
    )

  def optimizer(self):
    """Of the meta-updates."""
    raise NotImplementedError

  def sampling(self):
    """The arguments of `OnlineLearner` that say what a meta-update is computed on."""
    raise NotImplementedError

  def base(self, loss, inner_lr):
    """The method's class on that loss; without an inner loop where the method has none in its meta-update."""
    config = self.config
    inner = {"num_updates": 0}
    if STRATEGIES[config.method].adapts_in_training:
      inner = dict(num_updates=config.num_updates, first_order=config.stop_grad)
    rate = inner_lr if config.applies("update_lr") else 0.0
    return config.description.load()(self.model, loss=loss, inner_lr=rate, **inner)

  @property
  def grad_steps(self):
    return self.config.grad_steps if self.config.applies("grad_steps") else 0

  def load_data(self):
    self.stream  # noqa: B018 (made now)

  def evaluate_state(self, state):
    """{"tasks": tasks of which all data has arrived, "amounts", "loss": [tasks][batches], ...}."""
    stream = self.stream
    warm = stream.warm_start.tasks
    arrived = slice(warm, warm + stream.rounds_of_tasks(int(state["round"])) // stream.sequence.num_batches)
    judged = stream.judged
    found = {n: state[n].numpy()[arrived, judged].astype(np.float64) for n in ("loss", "accuracy") if n in state}
    return {
      "tasks": len(found["loss"]),
      "first_task": warm,
      "of_tasks": stream.sequence.num_tasks - warm,
      "amounts": self.amounts.tolist(),
      **{name: np.round(values, 6).tolist() for name, values in found.items()},
      **self.measured(found, arrived),
    }

  @property
  def amounts(self):
    """Examples of a task with which it is judged: int64 [judgments]."""
    return self.stream.sequence.amounts[self.stream.judged]

  def measured(self, found, arrived):
    """What is made of the losses and accuracies, NumPy [tasks, judgments] each, of these tasks: JSON-able."""
    raise NotImplementedError


class RainbowExperiment(OnlineExperiment):
  """Everything about a run that is particular to Rainbow MNIST.

  Args:
    config: `Config`.
  """

  def __init__(self, config):
    super().__init__(config)
    self.model = models.StridedConvNet(rainbow.CLASSES, config.num_filters)

  @functools.cached_property
  def stream(self):
    config = self.config
    images, labels, names = rainbow_mnist.load(config.data_dir, rainbow.parse_colors(config.colors))
    labels = np.broadcast_to(labels, [len(images), len(labels)])
    split = rainbow.CLASSES * rainbow.PER_CLASS
    # Sorted by name, as the seed's order has to hang on no folder's.
    order = np.argsort(names)
    sequence = tasks.TaskSequence(
      images[order, :split], labels[:, :split], images[order, split:], labels[:, split:], rainbow.BATCH,
      [names[k] for k in order],
    )  # fmt: skip
    seed = config.seed if config.order_seed is None else config.order_seed
    rounds = records.warm_rounds(config.warm_start_tasks, config.warm_start_updates, config.meta_updates)
    warm_start = WarmStart(config.warm_start_tasks, config.warm_start_batches, rounds)
    return Stream(sequence.shuffled(seed, config.num_tasks), warm_start, config.judge_growth)

  def algorithm(self, inner_lr):
    config = self.config
    loss = smoothed_crossentropy(config.label_smoothing) if config.label_smoothing else "crossentropy"
    algorithm = self.base(loss, inner_lr)
    if config.applies("checkpoint_inner_steps"):
      algorithm.checkpoint_inner_steps = config.checkpoint_inner_steps
    return UpdateProcedure(algorithm, self.grad_steps, config.support_reduction, config.inner_batch)

  def optimizer(self):
    return optimizers.Adam(self.config.meta_lr)

  def sampling(self):
    config = self.config
    return dict(
      meta_batch_size=config.meta_batch_size, inner_batch=config.inner_batch,
      current_in_buffer=config.current_in_buffer, task_chunk=config.task_chunk or None,
    )  # fmt: skip

  def measured(self, found, arrived):
    amounts, accuracy = self.amounts, found["accuracy"]
    examples, reached = metrics.learning_efficiency(accuracy, amounts, self.config.threshold)
    return {
      "names": list(self.stream.sequence.names[arrived]),
      "threshold": self.config.threshold,
      "examples_to_threshold": examples.tolist(),
      "reached": reached.tolist(),
      "accuracy_after": {str(n): np.round(metrics.after(accuracy, amounts, n), 6).tolist() for n in AMOUNTS},
      "proficiency": np.round(metrics.proficiency(found["loss"]), 6).tolist(),
    }

  def on_validation(self):
    """A callback that writes what is known of every task that has ended since, by the number of the task."""

    def write(iteration, state, board):
      results = self.evaluate_state(state)
      before = max(0, results["tasks"] - self.config.validate_every // rainbow.NUM_BATCHES - 1)
      for index in range(before, results["tasks"]):
        after = {f"accuracy_after_{n}": values[index] for n, values in results["accuracy_after"].items()}
        values = after | {n: results[n][index] for n in ("examples_to_threshold", "proficiency")}
        board.scalars(self.config.warm_start_tasks + index, values, "task")

    return write

  def plots(self, weights, results, directory):
    del weights
    return figures.save_all(plots.of_rainbow({self.config.method: [results]}), directory) if results["tasks"] else []

  def report(self, results):
    """Medians and means over the last tasks."""
    config, tasks_there = self.config, results["tasks"]
    title = f"Rainbow MNIST, {config.description.title}: {tasks_there} of {results['of_tasks']} tasks have arrived"
    if not tasks_there:
      return report.Report(title, [], [])
    last = slice(-LAST_TASKS, None)
    count, reached = len(results["reached"][last]), sum(results["reached"][last])
    said = f"median {np.median(results['examples_to_threshold'][last]):.0f} ({reached} of {count} tasks reach it; "
    rows = [report.Row(f"images to {config.threshold:.0%}", words=said + "the others count as 900)")]
    for amount, values in results["accuracy_after"].items():
      rows.append(report.Row(f"accuracy, {amount} images", words=f"{100 * np.mean(values[last]):.1f} %"))
    rows.append(report.Row("loss in the end", words=f"{np.mean(results['proficiency'][last]):.3f}"))
    return report.Report(f"{title}; the last {count}, on 100 held-out images each", rows, [])


class QuadraticsExperiment(OnlineExperiment):
  """Everything about a run that is particular to the strongly convex example.

  Args:
    config: `Config`.
  """

  def __init__(self, config):
    super().__init__(config)
    self.model = linear_model()

  @functools.cached_property
  def tasks(self):
    return quadratics.draw(self.config.num_tasks, self.config.seed)

  @functools.cached_property
  def stream(self):
    return Stream(sequence_of(self.tasks))

  def algorithm(self, inner_lr):
    return UpdateProcedure(self.base(half_squared_error, inner_lr), self.grad_steps)

  def optimizer(self):
    return optimizers.SGD(self.config.meta_lr)

  def sampling(self):
    return dict(meta_batch_size=None, inner_batch=quadratics.DIMENSIONS, pays_first=True)

  def measured(self, found, arrived):
    if not len(found["loss"]):
      return {"rounds": [], "regret": []}
    seen = quadratics.Quadratics(*(values[arrived] for values in self.tasks))
    steps = self.config.update_lr if self.config.applies("update_lr") else quadratics.ALPHA
    regret = metrics.regret(found["loss"][:, 0], seen.stepped(steps).smallest_sums())
    rounds = np.unique(np.geomspace(1, len(regret), REGRET_POINTS).astype(int).tolist() + _marks(len(regret)))
    return {"rounds": rounds.tolist(), "regret": np.round(regret[rounds - 1], 6).tolist()}

  def plots(self, weights, results, directory):
    del weights
    if not results["tasks"]:
      return []
    return figures.save_all({"regret": plots.regret({self.config.method: [results]})}, directory)

  def report(self, results):
    """The regret after 10, 100, ... rounds."""
    title = f"Cumulative regret, quadratics, {self.config.description.title}, against the best initialisation"
    regret = dict(zip(results["rounds"], results["regret"], strict=True))
    rows = [report.Row(f"after {n:,} tasks", words=f"{regret[n]:.2f}") for n in _marks(results["tasks"])]
    return report.Report(title, rows, [])


def _marks(rounds):
  """The numbers of rounds that a table has, and the last one."""
  return sorted({n for n in (10, 100, 1000, 3000, rounds) if 0 < n <= rounds})


def half_squared_error(labels, outputs):
  """(y - x w)^2 / 2: with the examples of a quadratic, its value is f(w)."""
  return mse(labels, outputs) / 2


def linear_model():
  """w, from zero: what a quadratic is a function of."""
  layer = keras.layers.Dense(1, use_bias=False, kernel_initializer="zeros", name="w")
  return models.from_keras(keras.Sequential([keras.Input([quadratics.DIMENSIONS]), layer]))


def sequence_of(drawn, dtype=tf.float32):
  """The `TaskSequence` of `Quadratics`: each arrives at once, and is judged by what it is."""
  x, y = (values.astype(tf.as_dtype(dtype).as_numpy_dtype) for values in drawn.examples())
  return tasks.TaskSequence(x, y, x, y, quadratics.DIMENSIONS)
