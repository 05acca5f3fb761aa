"""Embeddings and partitions on disk, each under a fingerprint of all that it is made from, checked when it is read."""

import contextlib
import hashlib
import json
import os
import pathlib
import secrets
import shutil
import sys

import numpy as np

from maml_tf import caches, checksums
from maml_tf.errors import UserError

FORMAT_VERSION = 1


def fingerprint(array):
  """A short hash of an array's shape, type and content."""
  array = np.ascontiguousarray(array)
  digest = hashlib.sha256(json.dumps([str(array.dtype), list(array.shape)]).encode())
  digest.update(memoryview(array).cast("B"))
  return digest.hexdigest()[:16]


def arrays(cache_dir, name, made_from, make):
  """Arrays that are computed once.

  Args:
    cache_dir: folder of the caches; made where it is missing.
    name: readable beginning of the folder's name.
    made_from: JSON-able; whatever shapes the arrays is in it.
    make: function of a folder for work in progress -> dict of name -> array. What it leaves in that folder is there
      again when it is called after an interruption.

  Returns:
    The dict, as `make` returned it now or earlier.

  Raises:
    UserError: the cache cannot be written.
  """
  key = hashlib.sha256(json.dumps([FORMAT_VERSION, made_from], sort_keys=True).encode()).hexdigest()[:16]
  folder = pathlib.Path(cache_dir) / f"{name}-{key}"
  unfinished = folder.with_name(f"{folder.name}.unfinished")
  try:
    found = _read(folder)
    if found is not None:
      return found
    unfinished.mkdir(parents=True, exist_ok=True)
    with caches.locked(unfinished, "working in"):
      found = _read(folder)  # another process may have made it in the meantime
      if found is None:
        _publish(folder, make(unfinished))
        found = _read(folder)
      shutil.rmtree(unfinished, ignore_errors=True)
  except OSError as error:
    advice = "make room, or change the permissions"
    raise UserError(f"{error.filename or folder}: cannot keep {name} ({error.strerror}); {advice}") from error
  if found is None:
    raise UserError(f"{folder}: what was written just now is damaged; look after the disk, or have the cache elsewhere")
  return found


def _read(folder):
  """The arrays of a folder; None where it is not there. A damaged one is said, and removed."""
  if not folder.is_dir():
    return None
  problem = checksums.problem(folder)
  if problem is None:
    return {path.stem: np.load(path, allow_pickle=False) for path in sorted(folder.glob("*.npy"))}
  print(f"{folder}: this is damaged: {problem}; computing it anew", file=sys.stderr, flush=True)
  shutil.rmtree(folder)
  return None


def _publish(folder, made):
  """The folder appears whole or not at all."""
  temporary = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.half")
  temporary.mkdir()
  try:
    for name, array in made.items():
      save(temporary / f"{name}.npy", array)
    checksums.write(temporary)
    os.rename(temporary, folder)
  finally:
    shutil.rmtree(temporary, ignore_errors=True)


def save(path, array):
  """Writes one array; the file appears whole or not at all."""
  temporary = path.with_name(f".{path.name}.half")
  with open(temporary, "wb") as file:
    np.save(file, array, allow_pickle=False)
    file.flush()
    os.fsync(file.fileno())
  os.replace(temporary, path)


def load(path):
  """One array that `save` has written; None where there is none, or where it cannot be read."""
  with contextlib.suppress(OSError, ValueError, EOFError):
    return np.load(path, allow_pickle=False)
  return None
