"""The committed results files of a checkout, by what they hold."""

import dataclasses
import functools
import pathlib

from maml_tf.experiments.config import from_record
from maml_tf.results import commands, descriptions
from maml_tf.results.cells import Link
from maml_tf.results.files import read_json


@dataclasses.dataclass(frozen=True)
class ResultsFile:
  """A file of results/, made by `collect`."""

  path: pathlib.Path
  content: dict

  @functools.cached_property
  def config(self):
    """The `Config` of its first run."""
    return from_record(self.content["runs"][0]["config"])

  @property
  def domain(self):
    """Name of its domain."""
    return self.config.domain.name

  @property
  def rank(self):
    return descriptions.rank(self.content["method"])

  @property
  def link(self):
    return Link(f"results/{self.path.name}")

  @functools.cached_property
  def label(self):
    """Title of the method, with what is changed in it."""
    title, variant = descriptions.title(self.content["method"]), commands.variant(self.config)
    return f"{title}, `{variant}`" if variant else title

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

  def of_domain(self, name):
    return [file for file in self.files if file.domain == name]

  def of_images(self, labelled=True):
    """Those of images: of labelled training tasks, or of those without labels."""
    return [file for file in self.of_domain("images") if (file.config.tasks == "given") == labelled]

  def comparisons(self):
    """Path -> content of the files that `compare.py` made."""
    return {path: content for path, content in self._contents.items() if "comparison" in content}

  def of_data_set(self, datasource):
    return [file for file in self.files if file.content["datasource"] == datasource]

  def benchmarks(self):
    """Name -> content of the files that `benchmark.py` made."""
    return {c["benchmark"]: c for c in self._contents.values() if "benchmark" in c}


def iterations(content):
  """How far a training came."""
  reached, of = content["iterations"], content["of_iterations"]
  if not of:
    return "none here"  # an initialisation that was only evaluated
  return f"{reached:,}" if reached >= of else f"{reached:,} of {of:,}"
