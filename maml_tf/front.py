"""`maml_tf.MAML`: the algorithm together with `fit`, `save` and the weights that it has learned, as Keras has them.

The algorithm below (`algorithms.maml`) knows neither training nor files. Everything here calls it, and adds nothing to
what is computed.
"""

import functools
import numbers
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from maml_tf import evaluation, export, over_tasks, randomness, tracing
from maml_tf.algorithms import maml
from maml_tf.maml import LearnedStepSizes
from maml_tf.models import from_keras, shapes
from maml_tf.tasks import TaskDistribution
from maml_tf.training.fit import History, Settings, fit

MOST_ROWS = 10  # of a history, where nothing else is asked for


def _weights_may_be_left_out(method):
  """Without weights as its first argument, a method takes those that `fit` has learned."""

  @functools.wraps(method)
  def call(self, *arguments, **named):
    given = named.pop("weights", None)
    if arguments and (arguments[0] is None or self._are_weights(arguments[0])):
      given, *arguments = arguments
    weights = self._learned(method.__name__) if given is None else given
    return method(self, weights, *arguments, **named)

  return tracing.as_it_stands(call)


class MAML(maml.MAML):
  """MAML (Finn et al. 2017) on any Keras model.

  Args:
    model: a Keras model, which `models.from_keras` wraps, or a model with explicit weights.
    loss: "mse", "crossentropy", or a callable (labels, outputs) -> per-example losses [..., n].
    inner_lr: the step size alpha: a float; a dict per weight name; a list of either, one per step; or
      `maml_tf.maml.LearnedStepSizes`.
    num_updates: inner steps in training.
    first_order, loss_reduction, bn_mode, checkpoint_inner_steps, compute_dtype, regularisation: as of
      `maml_tf.algorithms.maml.MAML`.

  Attributes:
    weights: what `fit` has learned, dict of name -> tensor; None before. It may be set.
    history: `History` of the last `fit`; None before.
    stop_training: set to True by a Keras callback, ends `fit`.
  """

  def __init__(
    self,
    model: keras.Model,
    loss: str | Callable | dict | list | tuple = "mse",
    inner_lr: float | dict | list | LearnedStepSizes = 0.01,
    num_updates: int = 1,
    first_order: bool = False,
    loss_reduction: str = "mean",
    bn_mode: str = "transductive",
    checkpoint_inner_steps: bool = False,
    compute_dtype: tf.DType | None = None,
    regularisation: bool = True,
  ):
    super().__init__(
      from_keras(model), loss, inner_lr, num_updates, first_order, loss_reduction, bn_mode, checkpoint_inner_steps,
      compute_dtype, regularisation,
    )  # fmt: skip
    self.weights: dict[str, tf.Tensor] | None = None
    self.history: History | None = None
    self.stop_training = False
    self._tasks = None
    self._fits = 0

  def fit(
    self,
    tasks: TaskDistribution,
    iterations: int = 1000,
    validation_tasks: TaskDistribution | None = None,
    callbacks: Sequence[Callable | keras.callbacks.Callback] = (),
    *,
    directory: str | None = None,
    meta_batch_size: int = 25,
    optimizer: Any = 0.001,
    seed: int = 0,
    eval_updates: int | None = None,
    log_every: int | None = None,
    validate_every: int | None = None,
    num_validation_tasks: int = 100,
    task_chunk: int | None = None,
    jit_compile: bool = False,
    tensorboard: bool = False,
  ) -> History:
    """Meta-trains, and keeps the result as `weights`.

    Fitted again, it goes on from the weights that it has, with other tasks and an optimiser of no memory. In the same
    `directory`, it goes on exactly where the training there was, up to `iterations` in all.

    Args:
      tasks: distribution of tasks to train on: `tasks.from_arrays`, `tasks.from_generator`, a subclass.
      iterations: meta-iterations.
      validation_tasks: distribution to validate on; None: fresh tasks of `tasks`.
      callbacks: each a function (iteration, dict of name -> float), called with every row of the history, that returns
        True to stop; or a Keras callback, whose `on_epoch_end` is called with it.
      directory: run directory to keep (checkpoints, metrics.csv, validation.csv); None: a temporary one.
      meta_batch_size: tasks per meta-iteration.
      optimizer: learning rate of Adam, or an optimiser of `maml_tf.training.optimizers`.
      seed: of the initial weights and of the tasks.
      eval_updates: inner steps in validation; None: as in training.
      log_every: iterations between rows of the history; None: so that there are ten.
      validate_every: iterations between validations; None: as `log_every`.
      num_validation_tasks: tasks of a validation.
      task_chunk: tasks that are computed at a time, for memory; None: all.
      jit_compile: compile with XLA.
      tensorboard: write event files into `directory`.

    Returns:
      `History`, which is also kept as `history`.

    Raises:
      UserError, ValueError: an argument, the tasks or the directory do not fit; one line that says which and why.
      DivergedError: the loss is not finite any more. `weights` are the last finite ones.
      KeyboardInterrupt: `weights` and `history` are what was reached.
    """
    rows = max(1, iterations // MOST_ROWS) if isinstance(iterations, numbers.Integral) else 1
    log_every = rows if log_every is None else log_every
    settings = Settings(
      iterations, meta_batch_size, optimizer, self._seed_of_fit(seed, directory),
      self.num_updates if eval_updates is None else eval_updates, log_every,
      log_every if validate_every is None else validate_every, num_validation_tasks, task_chunk, jit_compile,
      tensorboard,
    )  # fmt: skip
    self._fits += 1

    def keep(weights, history):
      self.weights, self.history, self._tasks = weights, history, tasks

    return fit(self, tasks, settings, validation_tasks, callbacks, directory, self.weights, keep, model=self)

  @_weights_may_be_left_out
  def adapt(self, weights, support_x, support_y, num_updates: int | None = None, seed=None) -> list[dict]:
    """As `algorithms.maml.MAML.adapt`: weights after 0, 1, ..., num_updates steps.

    Args:
      weights: dict of name -> plain tensor; left out: those that `fit` has learned.
      support_x: [T, n, ...]; or of one task [n, ...], and then nothing that is returned has a task axis.
      support_y: likewise.
      num_updates: None: as in training.
      seed: nothing.
    """
    support_x, support_y = over_tasks.as_tensors((support_x, support_y))
    if shapes.task_axis("adapt", support_x, self.model.example_shape):
      return super().adapt(weights, support_x, support_y, num_updates, seed)
    one = tf.nest.map_structure(lambda tensor: tensor[tf.newaxis], (support_x, support_y))
    return tf.nest.map_structure(lambda tensor: tensor[0], super().adapt(weights, *one, num_updates, seed))

  @_weights_may_be_left_out
  def adapt_final(self, weights, support_x, support_y, num_updates, seed=None) -> dict:
    return super().adapt_final(weights, support_x, support_y, num_updates, seed)

  @tracing.as_it_stands
  def predict(self, task: dict | list, x) -> tf.Tensor:
    """Outputs (logits, for a classifier) at x, after adapting.

    Args:
      task: what `adapt` returned, of which the last step counts, or one of its steps; or plain weights.
      x: [T, n, ...], or of one task [n, ...].
    """
    return super().predict(task[-1] if isinstance(task, list) else task, tf.nest.map_structure(_as_array, x))

  @_weights_may_be_left_out
  def evaluate(self, weights, batch, num_updates: int = 10, seed=None, num_tasks: int = 600) -> dict:
    """Query loss, and accuracy of a classifier, after 0, 1, ..., num_updates steps.

    Args:
      weights: dict of name -> plain tensor; left out: those that `fit` has learned.
      batch: `TaskBatch`, or a distribution of tasks, of which `num_tasks` are drawn.
      num_updates: steps.
      seed: of a distribution's tasks, an integer; None: 0. Training draws none of them.
      num_tasks: of a distribution.

    Returns:
      {"loss": [num_updates + 1, T], "accuracy": likewise}; of a distribution NumPy arrays, T = num_tasks.
    """
    if not callable(getattr(batch, "sample", None)):
      return super().evaluate(weights, batch, num_updates, seed)
    root = randomness.fold(randomness.make_seed(0 if seed is None else seed), "evaluation")
    measure = evaluation.of_algorithm(self, weights, num_updates)
    return evaluation.evaluate_with_progress(measure, batch, root, num_tasks, label="evaluating")

  def save(self, path, pictures: dict | None = None, bn_mode: str = "support") -> None:
    """Writes a SavedModel that adapts and predicts with TensorFlow alone; `maml_tf.load` reads it.

    Args:
      path: folder to write; an older SavedModel there is replaced.
      pictures: where the inputs are pictures: {"range": (low, high) of the values, "inverted": whether ink is high},
        so that `maml-tf predict` knows how to make them from files. None: they are none.
      bn_mode: whose statistics normalise query examples: as of `export.AdaptationModule`.
    """
    weights = self._learned("save")
    if self._tasks is None:
      raise ValueError("save: fit has not run yet, so the shape of a task is not known; call fit first")
    metadata = {} if pictures is None else {"pictures": export.picture_metadata(**pictures)}
    module = export.AdaptationModule(self, weights, self._tasks.specs(), metadata, bn_mode=bn_mode)
    export.save_module(module, path)

  def load_weights(self, path) -> None:
    """Takes the weights of a SavedModel of the same architecture.

    Raises:
      UserError: there is none, or of another architecture.
    """
    fresh = self.initial_weights(0)
    optional = self.optional_names(fresh)
    expected = {name: tuple(value.shape) for name, value in fresh.items() if name not in optional}
    loaded, _ = export.load_initialization(path, expected, {name: tuple(fresh[name].shape) for name in optional})
    self.weights = fresh | loaded

  def to_keras(self, weights: dict | None = None) -> keras.Model:
    """Puts weights, those that `fit` has learned or one task's, into the Keras model and returns it."""
    return super().to_keras(self._learned("to_keras") if weights is None else weights)

  def get_weights(self) -> list[np.ndarray]:
    """As Keras' models have it, for its callbacks."""
    return [np.asarray(value) for value in self._learned("get_weights").values()]

  def set_weights(self, values: list) -> None:
    """As Keras' models have it: values in the order of `get_weights`."""
    names = list(self._learned("set_weights"))
    self.weights = {name: tf.convert_to_tensor(value) for name, value in zip(names, values, strict=True)}

  def _are_weights(self, given):
    return isinstance(given, dict) and set(self.model.weight_shapes) <= set(given)

  def _learned(self, method):
    if self.weights is None:
      raise ValueError(f"{method}: nothing is learned yet; call fit first, or give {method} weights")
    return self.weights

  def _seed_of_fit(self, seed, directory):
    """A second fit must not draw the first one's tasks again, unless it goes on with it in its directory."""
    return seed if self._fits == 0 or directory is not None else randomness.name_to_int(f"{seed}/fit_{self._fits}")


def _as_array(x):
  return x if tf.is_tensor(x) else np.asarray(x)
