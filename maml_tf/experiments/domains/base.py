"""What the experiments know of a domain."""

import dataclasses
import importlib
from collections.abc import Callable


@dataclasses.dataclass(frozen=True)
class Domain:
  """A domain: its data or environments, the settings that it has, and where its experiment is. Imports no TensorFlow.

  Attributes:
    name: of its folder.
    kind: "regression", "classification", "policies" or "online": which methods fit.
    datasources: what `--datasource` can be, and the title of each in tables and figures: dict of name -> title.
    settings: names of the settings that it has, of those that a domain may have or lack.
    defaults: function (datasource, method, given settings) -> what it has in place of the settings' own defaults.
    check: function (config, require) that refuses what cannot be; `require(name, holds, expected)` raises.
    check_paths: function (config) that refuses missing data, within seconds.
    experiment: "module:Class" of an `Experiment`.
  """

  name: str
  kind: str
  datasources: dict
  settings: frozenset
  defaults: Callable
  check: Callable
  experiment: str
  check_paths: Callable = lambda config: None

  def load(self):
    """The class of its experiment."""
    module, _, name = self.experiment.partition(":")
    return getattr(importlib.import_module(module), name)
