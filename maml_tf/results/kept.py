"""What an unfinished training can be continued from, small enough to be committed."""

import json
import pathlib
import shutil

from maml_tf.errors import UserError
from maml_tf.experiments.config import from_record
from maml_tf.results.commands import without_paths
from maml_tf.results.files import read_json
from maml_tf.results.runs import name_of, newest_checkpoint, portable, record_of

LOGS = ("metrics.csv", "validation.csv")
TRAINING = "training.json"


def keep(folder, output):
  """Copies the newest checkpoint of a run directory, with its logs and settings; an older copy is replaced.

  Args:
    folder: run directory.
    output: folder of the copies.

  Returns:
    (path of the copy, the run's `Config`, its newest checkpoint).

  Raises:
    UserError: there is no run directory, or no checkpoint in it yet.
  """
  folder = pathlib.Path(folder)
  record = record_of(folder)
  config = from_record(record)
  target = pathlib.Path(output) / name_of(folder, config)
  checkpoint = newest_checkpoint(folder)
  if checkpoint is None:
    raise UserError(f"{folder}: no checkpoint in it yet")
  shutil.rmtree(target, ignore_errors=True)  # an older checkpoint would stay beside the newer one
  (target / "checkpoints").mkdir(parents=True)
  # Of a policy the best is what is evaluated; a network of images is too large to be kept twice.
  best = [checkpoint.with_name("best.npz")] if config.domain.name == "policies" else []
  for path in (*(folder / name for name in LOGS), checkpoint, *best):
    if path.exists():
      shutil.copyfile(path, target / path.relative_to(folder))
  if (folder / TRAINING).exists():
    _write(target / TRAINING, without_paths(read_json(folder / TRAINING)))
  _write(target / "config.json", portable(record))
  return target, config, checkpoint


def size_of(folder):
  """Bytes of all files in a folder."""
  return sum(path.stat().st_size for path in pathlib.Path(folder).rglob("*") if path.is_file())


def _write(path, content):
  path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
