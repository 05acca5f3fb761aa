"""Where a training stands: its state, and what is not part of it but has to go on exactly as well."""

import dataclasses
import math

import tensorflow as tf


@dataclasses.dataclass(frozen=True)
class Interval:
  """The metrics since the last row of metrics.csv, which one chunk, one process or several add up.

  Attributes:
    begun: the iteration of that row.
    length: iterations from there to the next row.
    means: metric name -> float32, the sum of the values so far, each divided by `length`; None: none yet.
    timed: iterations of this process among them.
    seconds: that those took.
  """

  begun: int
  length: int
  means: dict | None
  timed: int = 0
  seconds: float = 0.0

  def means_of(self, shapes):
    """The means to go on from, for metrics of these shapes; zeros where they are others than those there are."""
    if self.means is not None and set(self.means) == set(shapes):
      return {name: tf.constant(self.means[name], tf.float32, shape) for name, shape in shapes.items()}
    return {name: tf.zeros(shape) for name, shape in shapes.items()}

  def advanced(self, means, count, seconds):
    """After `count` more iterations, with which the means have become these."""
    means = {name: float(value) for name, value in means.items()}
    return Interval(self.begun, self.length, means, self.timed + count, self.seconds + seconds)

  def metrics(self):
    """The row: the means, and the seconds of an iteration."""
    return self.means | {"step_seconds": self.seconds / self.timed}

  def up_to(self, iteration):
    """The same with the next row at that iteration (None: never): another schedule may have moved it."""
    if iteration is None or iteration <= self.begun:
      return None
    length = iteration - self.begun
    if length == self.length:
      return self
    return Interval(self.begun, length, {n: v * self.length / length for n, v in self.means.items()})


@dataclasses.dataclass(frozen=True)
class Position:
  """A training after an iteration.

  Attributes:
    iteration: the last one.
    state: the learner's.
    best: {"iteration", "metric", "score"} of the best checkpoint by validation, or None.
    interval: the `Interval` that is not in metrics.csv yet, or None.
    validation_due: whether this iteration is still to be validated.
  """

  iteration: int
  state: dict
  best: dict | None = None
  interval: Interval | None = None
  validation_due: bool = False

  def metadata(self, config):
    """What a checkpoint holds beside the state, JSON-able; nothing of it depends on the clock."""
    metadata = {"iteration": self.iteration, "best": self.best, "config": config}
    if self.interval is not None:
      metadata["interval"] = {n: getattr(self.interval, n) for n in ("begun", "length", "means")}
    if self.validation_due:
      metadata["validation_due"] = True
    return metadata

  @classmethod
  def restored(cls, state, metadata):
    """From a checkpoint; fields that are not there, or not of their kind, are as in one of an older version."""
    iteration = metadata["iteration"]
    due = metadata.get("validation_due") is True
    return cls(iteration, state, _best(metadata.get("best")), _interval(metadata.get("interval"), iteration), due)


def _best(found):
  if not isinstance(found, dict) or not isinstance(found.get("metric"), str):
    return None
  return found if _is_whole(found.get("iteration")) and _is_finite(found.get("score")) else None


def _interval(found, iteration):
  """Without it, the next row is the mean of the iterations since the checkpoint."""
  if not isinstance(found, dict) or not isinstance(found.get("means"), dict):
    return None
  begun, length, means = found.get("begun"), found.get("length"), found["means"]
  if not _is_whole(begun) or not _is_whole(length) or not begun < iteration < begun + length:
    return None
  return Interval(begun, length, means) if all(map(_is_finite, means.values())) else None


def _is_whole(value):
  return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**31


def _is_finite(value):
  return isinstance(value, float) and math.isfinite(value)
