"""What tables and figures call a data set and a method, and the settings that train one.

A new one needs no line here: without a title it goes by its own name.
"""

import dataclasses

# In the order in which tables list them.
_METHODS = {
  "maml": ("MAML", "tab:blue"),
  "anil": ("ANIL", "tab:green"),
  "metasgd": ("Meta-SGD", "tab:purple"),
  "reptile": ("Reptile", "tab:orange"),
  "pretrain": ("pretrained on all tasks", "tab:red"),
  "random": ("random initialisation", "tab:gray"),
  "oracle": ("oracle", "black"),
}
_BASELINES = ("pretrain", "random", "oracle")
_DATA_SETS = {
  "omniglot": "Omniglot",
  "miniimagenet": "miniImageNet",
  "point": "2D navigation",
  "cheetah_vel": "HalfCheetah, velocity",
  "cheetah_dir": "HalfCheetah, direction",
  "ant_vel": "Ant, velocity",
  "ant_dir": "Ant, direction",
}


@dataclasses.dataclass(frozen=True)
class Method:
  """A way to train: its title, its colour in figures, the settings that choose it, its place in a table."""

  title: str
  colour: str | None
  settings: dict
  rank: int


def method(name):
  """`Method` of the name that a run directory and a results file have."""
  title, colour = _METHODS.get(name, (name, None))
  rank = list(_METHODS).index(name) if name in _METHODS else len(_METHODS)
  if name == "maml":
    return Method(title, colour, {}, rank)
  return Method(title, colour, {"baseline" if name in _BASELINES else "learner": name}, rank)


def data_set(name):
  """Title of a data set or of a reinforcement-learning task."""
  return _DATA_SETS.get(name, name)
