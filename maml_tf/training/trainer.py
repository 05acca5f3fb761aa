"""The meta-training loop, for any `Learner`."""

import contextlib
import dataclasses
import math
import threading
import time
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from maml_tf import evaluation, progress, randomness, tracing
from maml_tf.errors import DivergedError, UserError
from maml_tf.training import interrupts
from maml_tf.training.checkpoints import CheckpointFolder
from maml_tf.training.logging import CsvLog, TensorBoard, rewind_events
from maml_tf.training.position import Interval, Position

SECONDS_IN_GRAPH = 1.0  # after about so many the loop comes back to Python, where Ctrl-C is heard


@dataclasses.dataclass(frozen=True)
class Schedule:
  """How long to train, and how often to write and validate. In meta-iterations, counted from 1, but for seconds.

  Attributes:
    checkpoint_seconds: a checkpoint is written at least so often as well, whatever an iteration takes.
  """

  iterations: int
  log_every: int = 100
  validate_every: int = 1000
  checkpoint_every: int = 1000
  validation_tasks: int = 600
  checkpoint_seconds: float = 300.0


class Trainer:
  """Trains a learner in a run directory, from its newest checkpoint.

  Meta-iteration i samples from the seed folded with i, so a resumed run, or one that is logged or validated more
  often, sees the same tasks.

  Args:
    learner: a `Learner`. Where it has `evaluate_block(state, seed, index)`, `evaluate` on the tasks of one
      `evaluation.BLOCK`, it is validated block by block, with a progress bar.
    directory: `RunDirectory`, locked by the caller.
    seed: Python integer, the run's seed.
    schedule: `Schedule`.
    config: JSON-able dict, kept in every checkpoint.
    jit_compile: compile the loop with XLA.
    tensorboard: write event files.
    on_start: function (iteration), called before training goes on from there, where there is something left to train.
    on_validation: function (iteration, state, tensorboard), called after every validation.
    on_row: function (iteration, row), called where metrics.csv or validation.csv has got one: a dict of the means of
      training, and those of the validation with `validation/` before their names.
    on_interrupt: function (info as of `train`), called after an interrupted training has kept what there is.
    say: function of one line of text.
  """

  def __init__(
    self,
    learner,
    directory,
    seed,
    schedule,
    config=None,
    jit_compile=False,
    tensorboard=True,
    on_start: Callable = lambda iteration: None,
    on_validation: Callable | None = None,
    on_interrupt: Callable = lambda info: None,
    say=print,
    on_row: Callable = lambda iteration, row: None,
  ):
    if jit_compile and not learner.compiles:
      raise UserError("jit_compile=True: XLA cannot compile this method, or these tasks; use jit_compile=False")
    self.learner, self.directory, self.schedule = learner, directory, schedule
    self.seed, self.config, self.say = seed, config or {}, say
    self.on_start, self.on_validation, self.on_interrupt = on_start, on_validation, on_interrupt
    self.on_row = on_row
    self.checkpoints = CheckpointFolder(directory.checkpoints, warn=say)
    self.num_traces = 0
    self._tensorboard_enabled = tensorboard
    self._step = None
    self._run_steps = tracing.function(self._steps, jit_compile=jit_compile)
    self._by_block = learner.evaluate_block is not None
    self._evaluate = tracing.function(learner.evaluate_block if self._by_block else learner.evaluate)
    self._keeping = threading.Lock()
    self._at, self._stopped = None, False

  @property
  def state(self):
    """The state after the last iteration; None before `train`."""
    return None if self._at is None else self._at.state

  def stop(self):
    """Ends the training after this iteration, as if the schedule went no further; for `on_row`."""
    self._stopped = True

  def train(self):
    """Trains up to `schedule.iterations` and returns (state, info).

    Returns:
      The final state, and {"iteration", "seconds", "validation_seconds", "compile_seconds", "iterations_per_second",
      "resumed_from"}; "seconds" is the time of the loop with its logging, without validating, tracing and compiling.

    Raises:
      DivergedError: the loss, its gradient or a weight is not finite. The last good checkpoint is kept.
      KeyboardInterrupt: once the last iteration is kept; its text says which that is.
    """
    at = self._restore()
    if at.iteration >= self.schedule.iterations and not at.validation_due:
      info = {"iteration": at.iteration, "seconds": 0.0, "iterations_per_second": None, "resumed_from": at.iteration}
      return at.state, info
    self.on_start(at.iteration)
    self.checkpoints.rewind(at.iteration)
    logs = CsvLog(self.directory.metrics), CsvLog(self.directory.validation)
    for log in logs:
      if damaged := log.rewind(at.iteration):
        self.say(f"{log.path}: {damaged} damaged {'row is' if damaged == 1 else 'rows are'} left out")
    if self._tensorboard_enabled:
      rewind_events(self.directory.events, at.iteration)
    board = TensorBoard(self.directory.events, self._tensorboard_enabled)
    self._at, self._first, self._kept = at, at.iteration, at.iteration
    self._seconds = {"seconds": 0.0, "compile_seconds": 0.0, "validation_seconds": 0.0}
    try:
      with interrupts.last_resort(self._keep):
        self._train(*logs, board)
    except KeyboardInterrupt as error:
      error.args = (self._keep(),)
      raise
    finally:
      for log in (*logs, board):
        log.close()
    return self._at.state, self._info()

  def _train(self, metrics_log, validation_log, board):
    schedule = self.schedule
    board.hyperparameters({**self.config, "seed": self.seed})
    with self._timed("compile_seconds"):
      self._compile()
    board.scalars(self._first, {"seconds": self._seconds["compile_seconds"]}, "compile")
    chunk, saved = 1, time.monotonic()
    with progress.bar(total=schedule.iterations, initial=self._first, unit="it") as bar:
      if self._at.validation_due:  # it was interrupted
        self._validate(validation_log, board, bar)
        self._save()
      while self._at.iteration < schedule.iterations and not self._stopped:
        until = min(self._next_stop(self._at.iteration), self._at.iteration + chunk)
        with interrupts.held(), self._timed("seconds"):
          chunk = self._advance_to(until, bar)
          row = self._log(metrics_log, board, bar) if self._due(until, schedule.log_every) else {}
        if self._at.validation_due:
          row |= self._validate(validation_log, board, bar)
        if row:
          self.on_row(until, row)
        late = time.monotonic() - saved >= schedule.checkpoint_seconds
        if self._stopped or late or self._due(until, schedule.checkpoint_every):
          with interrupts.held(), self._timed("seconds"):
            self._save()
            board.flush()
          saved = time.monotonic()

  def _compile(self):
    """Traces what the loop needs, and compiles the training."""
    self._run(self._at.state, 0, 0, Interval(0, 1, None))
    self._evaluate.get_concrete_function(
      _specs(self._at.state), tf.TensorSpec([2], tf.int32), tf.TensorSpec([], tf.int32)
    )

  def _advance_to(self, until, bar):
    """Trains up to an iteration; returns how many next time, so that the graph is left about once in a second."""
    at, began = self._at, time.perf_counter()
    first, count = at.iteration, until - at.iteration
    interval = at.interval or Interval(first, self._next(first, self.schedule.log_every) - first, None)
    state, means, done = self._run(at.state, first, count, interval)
    if int(done) < count:
      raise DivergedError(self._not_finite(f"at meta-iteration {first + int(done) + 1}"))
    if not _all_finite(state.get("weights", {})):  # of a learner whose metrics do not tell
      raise DivergedError(self._not_finite(f"between meta-iterations {first + 1} and {until}"))
    seconds = time.perf_counter() - began
    due = self._due(until, self.schedule.validate_every)
    self._at = Position(until, state, at.best, interval.advanced(means, count, seconds), due)
    bar.update(count)
    return next_chunk(count, seconds)

  def _run(self, state, first, count, interval):
    if self._step is None:
      step = tracing.function(self.learner.train_step)
      self._step = step.get_concrete_function(_specs(state), tf.TensorSpec([2], tf.int32))
    names = {name: value.shape for name, value in self._step.structured_outputs[1].items()}
    # Tensors, not Python integers: `tf.function` would trace anew for every integer.
    numbers = tf.constant(first), tf.constant(count), tf.constant(interval.length, tf.float32)
    return self._run_steps(state, *numbers, interval.means_of(names))

  def _steps(self, state, first, count, length, means):
    """`count` meta-iterations after `first`: (state, sums of the metrics / `length`, number that were finite)."""
    self.num_traces += 1
    seed = randomness.fold(randomness.make_seed(self.seed), "train")

    def body(done, finite, state, means):
      new_state, metrics = self._step(state, randomness.fold(seed, first + done + 1))
      metrics = {name: tf.cast(value, tf.float32) for name, value in metrics.items()}
      finite = tf.reduce_all([tf.math.is_finite(value) for value in metrics.values()])
      # Divided before they are added: a sum of large losses must not overflow where none of them is infinite.
      means = {name: means[name] + metrics[name] / length for name in means}
      return done + tf.cast(finite, tf.int32), finite, new_state, means

    done, _, state, means = tf.while_loop(
      lambda done, finite, *_: tf.logical_and(finite, done < count), body, (0, True, state, means)
    )
    return state, means, done

  def _log(self, log, board, bar):
    """Writes the means since the last row, begins the next one and returns them."""
    at = self._at
    metrics = at.interval.metrics()
    bar.set_postfix(loss=f"{metrics['loss']:.4g}", refresh=False)
    log.write(at.iteration, metrics)
    board.scalars(at.iteration, metrics, "train")
    self._at = dataclasses.replace(at, interval=None)
    return metrics

  def _validate(self, log, board, training_bar):
    """Returns the means, as `on_row` has them."""
    with self._timed("validation_seconds") as began:
      state, iteration = self._at.state, self._at.iteration
      results = self._validate_all(state, self.schedule.validation_tasks, f"validating at {iteration}")
      with np.errstate(all="ignore"):  # a validation that diverges is for the curves to show
        means = {name: evaluation.summarise(values)["mean"] for name, values in results.items()}
      with interrupts.held():
        row = self._write_validation(means, log, board)
      if self.on_validation is not None:
        self.on_validation(iteration, state, board)
    # The bar's rate and time left are those of training.
    training_bar.start_t = getattr(training_bar, "start_t", 0.0) + time.perf_counter() - began
    training_bar.last_print_t = getattr(training_bar, "last_print_t", 0.0) + time.perf_counter() - began
    return row

  def _write_validation(self, means, log, board):
    iteration, best = self._at.iteration, self._at.best
    values = {f"{n}/step_{k}": m for n, mean in means.items() for k, m in enumerate(mean)}
    log.write(iteration, values)
    board.scalars(iteration, values, "validation")
    metric, score = validation_score(means)
    metric += self.learner.validation_protocol
    # A score that is NaN would stay the best for ever; one of another metric (other --eval_updates) does not compare.
    better = best is None or best.get("metric") != metric or score > best["score"]
    if better and math.isfinite(score):
      best = {"iteration": iteration, "metric": metric, "score": score}
    better = better and math.isfinite(score)
    self._at = dataclasses.replace(self._at, best=best, validation_due=False)
    if better:
      self.checkpoints.save_best(self._at.state, self._at.metadata(self.config))
    return {f"validation/{name}": value for name, value in values.items()}

  def _validate_all(self, state, num_tasks, label=None):
    """Metric name -> [steps + 1, num_tasks]."""
    seed = randomness.fold(randomness.make_seed(self.seed), "validation")
    blocks = []
    with progress.bar(total=num_tasks, unit="task", desc=label, leave=False) as bar:
      if not self._by_block:
        found = self._evaluate(state, seed, tf.constant(num_tasks))
        bar.update(num_tasks)
        return found
      for first in range(0, num_tasks, evaluation.BLOCK):
        blocks.append(self._evaluate(state, seed, tf.constant(first // evaluation.BLOCK)))
        bar.update(min(evaluation.BLOCK, num_tasks - first))
    return {n: np.concatenate([block[n] for block in blocks], axis=1)[:, :num_tasks] for n in blocks[0]}

  def _restore(self):
    state = self.learner.initial_state(self.seed)
    loaded = self.checkpoints.load(like=state)
    if loaded is None:
      return Position(0, state)
    at = Position.restored(*loaded)
    finished = at.iteration >= self.schedule.iterations
    self.say(f"{'already trained to' if finished else 'resuming from'} iteration {at.iteration}")
    length = None if finished else self._next(at.iteration, self.schedule.log_every)
    # Where the file is not there any more (a run that was copied without it), the next validation writes one.
    best = at.best if self.checkpoints.best_path.exists() else None
    return dataclasses.replace(at, best=best, interval=at.interval and at.interval.up_to(length))

  def _keep(self):
    """Keeps the last iteration of a training that is interrupted; returns what to say of it."""
    with self._keeping:
      iteration = self._at.iteration
      if iteration > self._kept:
        self._save()
      if iteration > self._first:
        self.on_interrupt(self._info())
    if iteration == 0:
      return "interrupted before the first iteration: there is nothing to keep"
    return f"interrupted; iteration {iteration} is kept, and the same command goes on from there"

  def _save(self):
    at = self._at
    self.checkpoints.save(at.state, at.metadata(self.config))
    self._kept = at.iteration

  def _info(self):
    done, seconds = self._at.iteration - self._first, self._seconds["seconds"]
    rate = done / seconds if seconds else None
    return {
      "iteration": self._at.iteration,
      **self._seconds,
      "iterations_per_second": rate,
      "resumed_from": self._first,
    }

  @contextlib.contextmanager
  def _timed(self, name):
    """Adds the seconds of the block to those of that name."""
    began = time.perf_counter()
    try:
      yield began
    finally:
      self._seconds[name] += time.perf_counter() - began

  def _next_stop(self, iteration):
    """The next iteration at which Python has something to do."""
    schedule = self.schedule
    every = (schedule.log_every, schedule.validate_every, schedule.checkpoint_every)
    return min(self._next(iteration, n) for n in every)

  def _next(self, iteration, every):
    return min(self.schedule.iterations, iteration - iteration % every + every)

  def _due(self, iteration, every):
    return iteration % every == 0 or iteration == self.schedule.iterations

  def _not_finite(self, when):
    kept = self.checkpoints.iterations()
    kept = f"the checkpoint of iteration {kept[-1]} is kept" if kept else "there is no checkpoint yet"
    return (
      f"the loss or its gradient became infinite or NaN {when}; {kept}. "
      "Smaller steps of the inner loop, or of the outer one, usually help"
    )


def next_chunk(count, seconds):
  """How many iterations to leave to the graph after `count` took so many seconds: about `SECONDS_IN_GRAPH` of them.

  At most eightfold, since the first iterations are slower than the others.
  """
  return max(1, min(8 * count, int(SECONDS_IN_GRAPH * count / seconds)))


def validation_score(means):
  """What to compare checkpoints by, as (metric, number; larger is better): the last step's accuracy, return or -loss.

  Args:
    means: metric name -> [steps + 1].
  """
  name = next((n for n in ("accuracy", "return", "loss") if n in means), None)
  if name is None:
    raise ValueError(f"evaluate: expected a metric accuracy, return or loss to choose by, got {', '.join(means)}")
  last = float(means[name][-1])
  return f"{name}/step_{len(means[name]) - 1}", -last if name == "loss" else last


def _all_finite(tensors):
  floating = (np.asarray(t) for t in tf.nest.flatten(tensors))
  return all(np.isfinite(array).all() for array in floating if np.issubdtype(array.dtype, np.floating))


def _specs(state):
  return tf.nest.map_structure(lambda t: tf.TensorSpec(t.shape, t.dtype), state)
