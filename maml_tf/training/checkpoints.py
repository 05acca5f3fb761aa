"""Checkpoints: one file each, a NumPy archive of every tensor of the state with its metadata."""

import io
import json
import os
import pathlib
import re
import zipfile

import numpy as np
import tensorflow as tf

from maml_tf.errors import UserError

FORMAT_VERSION = 1
_METADATA = "__metadata__"
_SEPARATOR = ":"  # weight names contain slashes


def write(path, state, metadata):
  """Writes a state (nested dict of tensors) and JSON-able metadata atomically, and on disk when it returns."""
  arrays = {name: np.asarray(value) for name, value in _flatten(state).items()}
  text = json.dumps({"format_version": FORMAT_VERSION, **metadata})
  buffer = io.BytesIO()
  np.savez(buffer, **{_METADATA: np.array(text)}, **arrays)
  write_atomically(path, buffer.getvalue())


def read(path):
  """(state, metadata) of a checkpoint file.

  Raises:
    UserError: the file is damaged, or of a newer format.
  """
  try:
    with np.load(path, allow_pickle=False) as archive:
      arrays = {name: archive[name] for name in archive.files}
    metadata = json.loads(str(arrays.pop(_METADATA)))
  except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
    raise UserError(f"{path}: damaged checkpoint ({error})") from error
  if metadata["format_version"] > FORMAT_VERSION:
    raise UserError(
      f"{path}: its format version is {metadata['format_version']}, this package reads up to "
      f"{FORMAT_VERSION}; install a newer maml_tf"
    )
  return _unflatten(arrays), metadata


class CheckpointFolder:
  """The checkpoints of one run: the newest few, `model<iteration>.npz`, and the best by validation, `best.npz`.

  Args:
    folder: where they lie.
    keep: how many of the newest to keep.
    warn: function of one line of text, for what the user should know.
  """

  def __init__(self, folder, keep=3, warn=print):
    self.folder, self.keep, self.warn = pathlib.Path(folder), keep, warn

  @property
  def best_path(self):
    return self.folder / "best.npz"

  def iterations(self):
    """Iterations of which there is a file, ascending."""
    names = self.folder.glob("model*.npz") if self.folder.is_dir() else []
    matches = (re.fullmatch(r"model(\d+)\.npz", path.name) for path in names)
    return sorted(int(match[1]) for match in matches if match)

  def save(self, state, metadata):
    """Writes the checkpoint of `metadata["iteration"]`, then removes the oldest ones."""
    write(self._path(metadata["iteration"]), state, metadata)
    for iteration in self.iterations()[: -self.keep]:
      self._path(iteration).unlink()

  def save_best(self, state, metadata):
    write(self.best_path, state, metadata)

  def load(self, iteration=None):
    """(state, metadata) of one iteration, or of the newest readable checkpoint; None where there is none at all.

    Raises:
      UserError: the iteration asked for is not there, or every file is damaged.
    """
    available = self.iterations()
    if iteration is not None:
      if iteration not in available:
        there = ", ".join(map(str, available)) or "none"
        raise UserError(f"--test_iter={iteration}: no such checkpoint in {self.folder} (there: {there})")
      return read(self._path(iteration))
    for candidate in reversed(available):
      try:
        return read(self._path(candidate))
      except UserError as error:
        self.warn(f"{error}; falling back to the previous one")
    if available:
      raise UserError(f"{self.folder}: every checkpoint is damaged; --resume=False puts this run aside and starts anew")
    return None

  def _path(self, iteration):
    return self.folder / f"model{iteration}.npz"


def write_atomically(path, data):
  """Writes bytes or text to a temporary file beside `path`, flushes it to the disk and renames it into place."""
  path = pathlib.Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  temporary = path.with_name(f".{path.name}.{os.getpid()}")
  try:
    with open(temporary, "wb") as file:
      file.write(data.encode() if isinstance(data, str) else data)
      file.flush()
      os.fsync(file.fileno())
    os.replace(temporary, path)
  finally:
    temporary.unlink(missing_ok=True)


def _flatten(state, prefix=""):
  flat = {}
  for name, value in state.items():
    if isinstance(value, dict):
      flat |= _flatten(value, f"{prefix}{name}{_SEPARATOR}")
    else:
      flat[prefix + name] = value
  return flat


def _unflatten(arrays):
  state = {}
  for name, array in arrays.items():
    *groups, last = name.split(_SEPARATOR)
    inner = state
    for group in groups:
      inner = inner.setdefault(group, {})
    inner[last] = tf.constant(array)
  return state
