"""What `run` knows of a domain's experiment."""

from maml_tf.training.trainer import Schedule


class Experiment:
  """Everything about a run that is particular to its domain. It is made from a `Config` and has its network as `model`.

  Attributes:
    evaluates_best: whether the best checkpoint by validation is evaluated and exported, rather than the last.
  """

  evaluates_best = False

  def __init__(self, config):
    self.config = config

  def algorithm(self, inner_lr):
    """What the config trains, with that step size: it has `initial_weights` and `optional_names`."""
    raise NotImplementedError

  def fresh_weights(self):
    """(weights before training, names of those that an artefact to start from may lack)."""
    algorithm = self.algorithm(self.config.update_lr or 0.0)
    weights = algorithm.initial_weights(0)
    return weights, algorithm.optional_names(weights)

  def example_specs(self):
    """`TaskBatch` of `tf.TensorSpec` of one task, [n, ...], with n free."""
    raise NotImplementedError

  def learner(self, initial_weights=None, inner_lr=None):
    """The `Learner`; `inner_lr` overrides the config's step size."""
    raise NotImplementedError

  def evaluate(self, weights):
    """The results, a JSON-able dict."""
    raise NotImplementedError

  def evaluate_state(self, state):
    """The results of a learner's whole state, where they are not those of its weights alone."""
    return self.evaluate(state["weights"])

  def plots(self, weights, results, directory):
    """Writes plots into the folder and returns their paths."""
    raise NotImplementedError

  def report(self, results):
    """The `report.Report` of results, beside the published ones."""
    raise NotImplementedError

  def load_data(self):
    """Loads what training and evaluation need, so that bad data is refused before the run directory is touched."""

  def data_summary(self):
    """Lines of text about the data that is loaded."""
    return []

  def data_fingerprint(self):
    """A text that tells the training data apart where the datasource alone does not; None where it does."""
    return None

  def schedule(self):
    """The trainer's `Schedule`."""
    config = self.config
    return Schedule(
      config.iterations, config.log_every, config.validate_every, config.checkpoint_every, config.validation_tasks
    )

  def on_validation(self):
    """A function (iteration, state, tensorboard) that the trainer calls after every validation, or None."""
    return None

  def inner_lr(self, results):
    """The step size of the exported artefact."""
    del results
    return self.config.update_lr

  def close(self):
    """Ends what the experiment began."""
