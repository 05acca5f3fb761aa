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
  """All published accuracies, a list of `Accuracy` in the order of the paper."""
  return [Accuracy(*key, cell.accuracy, cell.ci95, cell.step) for key, cell in images.TABLE_1.items()]


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
  """Method -> number of steps -> 5-shot mean squared error."""
  return sine.MSE
