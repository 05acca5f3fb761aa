"""What MAML meta-learns, by kind."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple


class MetaParameters(NamedTuple):
  """What MAML meta-learns, by kind; each a dict of name -> tensor.

  Optimisers, checkpoints and artefacts know one flat dict. There, the names of all but the model's weights begin with
  `inner_lr/`, `statistics/` and `training/`; only `of` and `flat` know that.

  Attributes:
    model: the network's weights.
    step_sizes: learned step sizes, by the weight that they are for.
    statistics: of the normalisation: running ones, or those of a support set.
    training: what training alone needs and adapting ignores, such as a count of meta-iterations.
  """

  model: dict
  step_sizes: dict
  statistics: dict
  training: Mapping = MappingProxyType({})

  @classmethod
  def of(cls, weights):
    """From a flat dict."""
    kinds = {"inner_lr/": {}, "statistics/": {}, "training/": {}, "": {}}  # every name begins with the last
    for name, value in weights.items():
      prefix = next(p for p in kinds if name.startswith(p))
      kinds[prefix][name.removeprefix(prefix)] = value
    return cls(kinds.pop(""), *kinds.values())

  def flat(self):
    """One dict of all."""
    others = {"inner_lr": self.step_sizes, "statistics": self.statistics, "training": self.training}
    return self.model | {f"{kind}/{n}": v for kind, values in others.items() for n, v in values.items()}
