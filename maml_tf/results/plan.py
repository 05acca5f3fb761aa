"""What reproduces the paper: a plan with a row for each results file, and how far each row has come.

Imports no TensorFlow, so that a queue may list its rows at once.
"""

import dataclasses
import functools
import json
import re
import shlex

from maml_tf.errors import UserError
from maml_tf.experiments.config import resolve, run_name
from maml_tf.regular_files import read_regular

FIELDS = {"name": str, "settings": dict, "priority": int, "why": str, "seeds": list, "evaluations": list,
          "after": str, "pretrained": dict}  # fmt: skip
NEEDED = ("name", "settings", "priority", "why")


@dataclasses.dataclass(frozen=True)
class Row:
  """One results file.

  Attributes:
    name: of the file, without `.json`.
    settings: of the training, by name; with `init_from` there is no training.
    priority: small numbers come first.
    why: what the number is good for.
    seeds: one training each; the file has their mean.
    evaluations: settings on top of the training's, one evaluation each. The first is made of an unfinished training
      too.
    after: name of a row that has to be done before; None: of none.
    pretrained: where the finished initialisation of the first seed is kept, {"folder": of `pretrained/`, "what": a
      line about it}; None: it is not.
  """

  name: str
  settings: dict
  priority: int
  why: str
  seeds: tuple = (0,)
  evaluations: tuple = ({},)
  after: str | None = None
  pretrained: dict | None = None

  @functools.cached_property
  def trainings(self):
    """A `Training` for each seed."""
    return tuple(Training(self.settings | ({"seed": seed} if seed else {})) for seed in self.seeds)

  @property
  def iterations(self):
    """Of a finished training."""
    return self.trainings[0].iterations

  @property
  def trains(self):
    """Whether it is about a training of its own, rather than about weights that are there."""
    return "init_from" not in self.settings

  @property
  def shots(self):
    """Of the evaluations, where they are not those of the training; else None."""
    config = self.trainings[0].evaluated(self.evaluations[0])
    return config.update_batch_size if config.update_batch_size != config.training_shots else None


@dataclasses.dataclass(frozen=True)
class Training:
  """Settings of one run of `scripts/main.py`."""

  settings: dict

  @functools.cached_property
  def config(self):
    return resolve(**self.settings)

  @functools.cached_property
  def name(self):
    """Of its run directory, where its weights do not come from elsewhere."""
    return run_name(self.config)

  @property
  def iterations(self):
    return 0 if "init_from" in self.settings else self.config.iterations

  def evaluated(self, evaluation):
    """The config of one of its evaluations."""
    return resolve(**self.settings | {"train": False} | evaluation)

  def flags(self, **more):
    """The flags of the command line."""
    return [f"--{name}={value}" for name, value in (self.settings | more).items()]

  def command(self, **more):
    return shlex.join(["python", "scripts/main.py", *self.flags(**more)])


def load(path):
  """The rows of a plan, those of the smallest priority first.

  Raises:
    UserError: the file cannot be read, or a row of it makes no sense.
  """
  try:
    entries = json.loads(read_regular(path).decode("utf-8"))
  except OSError as error:
    raise UserError(f"{path}: {error.strerror}; expected a plan, as results/plan.json") from error
  except (ValueError, RecursionError) as error:
    raise UserError(f"{path}: this is not JSON ({error})") from error
  if not isinstance(entries, dict) or not isinstance(entries.get("rows"), list):
    raise UserError(f'{path}: expected {{"rows": [...]}}, a list with an entry for each results file')
  rows = [_row(path, index, entry) for index, entry in enumerate(entries["rows"])]
  _check_names(path, rows)
  return sorted(rows, key=lambda row: row.priority)


def _row(path, index, entry):
  if not isinstance(entry, dict):
    raise UserError(f"{path}: row {index}: expected an object with {', '.join(NEEDED)}")
  where = f"{path}: row {entry.get('name', index)}"
  for name in NEEDED:
    if name not in entry:
      raise UserError(f"{where}: it has no {name}")
  for name, value in entry.items():
    if name not in FIELDS:
      raise UserError(f"{where}: {name}: no such field; there are {', '.join(FIELDS)}")
    if not isinstance(value, FIELDS[name]):
      raise UserError(f"{where}: {name}: expected a {FIELDS[name].__name__}, got {value!r}")
  if not re.fullmatch(r"\w[\w.-]*", entry["name"]):
    raise UserError(f"{where}: name: expected letters, digits and _.-, the name of a results file")
  row = Row(**{name: tuple(value) if isinstance(value, list) else value for name, value in entry.items()})
  if not row.seeds or not row.evaluations:
    raise UserError(f"{where}: seeds and evaluations: expected at least one of each")
  if row.pretrained is not None and set(row.pretrained) != {"folder", "what"}:
    raise UserError(f'{where}: pretrained: expected {{"folder": ..., "what": ...}}')
  try:
    for training in row.trainings:
      for evaluation in row.evaluations:
        same = run_name(training.evaluated(evaluation)) == training.name
        if row.trains and not same:
          raise UserError(f"the evaluation {evaluation} is of another training")
  except UserError as error:
    raise UserError(f"{where}: {error}") from error
  return row


def _check_names(path, rows):
  names = [row.name for row in rows]
  twice = {name for name in names if names.count(name) > 1}
  if twice:
    raise UserError(f"{path}: two rows have the name {twice.pop()}")
  for row in rows:
    if row.after is not None and row.after not in names:
      raise UserError(f"{path}: row {row.name}: after: there is no row {row.after}")
