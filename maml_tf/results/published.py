"""Published numbers as tables and results files want them; where they are written down is said here alone."""

import dataclasses

from maml_tf.experiments.domains.images import published as images
from maml_tf.experiments.domains.policies import published as policies
from maml_tf.experiments.domains.sinusoid import published as sine


@dataclasses.dataclass(frozen=True)
class Accuracy:
  """A cell of a published table of test accuracies.

  Args:
    datasource, ways, shots, conv, first_order: the task and the network.
    accuracy: in [0, 1].
    ci95: half of the 95 % interval, likewise; None: not printed.
    step: number of gradient steps after which it is read; None: the method has none.
    method: who reached it.
    source: where it is printed.
  """

  datasource: str
  ways: int
  shots: int
  conv: bool
  first_order: bool
  accuracy: float
  ci95: float | None
  step: int | None
  method: str = "maml"
  source: str = images.TABLE

  @property
  def task(self):
    """What other methods share with it."""
    return self.datasource, self.ways, self.shots

  @property
  def settings(self):
    """The settings of a run that reproduces it, as `resolve` takes them, defaults included."""
    return {
      "num_classes": self.ways, "update_batch_size": self.shots, "conv": self.conv, "stop_grad": self.first_order,
    }  # fmt: skip


def accuracies():
  """The paper's own accuracies, a list of `Accuracy` in its order."""
  return [_accuracy(*key, cell=cell) for key, cell in images.TABLE_1.items()]


def accuracies_of_all():
  """Those of the paper's method, then those of the methods that it is compared with."""
  others = [
    _accuracy(*key, False, cell=cell, method=method)
    for method, cells in images.OF_OTHERS.items()
    for key, cell in cells.items()
  ]
  return [*accuracies(), *others]


def _accuracy(*key, cell, method="maml"):
  return Accuracy(*key, cell.accuracy, cell.ci95, cell.step, method, cell.source)


def step_of(config, shots):
  """Steps after which an accuracy is read: as MAML's, or as many as in training if more; None: the last."""
  task = config.datasource, config.num_classes, shots
  usual = next((cell.step for cell in accuracies() if cell.task == task), None)
  trained = config.num_updates if config.applies("num_updates") else 0
  return usual if usual is None else max(usual, trained)


def notes(datasource):
  """What differs between the protocols of published accuracies, lines of text."""
  return images.NOTES.get(datasource, ())


def of_config(config, shots):
  """{"accuracy", "step"} of the cell that a config reproduces, evaluated with `shots`; or None."""
  found = images.cell(config, shots)
  return None if found is None else {"accuracy": found.accuracy, "step": found.step}


def queries(datasource, shots):
  """Query images per class that a published cell appears to have been measured with."""
  return images.queries(datasource, shots)


def returns():
  """Data set -> method -> (returns after 0, 1, ... steps, their 95 % intervals)."""
  return policies.RETURNS


def sinusoid():
  """What the paper compares on sine waves, weakest first: (method, settings, steps -> 5-shot error or None) each."""
  averages = [("average", {"regulariser": r} if r != "none" else {}, e) for r, e in sine.MSE_OF_AVERAGES.items()]
  names = ("random", "pretrain", "context", "maml", "oracle")
  return averages + [(name, {}, sine.MSE.get(name)) for name in names]


def sinusoid_errors(config):
  """Steps -> 5-shot error of the method of a config; None: not printed."""
  return sine.mse(config)
