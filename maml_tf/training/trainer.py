"""The meta-training loop, for any `Learner`."""

import dataclasses
import time
from collections.abc import Callable

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from maml_tf import evaluation, randomness
from maml_tf.errors import UserError
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
    on_validation: Callable | None = None,
    say=print,
  ):
    if jit_compile and not learner.compiles:
      raise UserError("--jit_compile: these tasks run Python code, which XLA cannot compile; use --jit_compile=False")
    self.learner, self.directory, self.schedule = learner, directory, schedule
    self.seed, self.config, self.say = seed, config or {}, say
    self.on_validation = on_validation
    self.checkpoints = CheckpointFolder(directory.checkpoints, warn=say)
    self.num_traces = 0
    self._tensorboard_enabled = tensorboard
    self._run_steps = tf.function(self._steps, jit_compile=jit_compile)
    self._evaluate = tf.function(learner.evaluate)

  def train(self):
    """Trains up to `schedule.iterations` and returns (state, info).

    Returns:
      The final state, and {"iteration", "seconds", "iterations_per_second", "resumed_from"}; the time is that of the
      loop with all its logging, without tracing and compiling.

    Raises:
      UserError: the loss or its gradient is not finite. The last good checkpoint is kept.
    """
    state, iteration, best = self._restore()
    logs = CsvLog(self.directory.metrics), CsvLog(self.directory.validation)
    for log in logs:
      log.rewind(iteration)
    board = TensorBoard(self.directory.events, self._tensorboard_enabled)
    try:
      return self._train(state, iteration, best, *logs, board)
    finally:
      for log in (*logs, board):
        log.close()

  def _train(self, state, first, best, metrics_log, validation_log, board):
    schedule, iteration = self.schedule, first
    board.hyperparameters({**self.config, "seed": self.seed})
    if first >= schedule.iterations:
      return state, {
        "iteration": first,
        "seconds": 0.0,
        "iterations_per_second": None,
        "resumed_from": first,
      }
    started = time.perf_counter()
    self._advance(state, iteration, 0)  # traces and compiles
    self._validate_all(state, num_tasks=1)
    compile_seconds = time.perf_counter() - started
    board.scalars(0, {"seconds": compile_seconds}, "compile")
    started = time.perf_counter()
    with tqdm(total=schedule.iterations, initial=first, unit="it", disable=None) as bar:
      while iteration < schedule.iterations:
        until = self._next_stop(iteration)
        began = time.perf_counter()
        state, metrics, done = self._advance(state, iteration, until - iteration)
        done = int(done)
        metrics = {name: float(value) for name, value in metrics.items()}
        if done < until - iteration or not np.isfinite(metrics["loss"]):
          raise UserError(self._not_finite(iteration + done, board, metrics_log))
        metrics["step_seconds"] = (time.perf_counter() - began) / (until - iteration)
        iteration = until
        bar.update(until - bar.n)
        if iteration % schedule.log_every == 0 or iteration == schedule.iterations:
          bar.set_postfix(loss=f"{metrics['loss']:.4g}", refresh=False)
          metrics_log.write(iteration, metrics)
          board.scalars(iteration, metrics, "train")
        if iteration % schedule.validate_every == 0 or iteration == schedule.iterations:
          best = self._validate(state, iteration, best, validation_log, board)
        if iteration % schedule.checkpoint_every == 0 or iteration == schedule.iterations:
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

  def _advance(self, state, first, count):
    # Tensors, not Python integers: `tf.function` would trace anew for every integer.
    return self._run_steps(state, tf.constant(first), tf.constant(count))

  def _steps(self, state, first, count):
    """`count` meta-iterations after `first`: (state, mean metrics, number that were finite)."""
    self.num_traces += 1
    seed = randomness.fold(randomness.make_seed(self.seed), "train")
    step = tf.function(self.learner.train_step).get_concrete_function(_specs(state), tf.TensorSpec([2], tf.int32))
    sums = tf.nest.map_structure(lambda t: tf.zeros(t.shape, t.dtype), dict(step.structured_outputs[1]))

    def body(done, finite, state, sums):
      new_state, metrics = step(state, randomness.fold(seed, first + done + 1))
      finite = tf.reduce_all([tf.math.is_finite(value) for value in metrics.values()])
      sums = {name: sums[name] + metrics[name] for name in sums}
      return done + tf.cast(finite, tf.int32), finite, new_state, sums

    done, _, state, sums = tf.while_loop(
      lambda done, finite, *_: tf.logical_and(finite, done < count), body, (0, True, state, sums)
    )
    scale = tf.cast(tf.maximum(done, 1), tf.float32)
    return state, {n: value / tf.cast(scale, value.dtype) for n, value in sums.items()}, done

  def _validate(self, state, iteration, best, log, board):
    results = self._validate_all(state, self.schedule.validation_tasks)
    means = {name: evaluation.summarise(values)["mean"] for name, values in results.items()}
    values = {f"{n}/step_{k}": m for n, mean in means.items() for k, m in enumerate(mean)}
    log.write(iteration, values)
    board.scalars(iteration, values, "validation")
    if self.on_validation is not None:
      self.on_validation(iteration, state, board)
    score = validation_score(means)
    if best is None or score > best["score"]:
      best = {"iteration": iteration, "score": score}
      self.checkpoints.save_best(state, self._metadata(iteration, best))
    return best

  def _validate_all(self, state, num_tasks):
    seed = randomness.fold(randomness.make_seed(self.seed), "validation")
    return self._evaluate(state, seed, tf.constant(num_tasks))

  def _restore(self):
    state = self.learner.initial_state(self.seed)
    loaded = self.checkpoints.load()
    if loaded is None:
      return state, 0, None
    saved, metadata = loaded
    tf.nest.assert_same_structure(state, saved)
    self.say(f"resuming from iteration {metadata['iteration']}")
    return saved, metadata["iteration"], metadata["best"]

  def _next_stop(self, iteration):
    """The next iteration at which Python has something to do."""
    every = (self.schedule.log_every, self.schedule.validate_every, self.schedule.checkpoint_every)
    return min(self.schedule.iterations, *(iteration - iteration % n + n for n in every))

  def _metadata(self, iteration, best):
    return {"iteration": iteration, "best": best, "config": self.config}

  def _not_finite(self, last_good, board, log):
    board.flush()
    log.close()
    kept = self.checkpoints.iterations()
    kept = f"the checkpoint of iteration {kept[-1]} is kept" if kept else "there is no checkpoint yet"
    return (
      f"the loss or its gradient became infinite or NaN at meta-iteration {last_good + 1}; {kept}. "
      "A smaller --update_lr or --meta_lr usually helps"
    )


def validation_score(means):
  """One number to compare checkpoints by, larger is better: the last step's accuracy or return, or minus its loss."""
  for name in ("accuracy", "return"):
    if name in means:
      return float(means[name][-1])
  return -float(means["loss"][-1])


def _specs(state):
  return tf.nest.map_structure(lambda t: tf.TensorSpec(t.shape, t.dtype), state)
