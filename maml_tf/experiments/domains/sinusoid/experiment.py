"""Sinusoid regression (Finn et al. 2017, section 5.1)."""

import tensorflow as tf

from maml_tf import evaluation, models, randomness, tasks, tracing
from maml_tf.algorithms.pretraining import search_step_size
from maml_tf.experiments import figures, report
from maml_tf.experiments.algorithms import make_algorithm, meta_optimizer
from maml_tf.experiments.domains.sinusoid import plots, published
from maml_tf.experiments.experiment import Experiment
from maml_tf.training.learner import SupervisedLearner

EVALUATION_SHOTS = (5, 10, 20)  # Finn et al. 2017, appendix: trained with 10, evaluated with 5, 10 and 20
# Step sizes of the baselines in training, near what tuning finds: only their validation curves depend on them.
UNTUNED_LR = {"pretrain": 0.01, "average": 0.01, "oracle": 0.0001, "random": 0.01}


class SinusoidExperiment(Experiment):
  """Everything about a run that is particular to sinusoids.

  Args:
    config: `Config`.
  """

  def __init__(self, config):
    super().__init__(config)
    self.oracle = config.method == "oracle"
    self.model = make_model(config)

  def learner(self, initial_weights=None, inner_lr=None):
    """The learner that the config names; `inner_lr` overrides the step size (tuned, for a baseline)."""
    config = self.config
    return SupervisedLearner(
      self.algorithm(self._step_size() if inner_lr is None else inner_lr),
      train_tasks=self._training_tasks(),
      eval_tasks=self._tasks(config.update_batch_size, config.eval_queries),
      meta_batch_size=config.meta_batch_size,
      optimizer=meta_optimizer(config),
      eval_updates=config.eval_updates,
      initial_weights=initial_weights,
      metadata={"config": config.portable()},
      task_chunk=config.task_chunk or None,
      stored_dtype=tf.float16 if config.export_half else None,
      export_bn_mode=config.export_bn_mode,
    )

  def algorithm(self, inner_lr):
    """The method's, on the squared error."""
    return make_algorithm(self.config, self.model, "mse", inner_lr)

  def example_specs(self):
    return self._tasks(1, 1).specs()

  def on_validation(self):
    """A callback that draws fits on held-out sine waves into TensorBoard, at every third validation and the last."""

    def draw(iteration, state, board):
      if iteration % (3 * self.schedule().validate_every) == 0 or iteration == self.config.iterations:
        figure = plots.fits_on_held_out(self, state["weights"], self._step_size())
        board.figure(iteration, "fits on held-out sine waves", figure)

    return draw

  def _step_size(self):
    config = self.config
    return UNTUNED_LR[config.method] if config.training_lr is None else config.training_lr

  def evaluate(self, weights):
    """Results for every number of shots: {"5": {"inner_lr", "mse": {"mean": [S + 1], "ci95": [S + 1]}}, ...}."""
    config = self.config
    split = "test" if config.test_set else "validation"
    results = {}
    for shots in sorted({*EVALUATION_SHOTS, config.update_batch_size}):
      losses = self._loss_function(weights, shots)
      rate, tried = config.update_lr if config.applies("update_lr") else None, {}
      if rate is None and config.applies("update_lr"):
        rate, tried = search_step_size(lambda size, losses=losses: losses(size, "validation"))
      summary = evaluation.summarise(losses(rate, split))
      results[str(shots)] = {"inner_lr": rate, "mse": {n: v.tolist() for n, v in summary.items()}}
      results[str(shots)] |= {"step_sizes_tried": tried} if tried else {}
    return results

  def inner_lr(self, results):
    """The step size to adapt with: the config's, or the one that `evaluate` tuned."""
    return results[str(self.config.update_batch_size)]["inner_lr"]

  def plots(self, weights, results, directory):
    """Writes the run's plots; returns their paths."""
    rate = self.inner_lr(results)
    return figures.save_all(
      {
        "fits": plots.fits_on_held_out(self, weights, rate),
        "mse": plots.mse_against_steps({self.config.method: results}),
      },
      directory,
    )

  def report(self, results):
    """A row for each number of shots, beside the published ones."""
    config = self.config
    rows = []
    for shots, result in results.items():
      mse = result["mse"]
      rate = "" if result["inner_lr"] is None else f", alpha {result['inner_lr']:g}"
      rows.append(report.Row(f"{shots:>2} shots{rate}", mse["mean"], mse["ci95"]))
      if shots == "5" and published.mse(config) is not None:
        rows.append(report.Row("   published (table 2)", published.mse(config)))
    title = (
      f"Mean squared error, {config.method}, {config.eval_tasks} {'test' if config.test_set else 'validation'} "
      f"tasks, {config.eval_queries} query points each, 95 % intervals"
    )
    has_steps = self.config.description.load().has_steps
    last = config.eval_updates if has_steps else 0
    steps = sorted({step for step in (0, 1, 5, 10, last) if step <= last})
    return report.Report(title, rows, steps, has_steps=has_steps)

  def fit(self, weights, inner_lr, shots, grid, index=0, half=None, steps=(0, 1, 10)):
    """One held-out sine wave and its fits after some numbers of steps.

    Args:
      weights: the initialisation.
      inner_lr: step size.
      shots: support points.
      grid: inputs [n] at which to predict.
      index: which of the held-out waves; the same ones for every method and seed of weights.
      half: None, "left" or "right", as in `tasks.Sinusoid`.
      steps: numbers of gradient steps.

    Returns:
      Dict of NumPy arrays: "support_x", "support_y" [shots], "truth" [n], and "fits": step -> [n] (step None: it
      takes none).
    """
    distribution = self._tasks(shots, 1, half)
    # A seed of the figure, not of the run: figures of different runs show the same waves.
    seed = randomness.fold(randomness.make_seed(0), "figure", index)
    amplitude, phase = distribution.sample_parameters(seed, 1)
    grid = tf.reshape(tf.cast(grid, tf.float32), [1, -1, 1])
    support = distribution.sample(seed, 1)
    query = distribution.batch(amplitude, phase, grid, grid)
    algorithm = self.algorithm(inner_lr)
    support_set = support.support_x, support.support_y

    def fitted(steps):
      task = algorithm.adapt_final(weights, *support_set, steps, randomness.make_seed(0))
      return algorithm.predict(task, query.query_x)[0, :, 0].numpy()

    return {
      "support_x": support.support_x[0, :, 0].numpy(),
      "support_y": support.support_y[0, :, 0].numpy(),
      "truth": query.query_y[0, :, 0].numpy(),
      "fits": {s: fitted(s) for s in (steps if algorithm.has_steps else (None,))},
    }

  def _training_tasks(self):
    """Fresh waves in every meta-batch; the same ones where each of them has a regressor of its own."""
    config, shots = self.config, self.config.training_shots
    if not config.applies("num_regressors"):
      return self._tasks(shots, shots)
    return tasks.Sinusoid(shots, shots, wave_seed=randomness.fold(randomness.make_seed(config.seed), "regressors"))

  def _tasks(self, num_support, num_query, half=None):
    return tasks.Sinusoid(num_support, num_query, half=half, oracle=self.oracle)

  def _loss_function(self, weights, shots):
    """(step size, split) -> losses [S + 1, tasks]."""
    config = self.config

    @tracing.function
    def evaluate(rate, seed):
      algorithm = self.algorithm(rate)
      return evaluation.evaluate_blocks(
        evaluation.of_algorithm(algorithm, weights, config.eval_updates),
        self._tasks(shots, config.eval_queries),
        seed,
        config.eval_tasks,
        config.task_chunk or None,
      )["loss"]

    root = randomness.make_seed(config.seed)
    return lambda rate, split: evaluate(tf.constant(rate or 0.0), randomness.fold(root, split))


def make_model(config):
  """The paper's network, 40-40 ReLU, on x, or on (x, amplitude, phase) for the oracle, or on x and a context."""
  inputs = 3 if config.method == "oracle" else 1
  return models.MLP(
    input_shape=(inputs + (config.context_size if config.applies("context_size") else 0),),
    norm=None if config.norm == "None" else config.norm,
    stddev=config.init_stddev,
    head=config.description.load().needs_head,
  )
