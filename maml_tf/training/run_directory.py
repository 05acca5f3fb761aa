"""The folder of one run: who may write in it, and what lies where."""

import contextlib
import fcntl
import hashlib
import json
import os
import pathlib
import time

from maml_tf.errors import UserError
from maml_tf.training.checkpoints import write_atomically


def name_of(prefix, settings):
  """A readable prefix and a hash of what shapes training, so that two different trainings never share a folder.

  Args:
    prefix: readable text.
    settings: JSON-able dict of everything that shapes training.
  """
  text = json.dumps(settings, sort_keys=True)
  return f"{prefix}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


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
  results = property(lambda self: self.path / "results.json")
  saved_model = property(lambda self: self.path / "saved_model")
  validation = property(lambda self: self.path / "validation.csv")

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
      raise UserError(
        f"--logdir: cannot write to {self.path}: {error.strerror}; name a folder that can be written"
      ) from error
    with lock:
      try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
      except BlockingIOError as error:
        lock.seek(0)
        owner = lock.read().strip() or "unknown"
        raise UserError(
          f"{self.path}: another process (pid {owner}) is using this run; wait for it, or choose another --logdir or "
          "--seed"
        ) from error
      lock.truncate(0)
      lock.write(f"{os.getpid()}\n")
      lock.flush()
      yield self

  def put_aside(self):
    """Renames the content of an older run to `<name>.old-<time>`; returns the new path, or None for an empty one."""
    if not self.checkpoints.exists():
      return None
    target = self.path.with_name(f"{self.path.name}.old-{time.strftime('%Y%m%d-%H%M%S')}")
    target.mkdir()
    for entry in self.path.iterdir():
      if entry.name != "lock":
        entry.rename(target / entry.name)
    return target

  def write_json(self, path, content):
    write_atomically(path, json.dumps(content, indent=2) + "\n")
