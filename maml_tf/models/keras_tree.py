"""The tree of a Keras model's layers: stable names of its variables, and their values as drawn anew."""

import dataclasses
import inspect
import re
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from maml_tf.models import explicit

NORMALISATION = tuple(
  getattr(keras.layers, name)
  for name in ("BatchNormalization", "LayerNormalization", "GroupNormalization", "RMSNormalization")
  if hasattr(keras.layers, name)  # Keras gained the last one in version 3.9
)

BASE_CONFIG = ("name", "trainable", "dtype")


@dataclasses.dataclass(frozen=True, eq=False)
class Owned:
  """A variable and the layer it belongs to. (Keras would track a bare one, were it an attribute of the wrapper.)"""

  variable: Any
  layer: Any


def named_variables(model):
  """Dict of stable name -> `Owned`, over the whole tree of layers."""
  named = {}
  for path, layer in walk(model):
    variables = _own_variables(layer)
    for name, variable in zip(_stable_names(variables), variables, strict=True):
      named[path + name] = Owned(variable, layer)
  return named


def lookup_tables(model):
  """The tables of a model's vocabularies (`StringLookup` and the like)."""
  return [
    value
    for _, layer in walk(model)
    for value in vars(layer).values()
    if isinstance(
      value, tf.lookup.experimental.MutableHashTable | tf.lookup.StaticHashTable | tf.lookup.StaticVocabularyTable
    )
  ]


def _own_variables(layer):
  return layer._trainable_variables + layer._non_trainable_variables


def walk(layer, path="", seen=None):
  """(path, layer) for every layer of the tree, each once."""
  seen = set() if seen is None else seen
  seen.add(id(layer))
  yield path, layer
  children = list(layer._layers)
  for name, child in zip(_stable_names(children), children, strict=True):
    if id(child) not in seen:
      yield from walk(child, f"{path}{name}/", seen)


def _stable_names(siblings):
  """Names of layers or variables that are the same in every process, each different.

  Keras numbers the unnamed ones by a counter of the process. Here they are numbered among their siblings instead.
  """
  names, counts = [], {}
  for sibling in siblings:
    name = sibling.name
    kind = keras.src.utils.naming.to_snake_case(type(sibling).__name__)
    # `Bidirectional` puts a direction before the name of the layer that it copies.
    automatic = re.fullmatch(rf"((?:forward_|backward_)?{kind})(_\d+)?", name)
    if automatic:
      name = f"{automatic[1]}_{counts.get(automatic[1], 0)}"
      counts[automatic[1]] = counts.get(automatic[1], 0) + 1
    unique, number = name, 1
    while unique in names:
      unique, number = f"{name}_{number}", number + 1
    names.append(unique)
  return names


def rebuilt(named, layer, seed):
  """Dict of name -> fresh value, for the variables of one layer."""
  names = {id(owned.variable): name for name, owned in named.items() if owned.layer is layer}
  originals = [v for v in _own_variables(layer) if id(v) in names]
  full_names = [names[id(v)] for v in originals]
  try:
    values, again = (_fresh_values(layer, originals, full_names, seed) for _ in range(2))
    for name, value, other in zip(full_names, values, again, strict=True):
      if not np.array_equal(value, other):
        raise ValueError(f"{name} is drawn by something else than a Keras initialiser with a seed")
  except Exception as error:
    raise ValueError(
      f"initial_weights: layer {full_names[0].rpartition('/')[0] or layer.name} ({type(layer).__name__}) cannot be "
      f"made anew from its config ({error}); start from the model's current values with seed=None"
    ) from error
  return dict(zip(full_names, values, strict=True))


def is_as_drawn(named):
  """Whether every variable has the value that its layer's initialisers have drawn (a Keras initialiser keeps its seed).

  False also where that cannot be found out: then a user may have put the values there.
  """
  owners = {id(owned.layer): owned.layer for owned in named.values()}
  for layer in owners.values():
    names = {id(owned.variable): name for name, owned in named.items() if owned.layer is layer}
    originals = [v for v in _own_variables(layer) if id(v) in names]
    try:
      values = _drawn_values(layer, originals, lambda initializer, _: initializer)
    except Exception:  # whatever a constructor of the user's raises
      return False
    if not all(np.array_equal(value, v.value) for value, v in zip(values, originals, strict=True)):
      return False
  return True


def _fresh_values(layer, originals, names, seed):
  """The values that a copy of the layer starts with, every initialiser's seed derived from (seed, weight's name)."""
  if not tf.executing_eagerly():
    raise ValueError("a function is being traced, which must not create variables: call this outside")
  path = names[0].rpartition("/")[0]
  return _drawn_values(
    layer, originals, lambda initializer, name: explicit.initializer_with_seed(initializer, seed, f"{path}/{name}")
  )


def _drawn_values(layer, originals, seeded):
  """The values that a copy of the layer starts with.

  Args:
    layer: of Keras.
    originals: its variables.
    seeded: function (initialiser, name) -> initialiser to draw with.
  """
  kind = type(layer)

  def add_weight(self, shape=None, initializer=None, *args, name=None, **kwargs):
    initializer = keras.initializers.get("glorot_uniform" if initializer is None else initializer)
    if isinstance(initializer, keras.initializers.Initializer):
      initializer = seeded(initializer, name or len(_own_variables(self)))
    return kind.add_weight(self, shape, initializer, *args, name=name, **kwargs)

  copy = type(kind.__name__, (kind,), {"add_weight": add_weight, "__module__": kind.__module__})
  # Keras adds these even where a subclass's constructor does not take them.
  config = {k: v for k, v in layer.get_config().items() if k not in BASE_CONFIG or takes(kind.__init__, k)}
  twin = copy.from_config(config)
  for attribute in list(vars(twin)):
    # Some layers wrap an initialiser in a function of their own (the forget bias of an LSTM). The layer's own object:
    # it keeps the seed that a config leaves out.
    value = vars(layer).get(attribute, vars(twin)[attribute])
    if isinstance(value, keras.initializers.Initializer):
      setattr(twin, attribute, seeded(value, attribute))
  if not twin.built:
    twin.build_from_config(layer.get_build_config())
  found, expected = ([tuple(v.shape) for v in variables] for variables in (_own_variables(twin), originals))
  if found != expected:
    raise ValueError(f"the copy has weights of shapes {found}, expected {expected}")
  return [
    tf.cast(tf.convert_to_tensor(new.value), old.dtype)
    for new, old in zip(_own_variables(twin), originals, strict=True)
  ]


def takes(function, argument):
  parameters = inspect.signature(function).parameters.values()
  return any(p.name == argument or p.kind is p.VAR_KEYWORD for p in parameters)
