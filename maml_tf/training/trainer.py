"""The meta-training loop, for any `Learner`."""

import dataclasses
import math
import time
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from maml_tf import evaluation, progress, randomness, tracing
from maml_tf.errors import DivergedError, UserError
from maml_tf.training.checkpoints import CheckpointFolder
from maml_tf.training.logging import CsvLog, TensorBoard


@dataclasses.dataclass(frozen=True)
class Schedule:
  """How long to train, and how often Python looks in. All in meta-iterations, counted from 1."""

  iterations: int
  log_every: int = 100
  validate_every: int = 1000
  checkpoint_every: int = 1000
  validation_tasks: int = 600


class Trainer:
  """Trains a learner in a run directory, from its newest checkpoint.

  Meta-iteration i samples from the seed folded with i, so a resumed run, or one that is logged or validated more
  often, sees the same tasks.

  Args:
    learner: a `Learner`.
    directory: `RunDirectory`, locked by the caller.
    seed: Python integer, the run's seed.
    schedule: `Schedule`.
    config: JSON-able dict, kept in every checkpoint.
    jit_compile: compile the loop with XLA.
    tensorboard: write event files.
    on_start: function (iteration), called before training goes on from there, where there is something left to train.
    on_validation: function (iteration, state, tensorboard), called after every validation.
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
    say=print,
  ):
    if jit_compile and not getattr(learner, "compiles", True):
      raise UserError("jit_compile=True: these tasks run Python code, which XLA cannot compile; use jit_compile=False")
    self.learner, self.directory, self.schedule = learner, directory, schedule
    self.seed, self.config, self.say = seed, config or {}, say
    self.on_start, self.on_validation = on_start, on_validation
    self.checkpoints = CheckpointFolder(directory.checkpoints, warn=say)
    self.num_traces = 0
    self._tensorboard_enabled = tensorboard
    self._run_steps = tracing.function(self._steps, jit_compile=jit_compile)
    self._evaluate = tracing.function(learner.evaluate)

  def train(self):
    """Trains up to `schedule.iterations` and returns (state, info).

    Returns:
      The final state, and {"iteration", "seconds", "iterations_per_second", "resumed_from"}; the time is that of the
      loop with all its logging, without tracing and compiling.

    Raises:
      DivergedError: the loss, its gradient or a weight is not finite. The last good checkpoint is kept.
    """
    state, first, best = self._restore()
    if first >= self.schedule.iterations:
      return state, {"iteration": first, "seconds": 0.0, "iterations_per_second": None, "resumed_from": first}
    self.on_start(first)
    self.checkpoints.rewind(first)
    logs = CsvLog(self.directory.metrics), CsvLog(self.directory.validation)
    for log in logs:
      log.rewind(first)
    board = TensorBoard(self.directory.events, self._tensorboard_enabled)
    try:
      return self._train(state, first, best, *logs, board)
    finally:
      for log in (*logs, board):
        log.close()

  def _train(self, state, first, best, metrics_log, validation_log, board):
    schedule, iteration = self.schedule, first
    board.hyperparameters({**self.config, "seed": self.seed})
    compile_seconds = self._compile(state, first)
    board.scalars(first, {"seconds": compile_seconds}, "compile")
    started = time.perf_counter()
    with progress.bar(total=schedule.iterations, initial=first, unit="it") as bar:
      while iteration < schedule.iterations:
        until = self._next_stop(iteration)
        state, metrics = self._chunk(state, iteration, until)
        bar.update(until - iteration)
        iteration = until
        if self._due(iteration, schedule.log_every):
          bar.set_postfix(loss=f"{metrics['loss']:.4g}", refresh=False)
          metrics_log.write(iteration, metrics)
          board.scalars(iteration, metrics, "train")
        if self._due(iteration, schedule.validate_every):
          best = self._validate(state, iteration, best, validation_log, board)
        if self._due(iteration, schedule.checkpoint_every):
          self.checkpoints.save(state, self._metadata(iteration, best))
          board.flush()
    seconds = time.perf_counter() - started
    return state, {
      "iteration": iteration,
      "seconds": seconds,
      "compile_seconds": compile_seconds,
      "iterations_per_second": (iteration - first) / seconds,
      "resumed_from": first,
    }

  def _compile(self, state, first):
    """Traces and compiles what the loop needs; returns the seconds that it took."""
    started = time.perf_counter()
    self._advance(state, first, 0)
    self._validate_all(state, num_tasks=1)
    return time.perf_counter() - started

  def _chunk(self, state, first, until):
    """The meta-iterations after `first` up to `until`: (state, mean metrics as floats)."""
    began = time.perf_counter()
    state, metrics, done = self._advance(state, first, until - first)
    if int(done) < until - first:
      raise DivergedError(self._not_finite(f"at meta-iteration {first + int(done) + 1}"))
    if not _all_finite(state.get("weights", {})):  # of a learner whose metrics do not tell
      raise DivergedError(self._not_finite(f"between meta-iterations {first + 1} and {until}"))
    metrics = {name: float(value) for name, value in metrics.items()}
    return state, metrics | {"step_seconds": (time.perf_counter() - began) / (until - first)}

  def _advance(self, state, first, count):
    # Tensors, not Python integers: `tf.function` would trace anew for every integer.
    return self._run_steps(state, tf.constant(first), tf.constant(count))

  def _steps(self, state, first, count):
    """`count` meta-iterations after `first`: (state, mean metrics, number that were finite)."""
    self.num_traces += 1
    seed = randomness.fold(randomness.make_seed(self.seed), "train")
    step = tracing.function(self.learner.train_step).get_concrete_function(_specs(state), tf.TensorSpec([2], tf.int32))
    means = {name: tf.zeros(t.shape) for name, t in step.structured_outputs[1].items()}

    def body(done, finite, state, means):
      new_state, metrics = step(state, randomness.fold(seed, first + done + 1))
      metrics = {name: tf.cast(value, tf.float32) for name, value in metrics.items()}
      finite = tf.reduce_all([tf.math.is_finite(value) for value in metrics.values()])
      # Divided before they are added: a sum of large losses must not overflow where none of them is infinite.
      means = {name: means[name] + metrics[name] / tf.cast(count, tf.float32) for name in means}
      return done + tf.cast(finite, tf.int32), finite, new_state, means

    done, _, state, means = tf.while_loop(
      lambda done, finite, *_: tf.logical_and(finite, done < count), body, (0, True, state, means)
    )
    return state, means, done

  def _validate(self, state, iteration, best, log, board):
    results = self._validate_all(state, self.schedule.validation_tasks)
    with np.errstate(all="ignore"):  # a validation that diverges is for the curves to show
      means = {name: evaluation.summarise(values)["mean"] for name, values in results.items()}
    values = {f"{n}/step_{k}": m for n, mean in means.items() for k, m in enumerate(mean)}
    log.write(iteration, values)
    board.scalars(iteration, values, "validation")
    if self.on_validation is not None:
      self.on_validation(iteration, state, board)
    metric, score = validation_score(means)
    metric += getattr(self.learner, "validation_protocol", "")
    # A score that is NaN would stay the best for ever; one of another metric (other --eval_updates) does not compare.
    better = best is None or best.get("metric") != metric or score > best["score"]
    if better and math.isfinite(score):
      best = {"iteration": iteration, "metric": metric, "score": score}
      self.checkpoints.save_best(state, self._metadata(iteration, best))
    return best

  def _validate_all(self, state, num_tasks):
    seed = randomness.fold(randomness.make_seed(self.seed), "validation")
    return self._evaluate(state, seed, tf.constant(num_tasks))

  def _restore(self):
    state = self.learner.initial_state(self.seed)
    loaded = self.checkpoints.load(like=state)
    if loaded is None:
      return state, 0, None
    saved, metadata = loaded
    finished = metadata["iteration"] >= self.schedule.iterations
    self.say(f"{'already trained to' if finished else 'resuming from'} iteration {metadata['iteration']}")
    # Where the file is not there any more (a run that was copied without it), the next validation writes one.
    best = metadata["best"] if self.checkpoints.best_path.exists() else None
    return saved, metadata["iteration"], best

  def _next_stop(self, iteration):
    """The next iteration at which Python has something to do."""
    every = (self.schedule.log_every, self.schedule.validate_every, self.schedule.checkpoint_every)
    return min(self.schedule.iterations, *(iteration - iteration % n + n for n in every))

  def _due(self, iteration, every):
    return iteration % every == 0 or iteration == self.schedule.iterations

  def _metadata(self, iteration, best):
    return {"iteration": iteration, "best": best, "config": self.config}

  def _not_finite(self, when):
    kept = self.checkpoints.iterations()
    kept = f"the checkpoint of iteration {kept[-1]} is kept" if kept else "there is no checkpoint yet"
    return (
      f"the loss or its gradient became infinite or NaN {when}; {kept}. "
      "Smaller steps of the inner loop, or of the outer one, usually help"
    )


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
