"""Walks through streams of tasks (Finn et al. 2019): what they share, and what is particular to images."""

import functools

import numpy as np

from maml_tf import losses, models, tasks
from maml_tf.datasets import image_sequence, pose, rainbow, rainbow_mnist, sequence_sizes
from maml_tf.experiments import figures, report
from maml_tf.experiments.domains import online as records
from maml_tf.experiments.domains.online import plots
from maml_tf.experiments.experiment import Experiment
from maml_tf.online import STRATEGIES, OnlineLearner, Stream, UpdateProcedure, WarmStart, heads, metrics
from maml_tf.training import optimizers

LAST_TASKS = 10


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
    arrived, judged = slice(warm, warm + stream.tasks_after(int(state["round"]))), stream.judged[0]
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
    return self.stream.sequence.amounts[self.stream.judged[0]]

  def measured(self, found, arrived):
    """What is made of the losses and accuracies, NumPy [tasks, judgments] each, of these tasks: JSON-able."""
    raise NotImplementedError


class ImagesExperiment(OnlineExperiment):
  """A stream of images, of which a subclass has `make_sequence`, `make_model` and `loss`.

  Attributes:
    title: of the stream.
    measure: "accuracy" or "loss": what is compared with the threshold.
    amounts_read: examples after which it is read.
  """

  title = None
  measure = "accuracy"
  amounts_read = ()

  def __init__(self, config):
    super().__init__(config)
    self.model = self.make_model()

  @property
  def seed(self):
    """Of the order of the tasks."""
    return self.config.seed if self.config.order_seed is None else self.config.order_seed

  def make_sequence(self):
    """The `TaskSequence`, in the order of the seed."""
    raise NotImplementedError

  def make_model(self):
    raise NotImplementedError

  @property
  def loss(self):
    """Of the algorithm."""
    raise NotImplementedError

  @functools.cached_property
  def stream(self):
    config = self.config
    rounds = records.warm_rounds(config.warm_start_tasks, config.warm_start_updates, config.meta_updates)
    warm_start = WarmStart(config.warm_start_tasks, config.warm_start_batches, rounds)
    return Stream(self.make_sequence(), warm_start, config.judge_growth)

  def algorithm(self, inner_lr):
    config = self.config
    algorithm = self.base(self.loss, inner_lr)
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
    amounts, values = self.amounts, found[self.measure]
    higher = self.measure == "accuracy"
    examples, reached = metrics.learning_efficiency(values, amounts, self.config.threshold, higher)
    read = [n for n in self.amounts_read if amounts[0] <= n <= amounts[-1]]
    return {
      "names": list(self.stream.sequence.names[arrived]),
      "threshold": self.config.threshold,
      "examples_to_threshold": examples.tolist(),
      "reached": reached.tolist(),
      f"{self.measure}_after": {str(n): np.round(metrics.after(values, amounts, n), 6).tolist() for n in read},
      "proficiency": np.round(metrics.proficiency(found["loss"]), 6).tolist(),
    }

  def on_validation(self):
    """A callback that writes what is known of every task that has ended since, by the number of the task."""

    def write(iteration, state, board):
      results = self.evaluate_state(state)
      batches = self.stream.sequence.num_batches
      before = max(0, results["tasks"] - self.config.validate_every // batches - 1)
      for index in range(before, results["tasks"]):
        after = {f"{self.measure}_after_{n}": v[index] for n, v in results[f"{self.measure}_after"].items()}
        values = after | {n: results[n][index] for n in ("examples_to_threshold", "proficiency")}
        board.scalars(self.config.warm_start_tasks + index, values, "task")

    return write

  def plots(self, weights, results, directory):
    del weights
    if not results["tasks"]:
      return []
    drawn = plots.of_images([plots.Curve(self.config.description.title, self.config.method, [results])])
    return figures.save_all({self.config.datasource: drawn}, directory)

  def report(self, results):
    """Medians and means over the last tasks."""
    config, tasks_there = self.config, results["tasks"]
    title = f"{self.title}, {config.description.title}: {tasks_there} of {results['of_tasks']} tasks have arrived"
    if not tasks_there:
      return report.Report(title, [], [])
    last = slice(-LAST_TASKS, None)
    count, reached = len(results["reached"][last]), sum(results["reached"][last])
    said = f"median {np.median(results['examples_to_threshold'][last]):.0f} ({reached} of {count} tasks reach it; "
    percent = self.measure == "accuracy"
    goal = f"{config.threshold:.0%}" if percent else f"error {config.threshold:g}"
    rows = [report.Row(f"images to {goal}", words=said + f"the others count as {results['amounts'][-1]})")]
    for amount, values in results[f"{self.measure}_after"].items():
      mean = f"{100 * np.mean(values[last]):.1f} %" if percent else f"{np.mean(values[last]):.4f}"
      rows.append(report.Row(f"{self.measure}, {amount} images", words=mean))
    rows.append(report.Row("loss in the end", words=f"{np.mean(results['proficiency'][last]):.3f}"))
    return report.Report(f"{title}; the last {count}, on 100 held-out images each", rows, [])


class RainbowExperiment(ImagesExperiment):
  """Everything about a run that is particular to Rainbow MNIST."""

  title = "Rainbow MNIST"
  amounts_read = (20, 100, 900)

  def make_model(self):
    return models.StridedConvNet(rainbow.CLASSES, self.config.num_filters)

  @property
  def loss(self):
    return _crossentropy(self.config.label_smoothing)

  def make_sequence(self):
    config = self.config
    images, labels, names = rainbow_mnist.load(config.data_dir, rainbow.parse_colors(config.colors))
    # Sorted by name, as the seed's order has to hang on no folder's.
    order = np.argsort(names)
    sequence = _divided(
      images[order], np.broadcast_to(labels, [len(images), len(labels)]), rainbow.CLASSES * rainbow.PER_CLASS,
      rainbow.BATCH, [names[k] for k in order],
    )  # fmt: skip
    return sequence.shuffled(self.seed, config.num_tasks)


class ImageSequenceExperiment(ImagesExperiment):
  """Everything about a run that is particular to classes that arrive five at a time.

  Trained on everything at once, there is a head for each task, since tasks share no classes.
  """

  title = "classes in sequence"
  amounts_read = (50, 250, 2000)

  @property
  def heads(self):
    strategy = STRATEGIES[self.config.method]
    return 1 if strategy.adapts_in_training or strategy.of_current_task else self.config.num_tasks

  def make_model(self):
    shape = (image_sequence.SIZE, image_sequence.SIZE, 3)
    return models.StridedConvNet(self.heads * sequence_sizes.WAYS, self.config.num_filters, shape)

  @property
  def loss(self):
    loss = _crossentropy(self.config.label_smoothing)
    return loss if self.heads == 1 else heads.loss_of_own_head(losses.get(loss), sequence_sizes.WAYS)

  def sampling(self):
    own = functools.partial(heads.own_head, sequence_sizes.WAYS) if self.heads > 1 else None
    return super().sampling() | {"heads": own}

  def make_sequence(self):
    config = self.config
    images, labels, names = image_sequence.load(config.data_dir, config.images, self.seed, config.examples_per_task)
    count = config.num_tasks
    head = np.arange(count)[:, np.newaxis] if self.heads > 1 else np.zeros([count, 1], int)
    labels = (labels + sequence_sizes.WAYS * head).astype(np.int32)
    return _divided(images[:count], labels, config.examples_per_task, sequence_sizes.BATCH, names[:count])


class PoseExperiment(ImagesExperiment):
  """Everything about a run that is particular to poses of objects."""

  title = "poses"
  measure = "loss"
  amounts_read = (20, 60, 400)
  loss = "mse"

  def make_model(self):
    size = self.config.image_size
    return models.FeaturePointNet(4, self.config.num_filters, (size, size, 3))

  def make_sequence(self):
    config = self.config
    examples = config.examples_per_task + records.POSE_HELD_OUT
    drawn = pose.load(config.data_dir, config.renderer, config.image_size, config.num_tasks, examples)
    return _divided(*drawn[:2], config.examples_per_task, records.POSE_BATCH, drawn[2]).shuffled(self.seed)


def _crossentropy(smoothing):
  return losses.smoothed_crossentropy(smoothing) if smoothing else "crossentropy"


def _divided(x, y, arriving, batch_size, names):
  """The `TaskSequence` of examples of which the first ones arrive, and the others are held out."""
  return tasks.TaskSequence(x[:, :arriving], y[:, :arriving], x[:, arriving:], y[:, arriving:], batch_size, names)
