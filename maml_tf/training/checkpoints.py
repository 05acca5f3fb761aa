"""Checkpoints: one file each, a NumPy archive of every tensor of the state with its metadata."""

import contextlib
import io
import json
import os
import pathlib
import re

import numpy as np
import tensorflow as tf

from maml_tf.errors import UserError
from maml_tf.regular_files import opened

FORMAT_VERSION = 1
_METADATA = "__metadata__"
_SEPARATOR = ":"  # weight names contain slashes


class DamagedCheckpointError(UserError):
  """A checkpoint file that cannot be read; another one may be."""


def write(path, state, metadata):
  """Writes a state (nested dict of tensors) and JSON-able metadata atomically, and on disk when it returns."""
  arrays = {name: np.asarray(value) for name, value in _flatten(state).items()}
  # The number of tensors, since one flipped byte in a zip's directory can hide some of its members.
  text = json.dumps({"format_version": FORMAT_VERSION, **metadata, "tensors": len(arrays)})
  buffer = io.BytesIO()
  np.savez(buffer, **{_METADATA: np.array(text)}, **arrays)
  write_atomically(path, buffer.getvalue())


def read(path, like=None):
  """(state, metadata) of a checkpoint file.

  Args:
    path: the file.
    like: a state of the structure, shapes and dtypes that are expected; None: anything goes.

  Raises:
    DamagedCheckpointError: the file cannot be read.
    UserError: it is of a newer format, or not of the structure of `like`.
  """
  try:
    with opened(path) as file, np.load(file, allow_pickle=False) as archive:
      metadata = json.loads(str(archive[_METADATA]))
      arrays = {name: archive[name] for name in archive.files if name != _METADATA}
    version = whole_number(metadata["format_version"], "format_version")
    if len(arrays) != whole_number(metadata["tensors"], "tensors"):
      raise ValueError(f"{len(arrays)} of {metadata['tensors']} tensors")
    if "iteration" in metadata:
      whole_number(metadata["iteration"], "iteration")
  except Exception as error:  # a flipped bit in a zip or NumPy header raises nearly anything
    reason = str(error).strip().partition("\n")[0] or type(error).__name__
    raise DamagedCheckpointError(f"{path}: damaged checkpoint ({reason})") from error
  if version > FORMAT_VERSION:
    raise UserError(
      f"{path}: its format version is {version}, this package reads up to {FORMAT_VERSION}; install a newer maml_tf"
    )
  state = _unflatten(arrays)
  return state if like is None else _conform(path, state, like), metadata


def whole_number(value, name):
  """`value`, where it is a number of iterations or the like.

  Raises:
    ValueError: it is not.
  """
  if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**31:
    raise ValueError(f"its {name} is {str(value)[:40]!r}, a whole number is expected")
  return value


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
      path = self._path(iteration)
      if path.is_dir():  # damaged: no file of ours
        path.rename(path.with_suffix(".npz.damaged"))
      else:
        path.unlink(missing_ok=True)

  def save_best(self, state, metadata):
    write(self.best_path, state, metadata)

  def rewind(self, iteration):
    """Renames the files after `iteration`, where training goes on from: they were damaged.

    Under their own names they would count as the newest, and pruning would remove good ones in their place.
    """
    for later in (i for i in self.iterations() if i > iteration):
      self._path(later).rename(self._path(later).with_suffix(".npz.damaged"))

  def load(self, iteration=None, like=None):
    """(state, metadata) of one iteration, or of the newest readable checkpoint; None where there is none at all.

    Args:
      iteration: of the checkpoint; None: the newest readable one, and `best.npz` where no other is readable.
      like: as in `read`.

    Raises:
      UserError: the iteration asked for is not there, every file is damaged, or one is not like `like`.
    """
    if iteration is not None:
      return read(self._find(iteration), like)
    candidates = [self._path(i) for i in reversed(self.iterations())]
    candidates += [self.best_path] if self.best_path.exists() else []
    for index, path in enumerate(candidates):
      try:
        return read(path, like)
      except DamagedCheckpointError as error:
        if index + 1 < len(candidates):
          self.warn(f"{error}; falling back to the previous one, {candidates[index + 1].name}")
    if candidates:
      raise UserError(f"{self.folder}: every checkpoint is damaged; resume=False puts this run aside and starts anew")
    return None

  def _find(self, iteration):
    """The file of one iteration."""
    available = {i: self._path(i) for i in self.iterations()}
    with contextlib.suppress(UserError):
      if self.best_path.exists():
        available.setdefault(read(self.best_path)[1]["iteration"], self.best_path)
    if iteration not in available:
      there = ", ".join(map(str, sorted(available))) or "none"
      raise UserError(f"iteration={iteration}: no such checkpoint in {self.folder} (there: {there})")
    return available[iteration]

  def _path(self, iteration):
    return self.folder / f"model{iteration}.npz"


@contextlib.contextmanager
def writing(path):
  """Turns what goes wrong while `path` is written (a full disk, a folder in its place) into a `UserError`."""
  try:
    yield
  except (OSError, tf.errors.OpError) as error:
    reason = getattr(error, "strerror", None) or str(error).strip().partition("\n")[0]
    raise UserError(f"{path}: cannot be written ({reason}); what was there before is kept") from error


def temporary_name(path):
  """The name under which `path` is written, before it is renamed into place by this process."""
  return path.with_name(f".{path.name}.tmp{os.getpid()}")


def write_atomically(path, data):
  """Writes bytes or text to a temporary file beside `path`, flushes it to the disk and renames it into place."""
  path = pathlib.Path(path)
  temporary = temporary_name(path)
  with writing(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
      with open(temporary, "wb") as file:
        file.write(data.encode() if isinstance(data, str) else data)
        file.flush()
        os.fsync(file.fileno())
      os.replace(temporary, path)
      _sync_folder(path.parent)
    finally:
      temporary.unlink(missing_ok=True)


def _sync_folder(folder):
  """Makes a rename in `folder` outlast a power failure, where the file system can."""
  with contextlib.suppress(OSError):
    handle = os.open(folder, os.O_RDONLY)
    try:
      os.fsync(handle)
    finally:
      os.close(handle)


def _flatten(state, prefix=""):
  flat = {}
  for name, value in state.items():
    escaped = prefix + name.replace("%", "%25").replace(_SEPARATOR, "%3A")
    if isinstance(value, dict):
      flat |= _flatten(value, escaped + _SEPARATOR)
    else:
      flat[escaped] = value
  return flat


def _unflatten(arrays):
  state = {}
  for name, array in arrays.items():
    *groups, last = (part.replace("%3A", _SEPARATOR).replace("%25", "%") for part in name.split(_SEPARATOR))
    inner = state
    for group in groups:
      inner = inner.setdefault(group, {})
    inner[last] = tf.constant(array)
  return state


def _conform(path, state, like, prefix=""):
  """`state` in the order of `like`, whose names, shapes and dtypes it must have.

  The order matters: a sum over a dict's values, the norm of a gradient, has to come out the same bit for bit.
  """
  advice = "; it was written by another model or version: resume=False puts the run aside, or name another folder"
  for name in state:
    if name not in like:
      raise UserError(f"{path}: the checkpoint holds {prefix}{name}, which is not expected here{advice}")
  ordered = {}
  for name, expected in like.items():
    if isinstance(expected, dict):
      group = state.get(name, {})  # a file knows no empty groups
      if not isinstance(group, dict):
        raise UserError(f"{path}: {prefix}{name} is a tensor, a group of tensors is expected{advice}")
      ordered[name] = _conform(path, group, expected, f"{prefix}{name}/")
      continue
    if name not in state:
      raise UserError(f"{path}: the checkpoint lacks {prefix}{name}{advice}")
    found, wanted = _describe(state[name]), _describe(expected)
    if found != wanted:
      raise UserError(f"{path}: {prefix}{name} is {found}, {wanted} is expected{advice}")
    ordered[name] = state[name]
  return ordered


def _describe(value):
  if isinstance(value, dict):
    return "a group of tensors"
  array = tf.convert_to_tensor(value)
  return f"{array.dtype.name} {list(array.shape)}"
