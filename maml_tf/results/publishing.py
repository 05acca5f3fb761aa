"""From run directories to what is committed: checkpoints of unfinished trainings, results, tables, initialisations."""

import contextlib
import fcntl
import json
import os
import shutil
import subprocess
import sys

from maml_tf.errors import UserError
from maml_tf.experiments.config import train_command
from maml_tf.results.state import newest, published, read_json

LOGS = ("config.json", "training.json", "metrics.csv", "validation.csv")


@contextlib.contextmanager
def locked(places):
  """Publishing is for one process at a time: tables and checkpoints belong to all rows."""
  places.own.mkdir(parents=True, exist_ok=True)
  with open(places.own / "publishing.lock", "a") as file:
    fcntl.flock(file, fcntl.LOCK_EX)
    yield


def install(places, row, training):
  """Copies a kept checkpoint into the run directory, where it is the newer one. May be killed, and done again."""
  if not row.trains:
    return
  kept, run = places.kept / training.name, places.run(row, training)
  if newest(kept) <= newest(run):
    return
  (run / "checkpoints").mkdir(parents=True, exist_ok=True)
  # The newest checkpoint last: until it is there, the next start copies everything again.
  files = [kept / name for name in LOGS] + sorted((kept / "checkpoints").glob("*.npz"), key=_best_first)
  for source in files:
    if source.exists():
      _copy(source, run / source.relative_to(kept))


def _best_first(path):
  return path.name != "best.npz", path.name


def _copy(source, target):
  temporary = target.with_name(f".{target.name}.tmp{os.getpid()}")
  shutil.copyfile(source, temporary)
  os.replace(temporary, target)


def to_keep(places, row):
  """Run directories of unfinished trainings whose newest checkpoint is not yet where it is committed."""
  runs = [(places.run(row, training), places.kept / training.name) for training in row.trainings if row.trains]
  return [run for run, kept in runs if newest(kept) < newest(run) < row.iterations]


def keep(places, row):
  """Puts the newest checkpoints of an unfinished row where they are committed, in the place of older ones."""
  for run in to_keep(places, row):
    script(places, "checkpoint.py", f"--output={places.kept}", run)


def collect(places, row):
  """Writes the results file of a row from its run directories, and puts its figures into the tables."""
  before = unfinished(places.content(row))
  with locked(places):
    if not places.finished(row):
      keep(places, row)
    shots = [] if row.shots is None else [f"--shots={row.shots}"]
    script(places, "collect.py", *shots, places.file(row), *(places.run(row, t) for t in row.trainings))
    _forget(places, row, before)
    update_tables(places)


def update_tables(places):
  """Renews the tables in the documents, where the results are the repository's own."""
  if places.results == places.root / "results":
    script(places, "tables.py", "--update")


def _forget(places, row, before):
  """Removes kept checkpoints of finished trainings, or of replaced ones, that no results file is about."""
  of_row = {training.name for training in row.trainings if row.trains}
  needed = set().union(*(unfinished(read_json(path)) for path in places.results.glob("*.json")))
  going_on = of_row if not places.finished(row) else set()
  for name in (before | of_row) - needed - going_on:
    shutil.rmtree(places.kept / name, ignore_errors=True)


def unfinished(content):
  """Names of the trainings in a results file that their checkpoints may go on from; none in other files."""
  iterations = (content or {}).get("of_iterations", 0)
  return {name for name, reached in published(content) if reached is not None and reached < iterations}


def is_exported(places, row):
  """Whether the run directory has the SavedModel of a finished training, if the row keeps one."""
  return row.pretrained is None or (places.run(row, row.trainings[0]) / "saved_model" / "saved_model.pb").exists()


def has_initialization_to_keep(places, row):
  """Whether a finished training is here whose initialisation is not in `pretrained/`."""
  if row.pretrained is None or newest(places.run(row, row.trainings[0])) < row.iterations:
    return False
  return not is_exported(places, row) or not _same(*_initializations(places, row))


def keep_initialization(places, row):
  """Copies the SavedModel of a finished training into `pretrained/`, with a line about it where there is none."""
  source, target = _initializations(places, row)
  with locked(places):
    _index(places, row)
    temporary = target.with_name(f".{target.name}.tmp{os.getpid()}")
    shutil.rmtree(temporary, ignore_errors=True)
    shutil.copytree(source, temporary)
    shutil.rmtree(target, ignore_errors=True)
    temporary.rename(target)
    update_tables(places)


def _initializations(places, row):
  """That of the run, and that in `pretrained/`."""
  return places.run(row, row.trainings[0]) / "saved_model", places.root / "pretrained" / row.pretrained["folder"]


def _index(places, row):
  path = places.root / "pretrained" / "index.json"
  index = read_json(path) or {}
  about = {
    "what": row.pretrained["what"], "results": places.file(row).name, "command": train_command(row.trainings[0].config)
  }  # fmt: skip
  index.setdefault(row.pretrained["folder"], about)
  path.parent.mkdir(exist_ok=True)
  temporary = path.with_name(f".{path.name}.tmp{os.getpid()}")
  temporary.write_text(json.dumps(index, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
  temporary.replace(path)


def _same(source, target):
  files = [path for path in source.rglob("*") if path.is_file()]
  pairs = [(path, target / path.relative_to(source)) for path in files]
  return all(copy.exists() and copy.read_bytes() == path.read_bytes() for path, copy in pairs)


def script(places, name, *arguments):
  """Runs one of the repository's scripts.

  Raises:
    UserError: with the last line that it printed.
  """
  command = [sys.executable, str(places.root / "scripts" / name), *map(str, arguments)]
  # In a session of its own: Ctrl-C must not reach it half-way.
  done = subprocess.run(command, capture_output=True, text=True, cwd=places.root, start_new_session=True)
  if done.returncode != 0:
    lines = (done.stderr or done.stdout).strip().splitlines()
    raise UserError(lines[-1] if lines else f"{name}: exit status {done.returncode}")
