"""Published numbers as tables and results files want them; where they are written down is said here alone."""

import dataclasses

from maml_tf.experiments import presets


@dataclasses.dataclass(frozen=True)
class Accuracy:
  """A cell of a published table of test accuracies.

  Args:
    datasource, ways, shots, conv, first_order: the task and the network.
    method: who reached it.
    accuracy: in [0, 1].
    ci95: half of the 95 % interval, in %.
    step: number of gradient steps after which it is read; None: the method has none.
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
  def settings(self):
    """The settings of a run that reproduces it, as `resolve` takes them (what is a default included)."""
    return {
      "num_classes": self.ways,
      "update_batch_size": self.shots,
      "conv": self.conv,
      "stop_grad": self.first_order,
    }


def accuracies():
  """All published accuracies, a list of `Accuracy` in the order of the paper."""
  return [
    Accuracy(*key, accuracy, presets.PUBLISHED_IMAGES_CI95[key], step)
    for key, (accuracy, step) in presets.PUBLISHED_IMAGES.items()
  ]


def of_config(config, shots):
  """{"accuracy", "step"} of the cell that a config reproduces, evaluated with `shots`; or None."""
  found = presets.published_accuracy(config, shots)
  return None if found is None else {"accuracy": found[0], "step": found[1]}


def queries(datasource, shots):
  """Query images per class that a published cell appears to have been measured with."""
  return presets.published_queries(datasource, shots)


def returns():
  """Data set -> method -> (returns after 0, 1, ... steps, their 95 % intervals)."""
  return presets.PUBLISHED_RETURNS


def sinusoid():
  """Method -> number of steps -> 5-shot mean squared error."""
  return presets.PUBLISHED_SINUSOID
