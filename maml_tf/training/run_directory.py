"""The folder of one run: who may write in it, and what lies where."""

import contextlib
import fcntl
import json
import math
import os
import pathlib
import re
import shutil
import time

from maml_tf.errors import UserError
from maml_tf.training.checkpoints import write_atomically


class RunDirectory:
  """Paths inside a run's folder.

  Attributes:
    path: the folder itself.
  """

  def __init__(self, path):
    self.path = pathlib.Path(path)

  checkpoints = property(lambda self: self.path / "checkpoints")
  config = property(lambda self: self.path / "config.json")
  events = property(lambda self: self.path / "events")
  metrics = property(lambda self: self.path / "metrics.csv")
  plots = property(lambda self: self.path / "plots")
  evaluation = property(lambda self: self.path / "evaluation.json")
  results = property(lambda self: self.path / "results.json")
  training = property(lambda self: self.path / "training.json")
  saved_model = property(lambda self: self.path / "saved_model")
  validation = property(lambda self: self.path / "validation.csv")

  @property
  def pretraining(self):
    """The run, inside this one, of the pretraining that comes before its meta-training."""
    return RunDirectory(self.path / "pretraining")

  @contextlib.contextmanager
  def locked(self):
    """Holds the folder against other processes. The kernel lets go when the process dies, however it dies.

    Raises:
      UserError: the folder cannot be made or written, or another process holds it.
    """
    try:
      self.path.mkdir(parents=True, exist_ok=True)
      lock = open(self.path / "lock", "a+")  # noqa: SIM115
    except OSError as error:
      raise UserError(f"{self.path}: cannot write here: {error.strerror}; name a folder that can be written") from error
    with lock:
      self._hold(lock)
      self._clean()
      yield self

  def put_aside(self):
    """Moves the content of an older run to `<name>.old-<time>`; returns the new path, or None for an empty one."""
    # Checkpoints first: a run that is killed half-way through must not find them without their metrics.
    entries = sorted(self.path.iterdir(), key=lambda entry: (entry != self.checkpoints, entry.name))
    entries = [entry for entry in entries if entry.name != "lock"]
    if not entries:
      return None
    target = self._unused(f"{self.path.name}.old-{time.strftime('%Y%m%d-%H%M%S')}")
    target.mkdir()
    for entry in entries:
      entry.rename(target / entry.name)
    return target

  def write_json(self, path, content):
    """Writes JSON as the standard has it: a number that is not finite becomes null."""
    write_atomically(path, json.dumps(_finite(content), indent=2, allow_nan=False) + "\n")

  def _hold(self, lock):
    try:
      fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
      lock.seek(0)
      owner = lock.read().strip() or "unknown"
      raise UserError(
        f"{self.path}: another process (pid {owner}) is using this run; wait for it, or choose another folder or seed"
      ) from error
    except OSError as error:
      raise UserError(
        f"{self.path / 'lock'}: cannot lock it: {error.strerror}; name a folder whose file system has locks"
      ) from error
    # Only for the message above, so a full disk does not matter.
    with contextlib.suppress(OSError):
      lock.truncate(0)
      lock.write(f"{os.getpid()}\n")
      lock.flush()

  def _clean(self):
    """Removes what a killed process was still writing: nobody else writes here while the lock is held."""
    for folder in (self.path, self.checkpoints, self.pretraining.path, self.pretraining.checkpoints):
      for entry in folder.glob(".*.tmp*"):
        if re.fullmatch(r"\..+\.tmp\d+", entry.name) and entry.is_file():
          entry.unlink(missing_ok=True)
    for entry in self.path.glob(f".{self.saved_model.name}.????????"):
      if (entry / "old").is_dir() and not self.saved_model.exists():
        (entry / "old").rename(self.saved_model)  # killed between moving the older one away and the new one in
      shutil.rmtree(entry, ignore_errors=True)

  def _unused(self, name):
    """A path beside this folder that does not exist yet."""
    candidates = [name, *(f"{name}-{i}" for i in range(2, 1000))]
    return next(p for p in map(self.path.with_name, candidates) if not p.exists())


def _finite(content):
  if isinstance(content, dict):
    return {name: _finite(value) for name, value in content.items()}
  if isinstance(content, (list, tuple)):
    return [_finite(value) for value in content]
  return None if isinstance(content, float) and not math.isfinite(content) else content
