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
    lacks: names of settings that all domains have but this one, where they would mean nothing.
  """

  name: str
  kind: str
  datasources: dict
  settings: frozenset
  defaults: Callable
  check: Callable
  experiment: str
  check_paths: Callable = lambda config: None
  lacks: frozenset = frozenset()

  def has(self, setting):
    """Whether a `Setting` means anything here."""
    return (not setting.of_domain or setting.name in self.settings) and setting.name not in self.lacks

  def load(self):
    """The class of its experiment."""
    module, _, name = self.experiment.partition(":")
    return getattr(importlib.import_module(module), name)
