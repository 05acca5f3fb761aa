"""Meta-training in one call, in the manner of Keras' `fit`, over the same trainer."""

import contextlib
import csv
import dataclasses
import json
import numbers
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

import keras

from maml_tf import randomness
from maml_tf.algorithms.base import completed
from maml_tf.errors import UserError
from maml_tf.regular_files import read_table
from maml_tf.tasks import TaskDistribution
from maml_tf.training import optimizers
from maml_tf.training.learner import SupervisedLearner
from maml_tf.training.run_directory import RunDirectory
from maml_tf.training.trainer import Schedule, Trainer

# Of an algorithm's attributes, those that two trainings in one folder have to share.
_SHAPING = ("inner_lr", "num_updates", "first_order", "loss_reduction", "bn_mode", "compute_dtype", "regularisation")


@dataclasses.dataclass
class History:
  """What a training went through, from its very beginning where it was resumed.

  Attributes:
    history: dict of metric name -> list of floats, as of Keras' `History`: means of training since the row before
      (`loss`, `query_accuracy/step_1`, ...), and of validation (`val_loss`, `val_accuracy`: after the last step;
      `val_loss/step_0`, ...: after each).
    iteration: the meta-iterations of the rows of training, list of integers.
    val_iteration: those of the validations.
  """

  history: dict[str, list[float]]
  iteration: list[int]
  val_iteration: list[int]


@dataclasses.dataclass
class Settings:
  """How `fit` trains; see there."""

  iterations: int
  meta_batch_size: int
  optimizer: Any
  seed: int
  eval_updates: int
  log_every: int
  validate_every: int
  num_validation_tasks: int
  task_chunk: int | None
  jit_compile: bool
  tensorboard: bool

  def __post_init__(self):
    self.optimizer = _optimizer(self.optimizer)
    for name in ("iterations", "meta_batch_size", "log_every", "validate_every", "num_validation_tasks"):
      value = getattr(self, name)
      if not isinstance(value, numbers.Integral) or value < 1:
        raise ValueError(f"fit({name}={value!r}): expected a whole number, 1 or more")

  def schedule(self):
    every = {name: getattr(self, name) for name in ("iterations", "log_every", "validate_every")}
    return Schedule(**every, checkpoint_every=self.validate_every, validation_tasks=self.num_validation_tasks)

  def shaping_training(self, algorithm):
    """What two trainings that share a folder have to share; JSON-able."""
    own = {name: repr(getattr(algorithm, name)) for name in _SHAPING if hasattr(algorithm, name)}
    own["loss"] = getattr(getattr(algorithm, "loss", None), "__qualname__", None)
    shapes = {name: list(value.shape) for name, value in algorithm.initial_weights(0).items()}
    chosen = {"meta_batch_size": self.meta_batch_size, "optimizer": repr(self.optimizer), "seed": self.seed}
    return {"algorithm": type(algorithm).__name__, **own, **chosen, "weights": shapes}


def fit(
  algorithm: Any,
  tasks: TaskDistribution,
  settings: Settings,
  validation_tasks: TaskDistribution | None = None,
  callbacks: Sequence[Callable | keras.callbacks.Callback] = (),
  directory: str | None = None,
  initial_weights: dict | None = None,
  keep: Callable = lambda weights, history: None,
  model: Any = None,
  say: Callable = print,
) -> History:
  """Trains any algorithm of the contract; `maml_tf.MAML.fit` has its arguments.

  Args:
    algorithm: of `algorithms.base`.
    tasks: `TaskDistribution` to train on.
    settings: `Settings`.
    validation_tasks: `TaskDistribution`; None: fresh tasks of `tasks`.
    callbacks: each a function (iteration, row: dict of name -> float) that returns True to stop, or a Keras callback.
    directory: run directory, where the training can go on later; None: a temporary one.
    initial_weights: to start from; None: drawn from the seed.
    keep: function (weights, history), called however the training ends, once there is something to keep.
    model: what Keras callbacks get as theirs.
    say: function of one line of text.

  Returns:
    `History`.

  Raises:
    UserError: the directory holds another training; the tasks do not fit.
    KeyboardInterrupt: after `keep` was called.
  """
  algorithm = completed(algorithm)
  for name, distribution in (("tasks", tasks), ("validation_tasks", validation_tasks)):
    if distribution is not None:
      _check_tasks(algorithm, name, distribution)
  learner = SupervisedLearner(
    algorithm, tasks, validation_tasks, settings.meta_batch_size, settings.optimizer, settings.eval_updates,
    initial_weights, task_chunk=settings.task_chunk,
  )  # fmt: skip
  with contextlib.ExitStack() as stack:
    folder = directory or stack.enter_context(tempfile.TemporaryDirectory(prefix="maml_tf-"))
    run = stack.enter_context(RunDirectory(folder).locked())
    _same_training(run, settings.shaping_training(algorithm))
    listeners = _Listeners(callbacks, settings, model)
    trainer = Trainer(
      learner, run, settings.seed, settings.schedule(), jit_compile=settings.jit_compile,
      tensorboard=settings.tensorboard, on_row=listeners.row, say=say,
    )  # fmt: skip
    listeners.begin(trainer)
    try:
      state, _ = trainer.train()
    except BaseException:
      if trainer.state is not None:
        keep(trainer.state["weights"], read_history(run))
      raise
    history = read_history(run)
    keep(state["weights"], history)
    listeners.end()
  return history


def read_history(directory: RunDirectory) -> History:
  """The `History` of a run directory."""
  training, validation = _rows(directory.metrics), _rows(directory.validation)
  try:
    columns = _columns(training) | _columns(map(_val_row, validation))
    return History(columns, [int(row["iteration"]) for row in training], [int(row["iteration"]) for row in validation])
  except (KeyError, TypeError, ValueError) as error:
    raise UserError(f"{directory.path}: metrics.csv or validation.csv is damaged ({error}); remove it") from error


class _Listeners:
  """The callbacks of one training."""

  def __init__(self, callbacks, settings, model):
    self._functions, self._keras = [], []
    for callback in callbacks:
      if not isinstance(callback, keras.callbacks.Callback) and not callable(callback):
        raise ValueError(f"fit(callbacks=...): expected functions or Keras callbacks, got {callback!r}")
      (self._keras if isinstance(callback, keras.callbacks.Callback) else self._functions).append(callback)
    self._settings, self._model, self._trainer = settings, model, None

  def begin(self, trainer):
    self._trainer = trainer
    if self._model is not None:
      self._model.stop_training = False
    for callback in self._keras:
      callback.set_params({"epochs": self._settings.iterations, "steps": None, "verbose": 0})
      callback.set_model(self._model)
      callback.on_train_begin({})

  def row(self, iteration, row):
    training = {name: float(value) for name, value in row.items() if not name.startswith("validation/")}
    validation = {n.removeprefix("validation/"): v for n, v in row.items() if n.startswith("validation/")}
    logs = training | _val_row(validation)
    stops = [bool(function(iteration, dict(logs))) for function in self._functions]
    for callback in self._keras:
      if self._model is not None:
        self._model.weights = self._trainer.state["weights"]
      callback.on_epoch_end(iteration - 1, dict(logs))  # Keras counts from 0
    if any(stops) or getattr(self._model, "stop_training", False):
      self._trainer.stop()

  def end(self):
    for callback in self._keras:
      callback.on_train_end({})


def _val_row(row):
  """A row of validation by Keras' names: `val_loss` is the one after the last step."""
  named = {f"val_{name}": float(value) for name, value in row.items() if name != "iteration" and value != ""}
  last = {name.partition("/step_")[0]: value for name, value in named.items()}  # steps are in ascending order
  return last | named


def _rows(path):
  if not path.exists():
    return []
  with open(path, newline="", encoding="utf-8") as file:
    return list(csv.DictReader(file))


def _columns(rows):
  columns = {}
  for row in rows:
    for name, value in row.items():
      if name != "iteration" and value:
        columns.setdefault(name, []).append(float(value))
  return columns


def _optimizer(given):
  if isinstance(given, numbers.Real) and not isinstance(given, bool):
    return optimizers.Adam(float(given))
  if isinstance(given, keras.optimizers.Optimizer) or not hasattr(given, "update"):
    raise ValueError(
      f"fit(optimizer={given!r}): expected a learning rate for Adam, or Adam or SGD of maml_tf.training.optimizers "
      "(whose state is part of a checkpoint)"
    )
  return given


def _check_tasks(algorithm, name, distribution):
  """Refuses, before minutes of tracing, what is no distribution of tasks or does not fit the model."""
  if not callable(getattr(distribution, "sample", None)):
    raise ValueError(
      f"fit({name}={type(distribution).__name__}): expected a distribution of tasks: tasks.from_arrays(x, y, ...), "
      "tasks.from_generator(...), or a subclass of tasks.TaskDistribution"
    )
  try:
    algorithm.check_batch(distribution.sample(randomness.make_seed(0), 1))
  except ValueError as error:
    raise ValueError(f"fit({name}=...): {error}") from error


def _same_training(run, settings):
  """Refuses to go on, in the folder of one training, with another."""
  settings = json.loads(json.dumps(settings))
  with contextlib.suppress(FileNotFoundError):
    try:
      there = read_table(run.config)
    except ValueError as error:
      raise UserError(
        f"{run.config}: damaged ({error}); remove it, if the training in this folder is the one to go on with"
      ) from error
    other = next((name for name in settings if there.get(name) != settings[name]), None)
    if other is not None:
      raise UserError(
        f"fit(directory={run.path}): this folder holds another training, whose {other} is {there.get(other)}, not "
        f"{settings[other]}; name another folder, or train with the same settings to go on with it"
      )
  run.write_json(run.config, settings)
