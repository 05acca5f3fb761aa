"""How far the rows of a plan have come. Run directories, kept checkpoints and results files are only looked at."""

import contextlib
import csv
import io
import pathlib
import re

from maml_tf.errors import UserError
from maml_tf.experiments.config import from_record, run_name
from maml_tf.regular_files import read_regular, read_table


class Places:
  """Where things lie.

  Args:
    plan: the plan's file; results files are beside it, and small checkpoints in `checkpoints` beside it.
    logdir: folder of the run directories.
    root: of the repository, with `scripts/` and `pretrained/`.
  """

  def __init__(self, plan, logdir, root):
    self.results = pathlib.Path(plan).absolute().parent
    self.logdir, self.root = pathlib.Path(logdir).absolute(), pathlib.Path(root).absolute()
    self.kept, self.own = self.results / "checkpoints", self.logdir / ".queue"

  def file(self, row):
    """The results file of a row."""
    return self.results / f"{row.name}.json"

  def logdir_of(self, row):
    """Where its runs are. Those of weights from elsewhere have a folder of their own: their names are not known."""
    return self.logdir if row.trains else self.logdir / "evaluations" / row.name

  def run(self, row, training):
    """The run directory, or None where there can be none yet."""
    if row.trains:
      return self.logdir / training.name
    there = sorted(self.logdir_of(row).glob("*/"), key=lambda path: path.stat().st_mtime)
    return there[-1] if there else None

  def reached(self, row):
    """The iteration that all trainings of a row have reached, wherever their checkpoints are."""
    if not row.trains:
      return 0
    return min(max(self._in_file(row, t), *map(newest, (self.run(row, t), self.kept / t.name))) for t in row.trainings)

  def finished(self, row):
    return self.reached(row) >= row.iterations

  def _in_file(self, row, training):
    return next((iterations for name, iterations in published(self.content(row)) if name == training.name), 0)

  def content(self, row):
    """Of its results file; None where there is none.

    Raises:
      UserError: it is damaged.
    """
    content = read_json(self.file(row))
    with _damage_named(self.file(row)):
      published(content)
      if content is not None:
        content["results"].keys()
    return content

  def missing(self, row):
    """The evaluations that the results file of a row lacks of what its trainings have reached."""
    reached, content = self.reached(row), self.content(row)
    wanted = row.evaluations if self.finished(row) else row.evaluations[:1]
    if sorted(published(content)) != sorted((t.name, reached) for t in row.trainings):
      return wanted
    return tuple(e for e in wanted if not _is_in(content, row.trainings[0].evaluated(e)))

  def done(self, row):
    return self.finished(row) and not self.missing(row)

  def may_publish(self, row):
    """Whether what a row has reached replaces its results file: not one of a longer, other training."""
    if self.finished(row):
      return True
    if self.reached(row) == 0 or not publishes_unfinished(row):
      return False
    before = [iterations for _, iterations in published(self.content(row))]
    return self.reached(row) >= max(before, default=0)

  def has(self, row, training, evaluation):
    """Whether the run directory has that evaluation of its newest checkpoint."""
    wanted, folder = training.evaluated(evaluation), self.run(row, training)
    for name in ("results", "evaluation") if folder else ():
      content = read_json(folder / f"{name}.json")
      with _damage_named(folder / f"{name}.json"):
        if content and content["training"]["iteration"] == newest(folder) and _covers(content, wanted):
          return True
    return False


def publishes_unfinished(row):
  """Whether a results file can be about an unfinished training: that of sine waves, or of several seeds, cannot."""
  config = row.trainings[0].config
  return len(row.seeds) == 1 and (config.domain.name != "sinusoid")


def newest(folder):
  """The iteration of a folder's newest checkpoint; 0 where there is none."""
  names = (path.name for path in folder.glob("checkpoints/model*.npz")) if folder else ()
  return max((int(match[1]) for name in names if (match := re.fullmatch(r"model(\d+)\.npz", name))), default=0)


def published(content):
  """(name of the run, iterations) of each run in a results file."""
  return [
    (run_name(from_record(run["config"])), run.get("iterations", run.get("training", {}).get("iteration")))
    for run in (content or {}).get("runs", ())
  ]


def read_json(path):
  try:
    return read_table(path)
  except FileNotFoundError:
    return None
  except (OSError, ValueError) as error:
    raise UserError(f"{path}: damaged ({error}); remove it, and it is made anew") from error


@contextlib.contextmanager
def _damage_named(path):
  """Names the file whose content is not what was written."""
  try:
    yield
  except (AttributeError, KeyError, TypeError, ValueError, UserError) as error:
    raise UserError(f"{path}: damaged ({error!r}); remove it, and it is made anew") from error


def _is_in(content, config):
  """Whether a results file has an evaluation with these settings; those of policies and sine waves have but one."""
  if config.domain.name != "images":
    return True
  label = ", ".join(
    [str(config.eval_tasks), *([] if config.bn_mode == "transductive" else [f"bn_mode={config.bn_mode}"])]
  )
  return _queries(config) <= set(content["results"].get(label, ()))


def _covers(content, config):
  """Whether an evaluation in a run directory has what one with the settings of `config` would have."""
  had = from_record(content["config"])
  names = ("test_set", "eval_tasks", "eval_updates", "update_batch_size", "bn_mode")
  if any(getattr(had, name) != getattr(config, name) for name in names):
    return False
  return (
    _queries(config) <= set(content["results"])
    if config.domain.name == "images"
    else had.eval_queries == config.eval_queries
  )


def _queries(config):
  """Query examples per class of an evaluation of images, as its results name them."""
  return {str(config.eval_queries)} if config.eval_queries else {"1", "15", str(config.update_batch_size)}


def pace(folder, iterations):
  """(iteration logged last, seconds per iteration, seconds left) of a training; None before it has logged anything."""
  try:
    text = read_regular(folder / "metrics.csv").decode("utf-8")
    rows = list(csv.DictReader(io.StringIO(text, newline="")))[-10:]
    iteration = int(float(rows[-1]["iteration"]))
    seconds = sum(float(row["step_seconds"]) for row in rows) / len(rows)
  except (OSError, IndexError, KeyError, TypeError, ValueError, csv.Error):  # none yet, or a line that is being written
    return None
  return iteration, seconds, (iterations - iteration) * seconds
