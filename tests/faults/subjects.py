"""Every kind of file that this package reads again, made small, and what reads it."""

import contextlib
import io
import json
import pathlib
import re

import numpy as np
import small_runs
import tensorflow as tf

from maml_tf import export, tasks
from maml_tf.algorithms.maml import MAML
from maml_tf.datasets import image_folder
from maml_tf.errors import UserError
from maml_tf.experiments import command_line
from maml_tf.online import STRATEGIES, OnlineLearner, Stream, UpdateProcedure, WarmStart
from maml_tf.rl import environments, policies, trpo
from maml_tf.rl.meta_trpo import MetaPolicySearch
from maml_tf.training.trainer import Schedule


class Refused(Exception):
  """The damage was named in one line; nothing was done."""


class Subject:
  """Files, and what is made of them.

  Attributes:
    name: of the subject.
    silent: patterns of text files without a checksum, in which a changed digit is a number like any other: what is
      asked of them is no traceback, and that the bits of the training do not depend on them.
  """

  name = ""
  silent = ()

  def make(self, folder):
    """Writes the files."""
    raise NotImplementedError

  def files(self, folder):
    """Those to damage."""
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.name != "lock")

  def use(self, folder):
    """What is made of them: something to compare.

    Raises:
      Refused: what is wrong was said in one line.
    """
    raise NotImplementedError


@contextlib.contextmanager
def refusals():
  try:
    yield
  except UserError as error:
    if "\n" in str(error):
      raise AssertionError(f"more than a line: {error}") from error
    raise Refused(str(error)) from error


def bits(tensors):
  return tuple(np.asarray(tensor).tobytes() for tensor in tf.nest.flatten(tensors))


class Training(Subject):
  """A run directory of the trainer, half-way; it is trained to its end."""

  name = "training"
  silent = ("metrics.csv", "validation.csv")
  half = Schedule(20, log_every=5, validate_every=10, checkpoint_every=5, validation_tasks=20)
  whole = Schedule(30, log_every=5, validate_every=10, checkpoint_every=5, validation_tasks=20)

  def learner(self):
    return small_runs.learner()

  def make(self, folder):
    small_runs.trainer(folder, self.half, self.learner()).train()

  def use(self, folder):
    with refusals():
      state, info = small_runs.trainer(folder, self.whole, self.learner()).train()
    rows = [int(row["iteration"]) for row in small_runs.rows(folder / "metrics.csv")]
    if rows != sorted(set(rows)) or rows[-1] != 30:
      raise AssertionError(f"metrics.csv has rows {rows}")
    return info["iteration"], bits(state)


class OnlineTraining(Training):
  """A walk through a stream: its state has what was measured in it."""

  name = "online"

  def learner(self):
    rng = np.random.default_rng(0)
    x = rng.standard_normal([10, 6, 1]).astype(np.float32)
    procedure = UpdateProcedure(MAML(small_runs.models.MLP(1, (4,), (1,)), inner_lr=0.01), 1)
    stream = Stream(tasks.TaskSequence(x, 2 * x, x, 2 * x, 2), WarmStart())
    return OnlineLearner(procedure, stream, STRATEGIES["ftml"], meta_updates=2, meta_batch_size=2, inner_batch=2)


class PolicyTraining(Training):
  """A policy search in 2D navigation."""

  name = "policies"
  half = Schedule(2, log_every=1, validate_every=1, checkpoint_every=1, validation_tasks=2)
  whole = Schedule(30, log_every=10, validate_every=30, checkpoint_every=10, validation_tasks=2)

  def learner(self):
    environment = environments.PointNavigation(4)
    return MetaPolicySearch(
      policies.make_policy(environment), environment, trpo.TRPO(), inner_lr=0.1, meta_batch_size=2,
      rollouts_per_task=2, eval_rollouts=2, eval_updates=1,
    )  # fmt: skip


FLAGS = {
  "log_every": 5, "validate_every": 10, "checkpoint_every": 5, "validation_tasks": 20, "eval_tasks": 20,
  "eval_updates": 1, "jit_compile": False, "init_stddev": 0.1,
}  # fmt: skip


def command(folder, **flags):
  """Runs a command line in this process: (its exit status, stdout).

  Raises:
    Refused: it says in one line what is wrong.
  """
  out, err = io.StringIO(), io.StringIO()
  argv = ["main.py", *(f"--{name}={value}" for name, value in (FLAGS | flags).items()), f"--logdir={folder}"]
  with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
    status = command_line.main(argv)
  if status:
    lines = [line for line in err.getvalue().splitlines() if line.startswith("main.py: ")]
    if len(lines) != 1:
      raise AssertionError(f"status {status}, but said: {err.getvalue()!r}")
    raise Refused(lines[0])
  return out.getvalue()


def table_of(out):
  """The rows of a table, of what a command has said."""
  return tuple(re.findall(r"^ *\d+ shots.*$", out, re.MULTILINE))


def run_of(folder):
  (run,) = (path.parent for path in folder.glob("*/checkpoints"))
  return run


class Command(Subject):
  """A run directory that the command line made, with all that it leaves; the command goes on from it."""

  name = "command"
  silent = ("metrics.csv", "validation.csv", "*.json", "*.png", "*tfevents*")

  def make(self, folder):
    command(folder, metatrain_iterations=10)

  def files(self, folder):
    return [path for path in super().files(folder) if path.parent.name != "plots"]

  def use(self, folder):
    out = command(folder, metatrain_iterations=20, export=False)
    arrays = small_runs.arrays(run_of(folder) / "checkpoints" / "model20.npz")
    record = json.loads((run_of(folder) / "training.json").read_text())
    if record["iteration"] != 20 or not all(isinstance(entry, dict) for entry in record["starts"]):
      raise AssertionError(f"training.json: {record}")
    return table_of(out), bits({name: value for name, value in arrays.items() if name != "__metadata__"})


class Evaluation(Command):
  """The same, evaluated."""

  name = "evaluation"

  def use(self, folder):
    return table_of(command(folder, train=False))


class SavedModel(Subject):
  """An exported initialisation, as `--init_from` reads it."""

  name = "saved_model"

  def make(self, folder):
    learner = small_runs.learner()
    export.save(learner, learner.initial_state(3), folder / "saved_model")

  def use(self, folder):
    with refusals():
      weights, metadata = export.load_initialization(folder / "saved_model")
    return bits(weights), json.dumps(metadata, sort_keys=True)


class ImageCache(Subject):
  """Decoded images beside the files that they are of."""

  name = "image_cache"

  def make(self, folder):
    from PIL import Image

    rng = np.random.default_rng(0)
    for split, label in [("val", 8), ("test", 9), *(("train", label) for label in range(3))]:
      inside = folder / "data" / split / f"class_{label}"
      inside.mkdir(parents=True)
      for index in range(2):
        Image.fromarray(rng.integers(0, 256, [8, 8, 3]).astype(np.uint8)).save(inside / f"{index}.png")
    self._load(folder)

  def files(self, folder):
    return sorted(path for path in (folder / "cache").rglob("*") if path.is_file() and path.suffix in (".npy", ".json"))

  def use(self, folder):
    with refusals(), contextlib.redirect_stderr(io.StringIO()):
      bank = self._load(folder)
    return np.asarray(bank.images).tobytes(), tuple(bank.names), bank.offsets.tolist().__repr__()

  def _load(self, folder):
    return image_folder.load(folder / "data", folder / "cache", "train", (8, 8), 3)


class Collected(Subject):
  """A finished run, gathered into a results file."""

  name = "collected"
  silent = ("metrics.csv", "validation.csv", "*.json")

  def make(self, folder):
    command(folder, metatrain_iterations=10, log=False, export=False)

  def files(self, folder):
    run = run_of(folder)
    return [run / name for name in ("config.json", "results.json", "training.json", "metrics.csv", "validation.csv")]

  def use(self, folder):
    from maml_tf.results.collect import collect

    with refusals():
      content = collect(folder / "collected.json", [run_of(folder)], folder)
    return json.dumps(content, sort_keys=True)


class Queue(Subject):
  """A plan, its results file and the run directory; what the queue says of them."""

  name = "queue"
  silent = ("*.json", "metrics.csv")

  def make(self, folder):
    from maml_tf.results.collect import collect

    settings = {"datasource": "sinusoid", "metatrain_iterations": 10, **FLAGS, "log": False, "export": False}
    del settings["eval_updates"]
    command(folder / "logs", metatrain_iterations=10, log=False, export=False, eval_updates=10)
    plan = folder / "results" / "plan.json"
    plan.parent.mkdir()
    plan.write_text(json.dumps({"rows": [{"name": "waves", "priority": 1, "why": "a test", "settings": settings}]}))
    collect(folder / "results" / "waves.json", [run_of(folder / "logs")], folder)

  def files(self, folder):
    run = run_of(folder / "logs")
    names = ("config.json", "results.json", "training.json", "metrics.csv")
    return [folder / "results" / "plan.json", folder / "results" / "waves.json", *(run / name for name in names)]

  def use(self, folder):
    from maml_tf.results import plan, state

    with refusals():
      (row,) = plan.load(folder / "results" / "plan.json")
      places = state.Places(folder / "results" / "plan.json", folder / "logs", pathlib.Path(__file__).parents[2])
      training = row.trainings[0]
      run = places.run(row, training)
      evaluated = [places.has(row, training, evaluation) for evaluation in row.evaluations]
      paced = state.pace(run, row.iterations)
      return places.reached(row), places.done(row), places.may_publish(row), evaluated, paced and paced[0]


SUBJECTS = {
  kind.name: kind
  for kind in (
    Training, OnlineTraining, PolicyTraining, Command, Evaluation, SavedModel, ImageCache, Collected, Queue
  )
}  # fmt: skip
