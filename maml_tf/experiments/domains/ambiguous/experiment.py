"""What a method makes of points that may be of a sine wave or of a line: several hypotheses, judged together."""

import math

import numpy as np
import tensorflow as tf

from maml_tf import evaluation, randomness, tasks, tracing
from maml_tf.experiments import figures, report
from maml_tf.experiments.domains.ambiguous import plots
from maml_tf.experiments.domains.sinusoid.experiment import SinusoidExperiment
from maml_tf.tasks.sine_or_line import NOISE

GRID = np.linspace(-5.0, 5.0, 101, dtype=np.float32)
# Name in results -> what it is. Errors are squared, in the query points, which are noisy: no error is below 0.09.
MEASURES = {
  "best": "error of the best hypothesis",
  "one": "error of one hypothesis",
  "mean": "error of their mean",
  "negative_log_likelihood": "negative log-likelihood of a point",
  "coverage": "readings covered, of 2",
}


class AmbiguousExperiment(SinusoidExperiment):
  """Everything about a run that is particular to sine waves and lines.

  Args:
    config: `Config`.
  """

  evaluation_shots = ()

  def evaluate(self, weights):
    """As of sine waves, of one hypothesis, and with "hypotheses": name of `MEASURES` -> {"mean", "ci95"}, one each."""
    results = super().evaluate(weights)
    split = "test" if self.config.test_set else "validation"
    seed = randomness.fold(randomness.make_seed(self.config.seed), split)
    for shots, result in results.items():
      measured = self._judge(weights, result["inner_lr"], int(shots), seed)
      summaries = {name: evaluation.summarise(values) for name, values in measured.items()}
      result["hypotheses"] = {n: {k: v.tolist() for k, v in s.items()} for n, s in summaries.items()}
    return results

  def _judge(self, weights, rate, shots, seed):
    """Name of `MEASURES` -> [1, tasks]."""
    config, algorithm = self.config, self.algorithm(rate)

    @tracing.function
    def judged(seed):
      def of_batch(batch, noise):
        grid = tf.broadcast_to(tf.constant(GRID)[tf.newaxis, :, tf.newaxis], [batch.query_x.shape[0], len(GRID), 1])
        x = tf.concat([batch.query_x, grid], axis=1)
        outputs = self._hypotheses(algorithm, weights, batch, x, noise)
        return judge(outputs[:, :, : config.eval_queries], batch.query_y, outputs[:, :, config.eval_queries :])

      return evaluation.evaluate_blocks(of_batch, self._tasks(shots, config.eval_queries), seed, config.eval_tasks)

    return judged(seed)

  def _hypotheses(self, algorithm, weights, batch, x, noise):
    """Outputs at x of what the method takes for possible: [S, T, n, 1]; one, of a method that knows but one."""
    steps = self.config.eval_updates
    if hasattr(algorithm, "hypotheses"):
      return algorithm.hypotheses(weights, batch.support_x, batch.support_y, x, steps, noise, self.config.hypotheses)
    task = algorithm.adapt_final(weights, batch.support_x, batch.support_y, steps, noise)
    return algorithm.predict(task, x)[tf.newaxis]

  def on_validation(self):
    return None

  def plots(self, weights, results, directory):
    """Writes the run's plots; returns their paths."""
    drawn = {"hypotheses": plots.hypotheses({self.config.method: self.sampled(weights, self.inner_lr(results))})}
    return figures.save_all(drawn, directory)

  def sampled(self, weights, rate, num_tasks=4):
    """Hypotheses of held-out tasks: dict of NumPy arrays "support_x", "support_y" [T, K], "truth" [T, G], "fits"
    [S, T, G]."""
    seed = randomness.fold(randomness.make_seed(0), "figure")  # of the figure: all runs show the same tasks
    distribution = self._tasks(self.config.update_batch_size, 1)
    batch = distribution.sample(seed, num_tasks)
    x = tf.broadcast_to(tf.constant(GRID)[tf.newaxis, :, tf.newaxis], [num_tasks, len(GRID), 1])
    fits = self._hypotheses(self.algorithm(rate), weights, batch, x, seed)
    truth = distribution.sample_curves(seed, num_tasks)(x)
    found = {"support_x": batch.support_x, "support_y": batch.support_y, "truth": truth, "fits": fits}
    return {name: values[..., 0].numpy() for name, values in found.items()}

  def report(self, results):
    """As of sine waves, with a line for each measure of the hypotheses."""
    made = super().report(results)
    measured = results[str(self.config.update_batch_size)]["hypotheses"]
    notes = [
      f"{text:38} {measured[name]['mean'][0]:.3f} ± {measured[name]['ci95'][0]:.3f}" for name, text in MEASURES.items()
    ]
    heading = f"Hypotheses from {self.config.update_batch_size} points, after {self.config.eval_updates} steps:"
    return report.Report(made.title, made.rows, made.steps, ["", heading, *notes], made.has_steps)

  def _training_tasks(self):
    shots = self.config.training_shots
    return self._tasks(shots, shots)

  def _tasks(self, num_support, num_query, half=None):
    del half
    return tasks.SineOrLine(num_support, num_query)


def judge(outputs, labels, on_grid):
  """What hypotheses are worth together.

  A hypothesis reads the points as a line where it departs from its own best line by less than the noise does, in the
  mean square over the grid, and as a wave otherwise. The likelihood is that of all query points under the mixture of
  the hypotheses, each with the noise of the task.

  Args:
    outputs: [S, T, n, 1], at the query points.
    labels: [T, n, 1].
    on_grid: [S, T, G, 1], at `GRID`.

  Returns:
    Name of `MEASURES` -> [1, T].
  """
  squared = (outputs - labels) ** 2
  errors = tf.reduce_mean(squared, axis=[2, 3])  # [S, T]
  points = labels.shape[1]
  log_likelihood = -0.5 * tf.reduce_sum(squared, axis=[2, 3]) / NOISE**2
  log_likelihood -= points * math.log(NOISE * math.sqrt(2 * math.pi))
  mixture = tf.reduce_logsumexp(log_likelihood, axis=0) - math.log(outputs.shape[0])
  is_line = _away_from_a_line(on_grid[..., 0]) < NOISE**2
  readings = tf.reduce_any(is_line, axis=0), tf.reduce_any(~is_line, axis=0)
  measured = {
    "best": tf.reduce_min(errors, axis=0),
    "one": tf.reduce_mean(errors, axis=0),
    "mean": tf.reduce_mean((tf.reduce_mean(outputs, axis=0) - labels) ** 2, axis=[1, 2]),
    "negative_log_likelihood": -mixture / points,
    "coverage": tf.add_n([tf.cast(reading, outputs.dtype) for reading in readings]),
  }
  return {name: values[tf.newaxis] for name, values in measured.items()}


def _away_from_a_line(values):
  """Mean squared distance of [S, T, G] to the line of least squares over `GRID`, whose mean is 0: [S, T]."""
  grid = tf.constant(GRID, values.dtype)
  slope = tf.reduce_sum(values * grid, axis=-1) / tf.reduce_sum(grid**2)
  return tf.math.reduce_variance(values, axis=-1) - slope**2 * tf.reduce_mean(grid**2)
