"""The committed results files of a checkout, by what they hold."""

import dataclasses
import functools
import pathlib

from maml_tf.experiments.config import resolve
from maml_tf.results import descriptions
from maml_tf.results.cells import Link
from maml_tf.results.commands import SPEED, given_settings, train_command
from maml_tf.results.files import read_json

# What a table says in columns of its own, and what makes no other training of a run.
_SAID_ELSEWHERE = (
  "baseline", "learner", "num_classes", "update_batch_size", "seed", "metatrain_iterations", "pretrain_iterations",
  "eval_updates", *SPEED,
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class ResultsFile:
  """A file of results/, made by `collect`."""

  path: pathlib.Path
  content: dict

  @functools.cached_property
  def config(self):
    """The `Config` of its first run."""
    return resolve(**self.content["runs"][0]["config"])

  @property
  def method(self):
    return descriptions.method(self.content["method"])

  @property
  def link(self):
    return Link(f"results/{self.path.name}")

  @functools.cached_property
  def variant(self):
    """Flags by which the training differs from the published one of its method, data set and size of task."""
    given = given_settings(self.config)
    return " ".join(f"--{name}={value}" for name, value in given.items() if name not in _SAID_ELSEWHERE)

  @property
  def label(self):
    """Title of the method, with what is changed in it."""
    return f"{self.method.title}, `{self.variant}`" if self.variant else self.method.title

  def record(self, evaluation=None):
    """What a row of a table has beside its figures, in CSV and JSON files."""
    run = self.content["runs"][0]
    evaluation = evaluation or run.get("evaluation") or run
    return {
      "datasource": self.content["datasource"],
      "method": self.content["method"],
      "seeds": len(self.content["runs"]),
      "train_command": run.get("train_command") or run.get("command", ""),
      "command": evaluation.get("command", ""),
    }


class Store:
  """All results files of a checkout; `root` is its folder."""

  def __init__(self, root):
    self.root = pathlib.Path(root)
    self._contents = {path: read_json(path) for path in sorted(self.root.glob("results/*.json"))}

  @functools.cached_property
  def files(self):
    """Those of runs, a list of `ResultsFile`."""
    return [ResultsFile(path, content) for path, content in self._contents.items() if "runs" in content]

  def of_images(self):
    return [file for file in self.files if file.config.has_images]

  def of_policies(self):
    return [file for file in self.files if file.config.has_policy]

  def of_data_set(self, datasource):
    return [file for file in self.files if file.content["datasource"] == datasource]

  def benchmarks(self):
    """Name -> content of the files that `benchmark.py` made."""
    return {c["benchmark"]: c for c in self._contents.values() if "benchmark" in c}


def command_for(datasource, method, **settings):
  """The command that fills a cell which was not run; None where this package has no such method."""
  config = _config_for(datasource, method, settings)
  if config is None:
    return None
  return train_command(config) + ("" if config.test_set else " --test_set=True")


def _config_for(datasource, method, settings):
  from maml_tf.errors import UserError

  try:
    return resolve(datasource, **descriptions.method(method).settings, **settings)
  except UserError:
    return None


def iterations(content):
  """How far a training came."""
  reached, of = content["iterations"], content["of_iterations"]
  if not of:
    return "none here"  # an initialisation that was only evaluated
  return f"{reached:,}" if reached >= of else f"{reached:,} of {of:,}"
