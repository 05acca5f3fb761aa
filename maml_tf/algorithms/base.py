"""The contract of an algorithm, with defaults for what follows from the rest.

Training, evaluation and export know this contract alone, so a gradient, metric, recurrent or probabilistic learner is
one file beside this one (or outside of the package: docs/extending.md).
"""

from typing import ClassVar

import tensorflow as tf

from maml_tf import losses
from maml_tf.tasks import base as tasks

CONTRACT = ("has_steps", "initial_weights", "meta_loss", "adapt", "predict")


class Algorithm:
  """A way to learn how to learn. Subclass it and implement the four methods that raise here.

  Weights are a dict of name -> tensor, every meta-parameter. What adapting gives is a nest of tensors [T, ...]:
  weights, prototypes, a memory. A seed is an int32 tensor [2]; noise for single tasks comes from
  `randomness.per_task(seed, T)`, so that it does not depend on how many tasks are computed at a time.

  Attributes:
    has_steps: adapting is a number of gradient steps. False (a metric, a memory): `num_updates` means nothing, and
      results are [1, T].
    needs_head: the network ends in a layer of logits or outputs. False: it ends in features.
    kinds: which domains it is for, of "regression", "classification", "policies". A plug-in says it here.
    settings: names of the settings (`experiments.settings`) that it takes as arguments. A plug-in says it here.
    of_data: what it takes as arguments that only the data can tell, of "ways" (classes of a task) and
      "training_classes" (classes to train on).
    trains_on_classes: a training batch is images of all classes, with the labels of those, in place of tasks.
    compiles: whether XLA can compile it.
    fixed_variables: variables that no training changes, which an exported artefact has to carry.
    task_chunk: tasks that are computed at a time where nobody says how many; None: all.
  """

  has_steps: ClassVar[bool] = True
  needs_head: ClassVar[bool] = True
  kinds: ClassVar[tuple] = ("regression", "classification")
  settings: ClassVar[tuple] = ()
  of_data: ClassVar[tuple] = ()
  trains_on_classes: ClassVar[bool] = False
  compiles: ClassVar[bool] = True
  fixed_variables = ()
  task_chunk = None

  def initial_weights(self, seed=0):
    """Every meta-parameter before training, of a Python integer seed: dict of name -> plain tensor, in layer order."""
    raise NotImplementedError(f"{type(self).__name__} must implement initial_weights(seed)")

  def meta_loss(self, weights, batch, seed=None):
    """What meta-training minimises.

    Args:
      weights: dict as `initial_weights` returns it.
      batch: `TaskBatch`.
      seed: int32 tensor [2], for noise.

    Returns:
      (scalar loss, mean over tasks; dict of metric name -> scalar, means over tasks too; updates: dict of name -> new
      value, for weights that no gradient moves, such as running statistics).
    """
    raise NotImplementedError(f"{type(self).__name__} must implement meta_loss(weights, batch, seed)")

  def adapt(self, weights, support_x, support_y, num_updates, seed=None):
    """Learns tasks from their support sets.

    Args:
      weights: dict as `initial_weights` returns it.
      support_x: [T, n, ...].
      support_y: [T, n, ...].
      num_updates: gradient steps, a Python integer or a scalar tensor.
      seed: int32 tensor [2], for noise.

    Returns:
      What `predict` takes: a nest of tensors, each with a leading T.
    """
    raise NotImplementedError(f"{type(self).__name__} must implement adapt(weights, support_x, support_y, ...)")

  def predict(self, task, x):
    """Outputs [T, n, ...] (logits, for a classifier) at x [T, n, ...], of what `adapt` returned."""
    raise NotImplementedError(f"{type(self).__name__} must implement predict(task, x)")

  def predict_one(self, task, x):
    """Outputs [n, ...] at x [n, ...] of one task, all without a task axis."""
    return self.predict(tf.nest.map_structure(lambda value: value[tf.newaxis], task), x[tf.newaxis])[0]

  def ready_tasks(self, weights):
    """What `predict_one` takes beside what `adapt` returns, a list: the weights themselves, where they are a task."""
    del weights
    return []

  def exported(self, bn_mode):
    """The algorithm as an artefact has it: queries normalised as `bn_mode` says, where they are by statistics."""
    del bn_mode
    return self

  def shares_statistics(self):
    """Whether a prediction depends on what else is asked: the queries are normalised by their own statistics."""
    return False

  def adapt_final(self, weights, support_x, support_y, num_updates, seed=None):
    """`adapt`; for an algorithm whose own `adapt` returns every step, the last of them."""
    return self.adapt(weights, support_x, support_y, num_updates, seed)

  def measure(self, outputs, batch):
    """{"loss": [T]}, and for integer labels {"accuracy": [T]}, of outputs at the query examples."""
    labels = tf.convert_to_tensor(batch.query_y)
    if not labels.dtype.is_integer:
      return {"loss": losses.per_task(losses.mse(labels, outputs), batch.query_mask)}
    return {
      "loss": losses.per_task(losses.crossentropy(labels, outputs), batch.query_mask),
      "accuracy": losses.accuracy(labels, outputs, batch.query_mask),
    }

  def evaluate(self, weights, batch, num_updates=10, seed=None):
    """Metrics on the query sets after 0, 1, ..., num_updates steps: dict of name -> [num_updates + 1, T].

    Where there are no steps: [1, T]. Adapts anew for every number of steps; one that can do better overrides this.
    """
    if batch.support_mask is not None:
      raise ValueError(f"{type(self).__name__}: it does not know support masks; give every task as many examples")
    counts = range(num_updates + 1) if self.has_steps else (num_updates,)
    measured = []
    for count in counts:
      task = self.adapt_final(weights, batch.support_x, batch.support_y, count, seed)
      measured.append(self.measure(self.predict(task, batch.query_x), batch))
    return {name: tf.stack([values[name] for values in measured]) for name in measured[0]}

  def check_batch(self, batch):
    """An error where a concrete batch does not fit the algorithm or itself. It is called before training, for one task.

    Args:
      batch: `TaskBatch` of concrete arrays.

    Raises:
      ValueError: with the name of the field, what was found and what is expected.
    """
    tasks.check_batch(batch)

  def optional_names(self, weights):
    """Names of the weights that an artefact to start from may lack: they begin afresh then."""
    del weights
    return ()


class _Completed(Algorithm):
  """An algorithm that has the contract's members without deriving from `Algorithm`, and the defaults for the rest."""

  def __init__(self, algorithm):
    for name in (n for n in dir(Algorithm) if not n.startswith("_") and hasattr(algorithm, n)):
      setattr(self, name, getattr(algorithm, name))


def completed(algorithm):
  """The algorithm itself, or one with the contract's members completed by the defaults.

  Raises:
    TypeError: a member of the contract is missing.
  """
  if isinstance(algorithm, Algorithm):
    return algorithm
  missing = [name for name in CONTRACT if not hasattr(algorithm, name)]
  if missing:
    raise TypeError(f"{type(algorithm).__name__} is no algorithm: it has no {missing[0]} (see maml_tf.algorithms.base)")
  return _Completed(algorithm)
