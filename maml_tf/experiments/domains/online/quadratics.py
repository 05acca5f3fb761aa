"""Walks through the strongly convex example, where regret is known."""

import functools

import keras
import numpy as np
import tensorflow as tf

from maml_tf import models, tasks
from maml_tf.experiments import figures, report
from maml_tf.experiments.domains.online import plots
from maml_tf.experiments.domains.online.experiment import OnlineExperiment
from maml_tf.losses import mse
from maml_tf.online import Stream, UpdateProcedure, metrics, quadratics
from maml_tf.training import optimizers

REGRET_POINTS = 100


class QuadraticsExperiment(OnlineExperiment):
  """Everything about a run that is particular to the strongly convex example.

  Args:
    config: `Config`.
  """

  def __init__(self, config):
    super().__init__(config)
    self.model = linear_model()

  @functools.cached_property
  def tasks(self):
    return quadratics.draw(self.config.num_tasks, self.config.seed)

  @functools.cached_property
  def stream(self):
    return Stream(sequence_of(self.tasks))

  def algorithm(self, inner_lr):
    return UpdateProcedure(self.base(half_squared_error, inner_lr), self.grad_steps)

  def optimizer(self):
    return optimizers.SGD(self.config.meta_lr)

  def sampling(self):
    return dict(meta_batch_size=None, inner_batch=quadratics.DIMENSIONS, pays_first=True)

  def measured(self, found, arrived):
    if not len(found["loss"]):
      return {"rounds": [], "regret": []}
    seen = quadratics.Quadratics(*(values[arrived] for values in self.tasks))
    steps = self.config.update_lr if self.config.applies("update_lr") else quadratics.ALPHA
    regret = metrics.regret(found["loss"][:, 0], seen.stepped(steps).smallest_sums())
    rounds = np.unique(np.geomspace(1, len(regret), REGRET_POINTS).astype(int).tolist() + _marks(len(regret)))
    return {"rounds": rounds.tolist(), "regret": np.round(regret[rounds - 1], 6).tolist()}

  def plots(self, weights, results, directory):
    del weights
    if not results["tasks"]:
      return []
    return figures.save_all(
      {"regret": plots.regret([plots.Curve(self.config.description.title, self.config.method, [results])])}, directory
    )

  def report(self, results):
    """The regret after 10, 100, ... rounds."""
    title = f"Cumulative regret, quadratics, {self.config.description.title}, against the best initialisation"
    regret = dict(zip(results["rounds"], results["regret"], strict=True))
    rows = [report.Row(f"after {n:,} tasks", words=f"{regret[n]:.2f}") for n in _marks(results["tasks"])]
    return report.Report(title, rows, [])


def _marks(rounds):
  """The numbers of rounds that a table has, and the last one."""
  return sorted({n for n in (10, 100, 1000, 3000, rounds) if 0 < n <= rounds})


def half_squared_error(labels, outputs):
  """(y - x w)^2 / 2: with the examples of a quadratic, its value is f(w)."""
  return mse(labels, outputs) / 2


def linear_model():
  """w, from zero: what a quadratic is a function of."""
  layer = keras.layers.Dense(1, use_bias=False, kernel_initializer="zeros", name="w")
  return models.from_keras(keras.Sequential([keras.Input([quadratics.DIMENSIONS]), layer]))


def sequence_of(drawn, dtype=tf.float32):
  """The `TaskSequence` of `Quadratics`: each arrives at once, and is judged by what it is."""
  x, y = (values.astype(tf.as_dtype(dtype).as_numpy_dtype) for values in drawn.examples())
  return tasks.TaskSequence(x, y, x, y, quadratics.DIMENSIONS)
