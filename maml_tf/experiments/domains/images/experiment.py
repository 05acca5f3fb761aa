"""Few-shot image classification on Omniglot, miniImageNet and image folders (Finn et al. 2017, section 5.2)."""

import dataclasses

import tensorflow as tf

from maml_tf import evaluation, export, models, randomness, tasks, tracing
from maml_tf.algorithms.pretraining import STEP_SIZES_OF_CLASSES, search_step_size
from maml_tf.datasets.records import DATASETS
from maml_tf.errors import UserError
from maml_tf.experiments import figures, report
from maml_tf.experiments.algorithms import make_algorithm, meta_optimizer
from maml_tf.experiments.domains.images import FIFTEEN, RECIPES, plots, published
from maml_tf.experiments.domains.images.training_tasks import TrainingTasks
from maml_tf.experiments.domains.images.unlabelled import WITHOUT_LABELS
from maml_tf.experiments.experiment import Experiment
from maml_tf.training.learner import SupervisedLearner

FC_HIDDEN = (256, 128, 64, 64)  # Finn et al. 2017, appendix A.1: Omniglot without convolutions
EVALUATION_QUERIES = (1, FIFTEEN)
TABLE_STEPS = (0, 1, 3, 5, 10)
CLASSIFIER_BATCH = 64  # Ravi and Larochelle 2017: images of a batch, of a classifier of all training classes
UNTUNED_LR = 0.05  # of a baseline in training, where only its validation curve depends on it
SEARCH_TASKS = 100  # validation tasks for each step size


class ImageExperiment(Experiment):
  """Everything about a run that is particular to images. Data is loaded part by part, on first use.

  Args:
    config: `Config`.
  """

  def __init__(self, config):
    super().__init__(config)
    self.data_set, self.recipe = DATASETS[config.datasource], RECIPES[config.datasource]
    self.model = make_model(config)
    self._unlabelled = TrainingTasks(config, self.data_set) if config.tasks in WITHOUT_LABELS else None
    self._labelled = self._unlabelled is None or self._unlabelled.labelled
    self._evaluated = "test" if config.test_set else "val"
    self._banks, self._tuned_lr = {}, None

  def load_data(self):
    """Loads the splits that are needed, so that data that does not fit the config is refused before anything runs."""
    if self._trains:
      self._training_tasks()
      self._validation_tasks()
    self._possible_queries()

  def data_summary(self):
    lines = [f"{self.config.datasource} {part}: {bank.summary()}" for part, bank in self._banks.items()]
    if not self._labelled:
      lines.append("there are no labels: validation and evaluation are on clusters of the training images")
    return lines + ([self._unlabelled.summary()] if self._trains and self._unlabelled else [])

  def data_fingerprint(self):
    if self._unlabelled is not None:
      return self._unlabelled.fingerprint()
    return self.data_set.fingerprint(self.config.data_dir)

  def learner(self, initial_weights=None, inner_lr=None):
    """The learner that the config names; `inner_lr` overrides the step size. It has tasks only where it trains."""
    config = self.config
    return SupervisedLearner(
      self.algorithm(
        (UNTUNED_LR if config.training_lr is None else config.training_lr) if inner_lr is None else inner_lr
      ),
      train_tasks=self._training_tasks() if self._trains else None,
      eval_tasks=self._validation_tasks() if config.train else None,
      meta_batch_size=config.meta_batch_size,
      optimizer=meta_optimizer(config, self.recipe.clip),
      eval_updates=config.eval_updates,
      initial_weights=initial_weights,
      metadata={
        "config": config.portable(),
        "pictures": export.picture_metadata(inverted=self.data_set.invert),
      },
      task_chunk=config.task_chunk or None,
      stored_dtype=tf.float16 if config.export_half else None,
      export_bn_mode=config.export_bn_mode,
    )

  def algorithm(self, inner_lr):
    """The config's, with that step size."""
    return self._algorithm(self.model, inner_lr, self.config.training_ways)

  def _algorithm(self, model, inner_lr, ways):
    facts = {"ways": lambda: ways, "training_classes": lambda: len(self._bank("train").sizes)}
    return make_algorithm(self.config, model, "crossentropy", inner_lr, facts)

  def example_specs(self):
    x, y = tf.TensorSpec([None, *self.data_set.shape(self.config.image_size)]), tf.TensorSpec([None], tf.int32)
    return tasks.TaskBatch(x, y, x, y)

  def on_validation(self):
    """A callback that draws an episode of validation classes into TensorBoard, at every fifth validation and the last.

    With its labels, and what is predicted before and after adapting to it.
    """

    def draw(iteration, state, board):
      if iteration % (5 * self.config.validate_every) == 0 or iteration == self.config.iterations:
        board.figure(iteration, "episode", plots.episode(self.episode(state["weights"], "val")))

    return draw

  def evaluate(self, weights):
    """Results by query images per class: {"1": {"inner_lr", "accuracy": {"mean": [S + 1], "ci95": [S + 1]}, "loss"}}.

    A number of queries for which the classes have too few images is left out. The tasks of a number begin with those
    of a smaller one: same classes, same support images, more queries.
    """
    config = self.config
    root = randomness.fold(randomness.make_seed(config.seed), "evaluation", self._evaluated)
    results, (rate, tried) = {}, self._step_size(weights)
    self._tuned_lr = rate
    for queries in self._possible_queries():
      episodes = self._episodes(self._evaluated, config.update_batch_size, queries)
      measured = self._measure(weights, rate, episodes, root)
      summaries = {name: evaluation.summarise(measured[name]) for name in ("accuracy", "loss")}
      lists = {name: {n: v.tolist() for n, v in summary.items()} for name, summary in summaries.items()}
      results[str(queries)] = {"inner_lr": rate, **lists, **({"step_sizes_tried": tried} if tried else {})}
    return results

  def inner_lr(self, results):
    """The step size to adapt with: the config's, or the one that `evaluate` tuned."""
    return next(iter(results.values()))["inner_lr"]

  def _step_size(self, weights):
    """(step size, errors of the step sizes tried): the config's, or the best of a grid on validation tasks."""
    config = self.config
    if not config.applies("update_lr"):
      return None, {}
    if config.update_lr is not None:
      return config.update_lr, {}
    shots = config.update_batch_size
    episodes = self._episodes("val", shots, min(FIFTEEN, self._images_left("val", shots)))
    seed = randomness.fold(randomness.make_seed(config.seed), "evaluation", "step size")
    count = min(SEARCH_TASKS, config.eval_tasks)

    @tracing.function
    def accuracies(rate):  # traced once for all step sizes
      algorithm, fitting = self._for_evaluation(weights, rate)
      evaluate = evaluation.of_algorithm(algorithm, fitting, config.eval_updates)
      return evaluation.evaluate_blocks(evaluate, episodes, seed, count, config.task_chunk or None)["accuracy"]

    def errors(rate):
      return 1.0 - accuracies(tf.constant(rate)).numpy()

    return search_step_size(errors, STEP_SIZES_OF_CLASSES)

  def plots(self, weights, results, directory):
    """Writes the run's plots; returns their paths."""
    drawn = {
      "accuracy": plots.accuracy_against_steps(results, self._title(), 1 / self.config.num_classes, self._published()),
      "episode": plots.episode(self.episode(weights, self._evaluated)),
    }
    return figures.save_all(drawn, directory)

  def report(self, results):
    """A row for each number of queries, beside the published accuracy and the step after which the paper reads it."""
    has_steps = self._algorithm_class.has_steps
    last = self.config.eval_updates if has_steps else 0
    rows = []
    for queries in self._wanted_queries():
      label = f"{queries:>2} {'query' if queries == 1 else 'queries'} per class"
      if str(queries) in results:
        accuracy = {n: [100 * v for v in values] for n, values in results[str(queries)]["accuracy"].items()}
        rows.append(report.Row(label, accuracy["mean"], accuracy["ci95"]))
      else:
        rows.append(report.Row(label, words=f"left out: {self._too_few()}"))
    steps = sorted({step for step in (*TABLE_STEPS, last) if step <= last})
    published_rows, notes = self._published_rows()
    title = f"Accuracy in %, {self._title()}, 95 % intervals"
    return report.Report(title, rows + published_rows, steps, notes, has_steps)

  def episode(self, weights, part, shown_queries=5):
    """One task of held-out classes, and what is predicted before and after adapting to it.

    Args:
      weights: the initialisation.
      part: "val" or "test".
      shown_queries: query images per class, at most.

    Returns:
      Dict of NumPy arrays: "support_x" [N * K, H, W, C], "support_y" [N * K], "query_x" [N * Q, H, W, C], "query_y"
      [N * Q], "before" and "after" [N * Q] (predicted classes); and "steps", the number of gradient steps, or None.
    """
    config = self.config
    shots = config.update_batch_size
    episodes = self._episodes(part, shots, min(shown_queries, self._images_left(part, shots)))
    # A seed of the figure, not of the run: figures of different runs show the same classes.
    batch = episodes.sample(randomness.fold(randomness.make_seed(0), "figure"), 1)
    rate = self._tuned_lr or UNTUNED_LR if config.update_lr is None else config.update_lr
    algorithm, weights = self._for_evaluation(weights, rate)
    noise = randomness.make_seed(0)
    before, after = (
      algorithm.adapt_final(weights, batch.support_x, batch.support_y, steps, noise)
      for steps in (0, config.eval_updates)
    )
    arrays = {name: getattr(batch, name)[0].numpy() for name in ("support_x", "support_y", "query_x", "query_y")}
    predicted = {
      name: tf.argmax(algorithm.predict(w, batch.query_x), axis=-1)[0].numpy()
      for name, w in (("before", before), ("after", after))
    }
    return arrays | predicted | {"steps": config.eval_updates if algorithm.has_steps else None}

  @property
  def _trains(self):
    return self.config.train and self.config.description.trains

  def _training_tasks(self):
    """With as many queries as the recipe has; as many as shots where it says nothing (cbfinn/maml, main.py)."""
    if self._unlabelled is not None:
      return self._unlabelled.distribution()
    if getattr(self._algorithm_class, "trains_on_classes", False):
      data_set = self.data_set
      return tasks.Pooled(self._bank("train"), CLASSIFIER_BATCH, rotations=data_set.rotations, invert=data_set.invert)
    config, shots = self.config, self.config.training_shots
    queries = config.train_queries or self.recipe.training_queries or shots
    return self._episodes("train", shots, queries, config.training_ways)

  def _validation_tasks(self):
    """15 queries, for less noise in the choice of the best checkpoint; fewer where there are not so many images."""
    shots = self.config.training_shots
    queries = min(FIFTEEN, self._images_left("val", shots))
    return self._episodes("val", shots, queries, self.config.training_ways)

  def _episodes(self, part, shots, queries, ways=None):
    """Of `ways` classes; None: of those of the evaluation. The published tasks without labels turn no image."""
    bank, data_set = self._bank(part), self.data_set
    rotations = data_set.rotations and self.config.tasks == "given"
    return tasks.Episodes(
      bank, ways or self.config.num_classes, shots, queries, rotations=rotations, invert=data_set.invert
    )

  def _bank(self, part):
    if part not in self._banks:
      config = self.config
      if self._labelled:
        bank = self.data_set.load(config.data_dir, part, config.split, config.image_size)
      else:
        bank = self._unlabelled.bank()
      # One tensor for all distributions of tasks from these classes.
      self._banks[part] = dataclasses.replace(bank, images=tf.constant(bank.images))
    return self._banks[part]

  def _images_left(self, part, shots):
    """Images of the smallest class that remain for queries; at least 1: too few are an error of `Episodes`."""
    return max(1, int(self._bank(part).sizes.min()) - shots)

  def _wanted_queries(self):
    named = self.config.eval_queries
    return [named] if named else sorted({*EVALUATION_QUERIES, self.config.update_batch_size})

  def _possible_queries(self):
    """The numbers of queries to evaluate with.

    Raises:
      UserError: not even the smallest is possible.
    """
    wanted = self._wanted_queries()
    self._episodes(self._evaluated, self.config.update_batch_size, 1)
    left = self._images_left(self._evaluated, self.config.update_batch_size)
    if self.config.eval_queries > left:
      raise UserError(f"--eval_queries={self.config.eval_queries}: expected at most {left}: {self._too_few()}")
    return [queries for queries in wanted if queries <= left]

  def _too_few(self):
    bank = self._bank(self._evaluated)
    smallest = int(bank.sizes.argmin())
    shots = self.config.update_batch_size
    return f"class {bank.names[smallest]} has {bank.sizes[smallest]} images, {shots} of them for support"

  def _measure(self, weights, rate, episodes, seed):
    """{"loss": [S + 1, tasks], "accuracy": likewise} with that step size."""
    config = self.config
    algorithm, weights = self._for_evaluation(weights, rate)
    return evaluation.evaluate_with_progress(
      evaluation.of_algorithm(algorithm, weights, config.eval_updates),
      episodes,
      seed,
      config.eval_tasks,
      config.task_chunk or None,
      label="evaluating",
    )

  def _for_evaluation(self, weights, rate):
    """(algorithm, weights) for tasks of the evaluation's ways: of a network for more, the first outputs."""
    config = self.config
    if config.training_ways == config.num_classes:
      return self.algorithm(rate), weights
    algorithm = self._algorithm(make_model(config, config.num_classes), rate, config.num_classes)
    shapes = {name: value.shape for name, value in algorithm.initial_weights(0).items()}
    return algorithm, {n: v[tuple(slice(length) for length in shapes[n])] for n, v in weights.items()}

  @property
  def _algorithm_class(self):
    return self.config.description.load()

  def _title(self):
    config = self.config
    split = ("test" if config.test_set else "validation") if self._labelled else "clusters'"
    ways = f"{config.num_classes}-way {config.update_batch_size}-shot"
    of_tasks = [] if config.tasks == "given" else [f"{config.tasks} tasks"]
    rate = []
    if config.applies("update_lr"):
      learned = "update_lr" in config.description.shaped_by and not config.applies("train_update_lr")
      tuned = self._tuned_lr if config.update_lr is None else config.update_lr
      known = "alpha tuned" if tuned is None else f"alpha {tuned:g}"
      rate = ["learned step sizes" if learned else known]
    parts = [f"{config.datasource} {ways}", config.method, *of_tasks, *rate, f"{config.eval_tasks} {split} tasks"]
    return ", ".join(parts)

  def _published(self):
    """The `published.Cell` that the run reproduces, where the evaluation goes as far; or None."""
    found = published.cell(self.config, self.config.update_batch_size)
    return found if found is not None and (found.step or 0) <= self.config.eval_updates else None

  def _published_rows(self):
    """(rows, notes) of the published accuracy."""
    cell = self._published()
    if cell is None:
      return [], []
    shots = self.config.update_batch_size
    queries = published.queries(self.config.datasource, shots)
    step = cell.step
    if step is None:  # the method has none, or its last is read
      step = self.config.eval_updates if self._algorithm_class.has_steps else 0
    of_the_paper = cell.step is not None
    row = report.Row("published (table 1)" if of_the_paper else "published", {step: 100 * cell.accuracy})
    if not of_the_paper:
      return [row], [f"The published {100 * cell.accuracy:g} % is that of {cell.source}."]
    note = (
      f"The published {100 * cell.accuracy:g} % is read after {cell.step} steps, on test tasks with "
      f"{report.count_of(queries, 'query')} per class{', to judge by its interval' if queries < shots else ''}."
    )
    return [row], [note]


def make_model(config, ways=None):
  """The paper's network for the data set: convolutional, or 256-128-64-64 ReLU with --noconv.

  Args:
    config: `Config`.
    ways: its outputs; None: as many as a training task has classes.

  Raises:
    UserError: an architecture that cannot be.
  """
  ways = config.training_ways if ways is None else ways
  norm = None if config.norm == "None" else config.norm
  height, width, channels = DATASETS[config.datasource].shape(config.image_size)
  shape = (height, width, channels + (config.context_size if config.applies("context_size") else 0))
  head = config.description.load().needs_head
  if not config.conv:
    return models.MLP(ways, FC_HIDDEN, shape, norm=norm, stddev=config.init_stddev, head=head)
  return models.ConvNet(
    ways,
    config.num_filters,
    shape,
    norm=norm,
    max_pool=config.max_pool,
    global_pool=head and RECIPES[config.datasource].global_pool,
    head=head,
  )
