"""What the trainer, the evaluation and the exporter know of an algorithm, and nothing else."""

from typing import Protocol, runtime_checkable

import tensorflow as tf

from maml_tf import evaluation, export, over_tasks
from maml_tf.algorithms.maml import move_statistics
from maml_tf.training import optimizers


@runtime_checkable
class Learner(Protocol):
  """An algorithm as pure functions of a state.

  A state is a nested dict of tensors with everything that training changes, optimiser slots included; a seed is an
  int32 tensor [2]. One that XLA cannot compile says so with an attribute `compiles = False`.
  """

  def initial_state(self, seed) -> dict:
    """The state before training, from a Python integer seed."""

  def train_step(self, state, seed):
    """One meta-iteration, traceable without AutoGraph: (new state, dict of metric name -> scalar, with `loss`)."""

  def evaluate(self, state, seed, num_tasks) -> dict:
    """Metric name -> [steps + 1, tasks], after 0, 1, ... inner steps on fresh tasks; traceable.

    Checkpoints are chosen by `accuracy`, `return` or `loss`, the first of them that is there.
    """

  def export_module(self, state) -> tf.Module:
    """The artefact that `export.save` writes."""


class SupervisedLearner:
  """The learner that joins this package's parts: a differentiable meta-loss, a distribution of tasks, an optimiser.

  Args:
    algorithm: has `model`, `initial_weights(seed)`, `meta_loss(weights, batch) -> (loss, metrics)` and
      `evaluate(weights, batch, num_updates)`; `MAML`, for one.
    train_tasks: `TaskDistribution` of the meta-batches.
    eval_tasks: `TaskDistribution` of validation and test; None: the same.
    meta_batch_size: tasks per meta-iteration.
    optimizer: of `training.optimizers`.
    eval_updates: inner steps in `evaluate`.
    initial_weights: dict of weights to start from in place of a fresh initialisation.
    metadata: dict that travels in the exported artefact.
    task_chunk: tasks that are computed at a time, for memory, in training and in evaluation; None: all of them. It
      divides `meta_batch_size`.
    stored_dtype: of the weights in the exported artefact; None: their own.
  """

  def __init__(
    self,
    algorithm,
    train_tasks,
    eval_tasks=None,
    meta_batch_size=25,
    optimizer=None,
    eval_updates=10,
    initial_weights=None,
    metadata=None,
    task_chunk=None,
    stored_dtype=None,
  ):
    self.algorithm = algorithm
    self.train_tasks = train_tasks
    self.eval_tasks = train_tasks if eval_tasks is None else eval_tasks
    self.meta_batch_size = meta_batch_size
    self.optimizer = optimizers.Adam() if optimizer is None else optimizer
    self.eval_updates = eval_updates
    self.metadata = metadata or {}
    self.task_chunk = task_chunk
    self.stored_dtype = stored_dtype
    self._initial_weights = initial_weights

  @property
  def compiles(self):
    return self.train_tasks.compiles

  def initial_state(self, seed):
    weights = self._initial_weights
    if weights is None:
      weights = self.algorithm.initial_weights(seed)
    return {"weights": weights, "optimizer": self.optimizer.initial_state(weights)}

  def train_step(self, state, seed):
    batch = self.train_tasks.sample(seed, self.meta_batch_size)
    loss, gradients, metrics = over_tasks.meta_gradients(
      self.algorithm.meta_loss, state["weights"], batch, self.task_chunk
    )
    weights, optimizer = self.optimizer.update(gradients, state["optimizer"], state["weights"])
    weights, metrics = move_statistics(weights, metrics)
    norm = tf.linalg.global_norm(list(gradients.values()))
    return {"weights": weights, "optimizer": optimizer}, {
      "loss": loss,
      "gradient_norm": norm,
      **metrics,
    }

  def evaluate(self, state, seed, num_tasks):
    return evaluation.evaluate_blocks(
      lambda batch: self.algorithm.evaluate(state["weights"], batch, self.eval_updates),
      self.eval_tasks,
      seed,
      num_tasks,
      self.task_chunk,
    )

  def export_module(self, state):
    return export.AdaptationModule(
      self.algorithm, state["weights"], self.eval_tasks.specs(), self.metadata, self.stored_dtype
    )
