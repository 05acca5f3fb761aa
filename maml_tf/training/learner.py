"""What the trainer, the evaluation and the exporter know of an algorithm, and nothing else."""

from typing import ClassVar, Protocol, runtime_checkable

import tensorflow as tf

from maml_tf import evaluation, export, memory, over_tasks, randomness
from maml_tf.algorithms.base import completed
from maml_tf.errors import UserError
from maml_tf.training import optimizers


@runtime_checkable
class Learner(Protocol):
  """An algorithm as pure functions of a state. Derive from it, to have the defaults.

  A state is a nested dict of tensors with everything that training changes, optimiser slots included; a seed is an
  int32 tensor [2].

  Attributes:
    compiles: whether XLA can compile `train_step`.
    validation_protocol: what the numbers of a validation depend on beside their names; checkpoints are compared only
      where it is the same.
    evaluate_block: function (state, seed, index), `evaluate` on the tasks of one `evaluation.BLOCK`; None: there is
      none, and a validation is one call.
  """

  compiles: ClassVar[bool] = True
  validation_protocol: ClassVar[str] = ""
  evaluate_block: ClassVar = None

  def initial_state(self, seed) -> dict:
    """The state before training, from a Python integer seed."""

  def check_tasks(self):
    """An error where the tasks do not fit; looked for before training, since tracing may take minutes."""

  def train_step(self, state, seed):
    """One meta-iteration, traceable without AutoGraph: (new state, dict of metric name -> scalar, with `loss`)."""

  def evaluate(self, state, seed, num_tasks) -> dict:
    """Metric name -> [steps + 1, tasks], after 0, 1, ... inner steps on fresh tasks; traceable.

    Checkpoints are chosen by `accuracy`, `return` or `loss`, the first of them that is there.
    """

  def export_module(self, state) -> tf.Module:
    """The artefact that `export.save` writes."""


class SupervisedLearner(Learner):
  """The learner that joins this package's parts: a differentiable meta-loss, a distribution of tasks, an optimiser.

  Args:
    algorithm: of `algorithms.base`; `MAML`, for one.
    train_tasks: `TaskDistribution` of the meta-batches.
    eval_tasks: `TaskDistribution` of validation and test; None: the same.
    meta_batch_size: tasks per meta-iteration.
    optimizer: of `training.optimizers`.
    eval_updates: inner steps in `evaluate`.
    initial_weights: dict of weights to start from in place of a fresh initialisation.
    metadata: dict that travels in the exported artefact.
    task_chunk: tasks that are computed at a time, for memory, in training and in evaluation. It divides
      `meta_batch_size`. None: as many as the algorithm says, else as many as `memory` finds to fit.
    stored_dtype: of the weights in the exported artefact; None: their own.
    export_bn_mode: as `bn_mode` of `export.AdaptationModule`.
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
    export_bn_mode="support",
  ):
    self.algorithm = completed(algorithm)
    self.train_tasks = train_tasks
    self.eval_tasks = train_tasks if eval_tasks is None else eval_tasks
    self.meta_batch_size = meta_batch_size
    self.optimizer = optimizers.Adam() if optimizer is None else optimizer
    self.eval_updates = eval_updates
    self.metadata = metadata or {}
    self.task_chunk = self.algorithm.task_chunk if task_chunk is None else task_chunk
    self.stored_dtype, self.export_bn_mode = stored_dtype, export_bn_mode
    self._initial_weights = initial_weights

  @property
  def compiles(self):
    return self.train_tasks.compiles and self.algorithm.compiles

  def initial_state(self, seed):
    weights = self._initial_weights
    if weights is None:
      weights = self.algorithm.initial_weights(seed)
    return {"weights": weights, "optimizer": self.optimizer.initial_state(weights)}

  def check_tasks(self):
    """Draws one task of each distribution.

    Raises:
      UserError: it does not fit the algorithm, or itself.
    """
    for name, distribution in (("training tasks", self.train_tasks), ("validation tasks", self.eval_tasks)):
      try:
        self.algorithm.check_batch(distribution.sample(randomness.make_seed(0), 1))
      except ValueError as error:
        raise UserError(f"{name}: {error}") from error

  def train_step(self, state, seed):
    weights = state["weights"]
    batch = self.train_tasks.sample(seed, self.meta_batch_size)
    noise = randomness.fold(seed, "algorithm")
    found = over_tasks.meta_gradients(self.algorithm.meta_loss, weights, batch, self.task_chunk, noise, memory.TRAINING)
    stepped, optimizer = self.optimizer.update(found.gradients, state["optimizer"], weights)
    norm = tf.linalg.global_norm(list(found.gradients.values()))
    state = {"weights": stepped | found.updates, "optimizer": optimizer}
    return state, {"loss": found.loss, "gradient_norm": norm, **found.metrics}

  def evaluate_block(self, state, seed, index):
    """`evaluate` on the tasks of one `evaluation.BLOCK`: what the trainer validates by, with a progress bar."""
    evaluate_batch = evaluation.of_algorithm(self.algorithm, state["weights"], self.eval_updates)
    return evaluation.evaluate_block(evaluate_batch, self.eval_tasks, seed, index, self.task_chunk)

  def evaluate(self, state, seed, num_tasks):
    evaluate_batch = evaluation.of_algorithm(self.algorithm, state["weights"], self.eval_updates)
    return evaluation.evaluate_blocks(evaluate_batch, self.eval_tasks, seed, num_tasks, self.task_chunk)

  def export_module(self, state):
    return export.AdaptationModule(
      self.algorithm,
      state["weights"],
      self.eval_tasks.specs(),
      self.metadata,
      self.stored_dtype,
      self.export_bn_mode,
    )
