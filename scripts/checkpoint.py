"""Keeps what an unfinished training can be continued from, small enough to be committed.

python scripts/checkpoint.py logs/omniglot.maml.cls_20.*

Copies the newest checkpoint of each run directory, with its logs, and prints the command that goes on from there.
"""

import json
import pathlib
import re
import shlex
import shutil
import sys

from absl import flags
from common import import_tensorflow, main_of

from maml_tf.errors import UserError
from maml_tf.experiments.config import PATHS, resolve

FLAGS = flags.FLAGS
flags.DEFINE_string("output", "results/checkpoints", "folder to write to")

LOGS = ("metrics.csv", "validation.csv")
TRAINING = "training.json"
# Presets depend on these, so they come first when a command line is put together.
DECISIVE = ("baseline", "num_classes", "update_batch_size")
# What does not shape training.
ASIDE = (
  *PATHS, "resume", "train", "test_iter", "test_set", "train_update_batch_size", "train_update_lr", "log",
  "export", "export_half", "eval_tasks", "eval_queries", "sim_threads", "render",
)  # fmt: skip


def keep(arguments):
  if not arguments:
    raise UserError("expected at least one run directory")
  for folder in map(pathlib.Path, arguments):
    config = config_of(folder)
    target = pathlib.Path(FLAGS.output) / name_of(folder, config)
    checkpoint = newest_checkpoint(folder)
    if checkpoint is None:
      raise UserError(f"{folder}: no checkpoint in it yet")
    shutil.rmtree(target, ignore_errors=True)  # an older checkpoint would stay beside the newer one
    (target / "checkpoints").mkdir(parents=True)
    # Of a policy the best is what is evaluated; a network of images is too large to be kept twice.
    best = [checkpoint.with_name("best.npz")] if config.has_policy else []
    for path in (*(folder / name for name in LOGS), checkpoint, *best):
      if path.exists():
        shutil.copyfile(path, target / path.relative_to(folder))
    if (folder / TRAINING).exists():
      record = without_paths(read_json(folder / TRAINING))
      (target / TRAINING).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    (target / "config.json").write_text(json.dumps(config.portable(), indent=2) + "\n", encoding="utf-8")
    size = sum(path.stat().st_size for path in target.rglob("*") if path.is_file())
    print(f"wrote {target}: iteration {iteration_of(checkpoint)}, {size / 1e6:.1f} MB; to continue it:")
    print(continue_command(target, config))


def newest_checkpoint(folder):
  """The path of a run directory's newest checkpoint, or None."""
  return max(pathlib.Path(folder).glob("checkpoints/model*.npz"), key=iteration_of, default=None)


def iteration_of(checkpoint):
  return int(re.fullmatch(r"model(\d+)\.npz", checkpoint.name)[1])


def config_of(folder):
  """The settings that a run directory was trained with."""
  return resolve(**read_json(pathlib.Path(folder) / "config.json"))


def read_json(path):
  try:
    return json.loads(path.read_text(encoding="utf-8"))
  except OSError as error:
    raise UserError(f"{path}: {error.strerror}; name run directories that main.py made") from error
  except ValueError as error:
    raise UserError(f"{path}: damaged ({error})") from error


def name_of(folder, config):
  """The name under which the package as it is now looks for this run: a setting it has learned since may be in it."""
  if config.init_from is not None or config.datasource == "folder":
    return pathlib.Path(folder).name  # its hash holds data that need not be here
  import_tensorflow()
  from maml_tf.experiments import run

  return run.run_directory(config).path.name


def without_paths(content):
  """Nested content whose commands do not name the folders of the machine that they ran on."""
  if isinstance(content, dict):
    return {name: without_paths(value) for name, value in content.items()}
  if isinstance(content, list):
    return [without_paths(value) for value in content]
  if isinstance(content, str) and content.startswith("python scripts/"):
    aside = tuple(f"--{name}=" for name in PATHS)
    return shlex.join(part for part in shlex.split(content) if not part.startswith(aside))
  return content


def train_command(config):
  """The shortest command line that trains as a config does."""
  settings = {name: value for name, value in config.to_dict().items() if name not in ASIDE}
  given = {"datasource": config.datasource}
  for name in (*DECISIVE, *settings):
    if settings[name] != getattr(resolve(**given), name):
      given[name] = settings[name]
  return shlex.join(["python", "scripts/main.py", *(f"--{name}={value}" for name, value in given.items())])


def continue_command(kept, config):
  """The command that continues a kept run in logs/, the default folder."""
  return f"mkdir -p logs && cp -r {shlex.quote(str(kept))} logs/ && {train_command(config)}"


if __name__ == "__main__":
  sys.exit(main_of(keep, __doc__))
