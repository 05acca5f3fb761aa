"""What a setting is. `settings` has them all. Imports no TensorFlow."""

import dataclasses
import numbers
import os
from collections.abc import Callable
from typing import Any

from maml_tf.errors import UserError

COUNT_LIMIT = 2**31  # iterations and sizes are int32 tensors
RATE_LIMIT = 3.4e38  # and rates float32
NEVER = object()  # of `Setting.unless`: no value is left out


@dataclasses.dataclass(frozen=True)
class Setting:
  """One setting of a run, and one flag of the command line.

  Attributes:
    name: of the flag, and of the field of `Config`.
    default: where neither the domain nor the method has another.
    help: what it means.
    topic: of `--help`, a key of `TOPICS`.
    kind: bool, int, float or str.
    check: function of a value -> None, or what was expected in its place.
    choices: the values that there are; empty: any that `check` takes.
    optional: whether it may be None.
    sentinel: a value that means "not given", legal everywhere; None: there is none.
    of_domain: only where the domain lists it.
    of_method: only where the method lists it.
    argument: what an algorithm calls it, where it is an argument of one.
    convert: function of a value -> the argument's value; None: the value itself.
    library_name: what errors of the library call it, where it is not an argument of an algorithm.
    hashed: whether it shapes training, and so is in the run's hash.
    unless: a value at which it is left out of the hash, since there are runs that are older than the setting.
    hash_name: its name there; None: its own.
    read: function of a config -> the value that counts in the hash; None: the setting's.
    shown: (place, function of a config -> text or None): how a run directory's name shows it.
    decides: whether defaults of other settings hang on it.
    repeats: whether it is part of the command that repeats a training.
    local: a path on the machine that a run is on.
    when: function of a config -> None, or what it needs, where the setting means nothing beside the others.
  """

  name: str
  default: Any
  help: str
  topic: str
  kind: type = int
  check: Callable | None = None
  choices: tuple = ()
  optional: bool = False
  sentinel: Any = None
  of_domain: bool = False
  of_method: bool = False
  argument: str | None = None
  convert: Callable | None = None
  library_name: str | None = None
  hashed: bool = False
  unless: Any = NEVER
  hash_name: str | None = None
  read: Callable | None = None
  shown: tuple | None = None
  decides: bool = False
  repeats: bool = True
  local: bool = False
  when: Callable | None = None

  def typed(self, value):
    """`value` as the setting's type: a command line converts by itself, a notebook may give 1 for 1.0.

    Raises:
      UserError: it is of another type.
    """
    whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    fits = {
      bool: isinstance(value, bool),
      int: whole,
      float: isinstance(value, numbers.Real) and not isinstance(value, bool),
      str: isinstance(value, (str, os.PathLike)),
    }[self.kind]
    if not fits:
      raise UserError(f"--{self.name}={value}: expected a value of type {self.kind.__name__}")
    return os.fspath(value) if self.kind is str else self.kind(value)

  def problem(self, value):
    """What was expected in place of the value; None where it is fine."""
    if (value is None and self.optional) or (self.sentinel is not None and value == self.sentinel):
      return None
    if self.choices and value not in self.choices:
      return f"one of {', '.join(self.choices)}"
    problem = self.check(value) if self.check else None
    if problem is None and self.kind is int and not self.choices and self.name != "seed" and value >= COUNT_LIMIT:
      problem = "a number below 2**31"
    return problem

  def in_hash(self, config):
    """Whether a run's hash has the setting."""
    return self.hashed and (self.unless is NEVER or self.value_in(config) != self.unless)

  def value_in(self, config):
    return getattr(config, self.name) if self.read is None else self.read(config)


def at_least(least):
  return lambda value: None if value >= least else f"a whole number of at least {least}"


def rate(value):
  return None if 0 < value < RATE_LIMIT else "a finite number above 0"


def seed(value):
  return None if 0 <= value < 2**62 else "a whole number of at least 0 and below 2**62"
