"""The loop of online meta-learning as a `Learner`: a meta-iteration of the trainer is a round of the stream.

Finn et al. 2019, algorithms 1 and 2. In every round a batch of the current task arrives, the meta-update is done some
number of times, and the update procedure is judged on the task's held-out data. What that gave is part of the state: a
run that is killed and resumed in any round has the same bits.
"""

import tensorflow as tf

from maml_tf import export, losses, memory, over_tasks, randomness
from maml_tf.errors import UserError
from maml_tf.online.buffer import Buffer
from maml_tf.tasks.base import TaskBatch
from maml_tf.tasks.sequences import FIELDS, as_inputs
from maml_tf.training import optimizers
from maml_tf.training.learner import Learner


class OnlineLearner(Learner):
  """Goes through a stream of tasks.

  The state is {"weights", "optimizer", "round": int32, the rounds so far, "loss" and, for classes, "accuracy":
  [tasks, batches], of the update procedure on held-out data after each batch, NaN where it is not there (yet)}.

  Args:
    procedure: `online.UpdateProcedure`, with the algorithm whose meta-loss is minimised.
    stream: `online.Stream`.
    strategy: `online.Strategy`.
    optimizer: of `training.optimizers`; None: Adam of 1e-3, as published.
    meta_updates: of a round (N_meta of the paper).
    meta_batch_size: tasks of a meta-update, drawn from the buffer with replacement; None: all tasks in the buffer with
      all their data, whose loss the paper's algorithm 1 minimises. Each task then arrives in one batch.
    inner_batch: examples of a support set, and of a query set.
    current_in_buffer: whether the current task is among those that are drawn.
    pays_first: judge before the meta-updates of the round: the loss of the regret (section 2), which the world reveals
      to weights that have not been trained on it.
    initial_weights: to start from in place of a fresh initialisation.
    metadata: dict that travels in the exported artefact.
    task_chunk: tasks that are computed at a time, for memory; None: all, or as many as `memory` finds to fit.
    heads: function (labels, outputs) -> the same of each example's own head, `heads.own_head`; None: there is one head.

  Raises:
    UserError: fewer examples than an inner batch.
  """

  compiles = False  # how many examples there are is known when a round runs

  def __init__(
    self,
    procedure,
    stream,
    strategy,
    optimizer=None,
    meta_updates=50,
    meta_batch_size=25,
    inner_batch=10,
    current_in_buffer=True,
    pays_first=False,
    initial_weights=None,
    metadata=None,
    task_chunk=None,
    heads=None,
  ):
    if not 1 <= inner_batch <= stream.first_amount:
      raise UserError(
        f"inner_batch={inner_batch}: expected 1 to {stream.first_amount}: a task has so many examples when it is first "
        "trained on"
      )
    at_once = stream.sequence.num_batches == 1 and stream.sequence.is_even and not stream.warm_start.tasks
    if meta_batch_size is None and not at_once:
      raise UserError(
        "meta_batch_size=None, the whole buffer: expected tasks of equal size that arrive in one batch each, and no "
        "warm start"
      )
    self.procedure, self.stream, self.strategy = procedure, stream, strategy
    self.optimizer = optimizers.Adam() if optimizer is None else optimizer
    self.meta_updates, self.meta_batch_size, self.inner_batch = meta_updates, meta_batch_size, inner_batch
    self.current_in_buffer, self.pays_first = current_in_buffer, pays_first
    self.metadata, self.task_chunk, self.heads = metadata or {}, task_chunk, heads
    self._initial_weights, self._buffer = initial_weights, None
    self._fresh = None

  def initial_state(self, seed):
    weights = self._initial_weights
    if weights is None:
      weights = self.procedure.initial_weights(seed)
    self._fresh = weights
    dtype = next(iter(weights.values())).dtype
    self._buffer = Buffer(self.stream.sequence, dtype)
    empty = tf.fill([self.stream.sequence.num_tasks, self.stream.sequence.num_batches], float("nan"))
    records = {name: tf.cast(empty, dtype) for name in self._measures}
    return {"weights": weights, "optimizer": self.optimizer.initial_state(weights), "round": tf.constant(0), **records}

  def check_tasks(self):
    """Checks the first task, and those with the smallest and the largest labels.

    Raises:
      UserError: one does not fit the algorithm, or itself.
    """
    sequence = self.stream.sequence
    dtype = next(iter(self.procedure.initial_weights(0).values())).dtype
    labels = [y.reshape(sequence.num_tasks, -1) for y in (sequence.y, sequence.test_y)]
    chosen = {0, *(int(y.max(1).argmax()) for y in labels), *(int(y.min(1).argmin()) for y in labels)}
    for task in sorted(chosen):
      x, y, test_x, test_y = (tf.constant(getattr(sequence, name)[task : task + 1]) for name in FIELDS)
      try:
        self.procedure.check_batch(TaskBatch(as_inputs(x, dtype), y, as_inputs(test_x, dtype), test_y))
      except ValueError as error:
        raise UserError(f"task {sequence.names[task]}: {error}") from error

  @property
  def _measures(self):
    return ("loss", "accuracy") if self.stream.sequence.classifies else ("loss",)

  def train_step(self, state, seed):
    moment = self.stream.at(state["round"])
    state = self._restarted(state, moment) if self.strategy.restarts else state
    measured = self._judge(state["weights"], moment) if self.pays_first else None
    weights, optimizer, loss = self._meta_updates(state, moment, seed)
    if measured is None:
      measured = self._judge(weights, moment)
    records = {name: self._recorded(state[name], moment, measured[name]) for name in self._measures}
    state = {"weights": weights, "optimizer": optimizer, "round": state["round"] + 1, **records}
    return state, {"loss": loss, "task": moment.task, "examples": tf.where(moment.arriving, moment.amount, 0)}

  def evaluate(self, state, seed, num_tasks):
    """The current task's held-out data after 0, 1, ... steps of the update procedure: name -> [steps + 1, 1]."""
    del seed, num_tasks
    batch = self._buffer.current(self.stream.last(state["round"]))
    tasks = self.procedure.every_step(state["weights"], batch.support_x, batch.support_y)
    measured = [self._measure(task, batch) for task in tasks]
    return {name: tf.stack([values[name] for values in measured]) for name in self._measures}

  def export_module(self, state):
    return export.AdaptationModule(self.procedure, state["weights"], self.stream.sequence.specs(), self.metadata)

  def _restarted(self, state, moment):
    """Weights and optimiser as before any training, where a task begins.

    The same initialisation for every task of a run: tasks are compared by their data, and seeds by their weights.
    """
    fresh = {"weights": self._fresh, "optimizer": self.optimizer.initial_state(self._fresh)}
    begins = tf.logical_and(moment.arriving, moment.batch == 0)
    old = {name: state[name] for name in fresh}
    return state | tf.nest.map_structure(lambda new, old: tf.where(begins, new, old), fresh, old)

  def _meta_updates(self, state, moment, seed):
    """(weights, optimiser's state, mean meta-loss) after the meta-updates of a round."""
    arrived, current = self.stream.arrived(moment), moment.arriving
    if not self.current_in_buffer and not self.strategy.of_current_task:
      current = tf.constant(False)
    # Past tasks have the smaller numbers, so the buffer is the first ones.
    in_buffer = moment.task + tf.cast(current, tf.int32)
    none = tf.logical_not(moment.arriving) if self.strategy.of_current_task else tf.equal(in_buffer, 0)
    count = tf.where(none, 0, self.meta_updates)

    def body(done, weights, optimizer, total):
      batch = self._meta_batch(randomness.fold(seed, "meta_update", done), moment, in_buffer, arrived)
      noise = randomness.fold(seed, "algorithm", done)
      found = over_tasks.meta_gradients(
        self.procedure.meta_loss, weights, batch, self.task_chunk, noise, memory.TRAINING
      )
      stepped, optimizer = self.optimizer.update(found.gradients, optimizer, weights)
      return done + 1, stepped | found.updates, optimizer, total + found.loss

    zero = tf.zeros([], next(iter(state["weights"].values())).dtype)
    start = (0, state["weights"], state["optimizer"], zero)
    _, weights, optimizer, total = tf.while_loop(lambda done, *_: done < count, body, start)
    return weights, optimizer, tf.math.divide_no_nan(total, tf.cast(count, total.dtype))

  def _meta_batch(self, seed, moment, in_buffer, arrived):
    if self.meta_batch_size is None:
      return self._buffer.all_of(*((moment.task, 1) if self.strategy.of_current_task else (0, in_buffer)))
    if self.strategy.of_current_task:
      chosen = tf.fill([self.meta_batch_size], moment.task)
    else:
      chosen = randomness.integers(randomness.fold(seed, "tasks"), [self.meta_batch_size], in_buffer)
    return self._buffer.sample(seed, chosen, arrived, self.inner_batch, self.inner_batch)

  def _judge(self, weights, moment):
    """Name -> scalar: the update procedure on all data of the current task; NaN where it is not judged."""

    def judge():
      batch = self._buffer.current(moment)
      task = self.procedure.adapt(weights, batch.support_x, batch.support_y)
      return {name: value[0] for name, value in self._measure(task, batch).items()}

    dtype = next(iter(weights.values())).dtype
    return tf.cond(moment.judged, judge, lambda: dict.fromkeys(self._measures, tf.constant(float("nan"), dtype)))

  def _measure(self, task, batch):
    """{"loss": [1]}, and {"accuracy": [1]} for classes, on the held-out examples."""
    outputs = self.procedure.predict(task, batch.query_x)
    per_example = losses.per_example(self.procedure.algorithm.loss, batch.query_y, outputs)
    measured = {"loss": losses.per_task(per_example)}
    if self.stream.sequence.classifies:
      labels, outputs = (batch.query_y, outputs) if self.heads is None else self.heads(batch.query_y, outputs)
      measured["accuracy"] = losses.accuracy(labels, outputs)
    return measured

  def _recorded(self, record, moment, value):
    """The record [tasks, batches] with the value of this round."""
    tasks, batches = record.shape
    here = tf.logical_and(tf.range(tasks)[:, tf.newaxis] == moment.task, tf.range(batches) == moment.batch)
    return tf.where(tf.logical_and(here, moment.judged), value, record)
