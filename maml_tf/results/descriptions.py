"""What tables and figures call a data set and a method, how a method is chosen, and where it stands in a table.

A new one needs no line here: without a description it goes by its own name.
"""

from maml_tf.experiments.domains import DATASOURCES
from maml_tf.experiments.methods import METHODS

# Methods that the paper compares with and that are not here.
_OTHERS = {
  "platipus": "PLATIPUS",
  "bmaml": "Bayesian MAML",
}


def data_set(name):
  """Title of a data set or of a reinforcement-learning task."""
  return DATASOURCES[name].datasources[name] if name in DATASOURCES else name


def title(method):
  """Title of a method; one outside of the package, "module:Class", goes by its class."""
  return METHODS[method].title if method in METHODS else _OTHERS.get(method, method.rpartition(":")[2])


def settings(method):
  """The settings that choose a method, as `resolve` takes them."""
  if method == "maml":
    return {}
  return {METHODS[method].flag if method in METHODS else "learner": method}


def rank(method):
  """Where a method stands in a table: as METHODS has them, from the weakest to the strongest; others at the end."""
  return list(METHODS).index(method) if method in METHODS else len(METHODS)
