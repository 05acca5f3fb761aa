"""Checksums of the files in a folder, kept beside them: what a disk, a copy or a program has changed is noticed."""

import hashlib
import json
import os
import pathlib
import stat

NAME = "checksums.json"
_CHUNK = 1 << 20  # bytes


def of_file(path):
  """The SHA-256 of a file, in hexadecimal.

  Raises:
    OSError: the file is not there, or cannot be read.
    ValueError: it is a folder, a pipe or a device.
  """
  if not stat.S_ISREG(os.stat(path).st_mode):  # reading from a pipe would wait for ever
    raise ValueError("not a regular file")
  digest = hashlib.sha256()
  with open(path, "rb") as file:
    while chunk := file.read(_CHUNK):
      digest.update(chunk)
  return digest.hexdigest()


def write(folder):
  """Writes `checksums.json` for all files that are in a folder and in the folders inside it."""
  folder = pathlib.Path(folder)
  files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != NAME)
  content = {path.relative_to(folder).as_posix(): of_file(path) for path in files}
  temporary = folder / f".{NAME}.{os.getpid()}"
  with open(temporary, "w", encoding="utf-8") as file:
    json.dump(content, file, indent=2)
    file.write("\n")
    file.flush()
    os.fsync(file.fileno())
  os.replace(temporary, folder / NAME)


def problem(folder, required=True):
  """What is wrong with the files of a folder that `write` has been called for.

  Files that came later do not count, unless they are pipes or devices: whoever reads the folder may wait for them.

  Args:
    folder: its path.
    required: whether a folder without checksums has a problem.

  Returns:
    None where each file is what it was; else one line of text, without the name of the folder.
  """
  folder = pathlib.Path(folder)
  for path in sorted(folder.rglob("*")):
    if path.exists() and not (path.is_file() or path.is_dir()):
      return f"{path.relative_to(folder).as_posix()} cannot be read (not a regular file)"
  if not required and not os.path.lexists(folder / NAME):
    return None
  try:
    expected = _read(folder / NAME)
  except (OSError, ValueError, RecursionError) as error:
    return f"{NAME} cannot be read ({getattr(error, 'strerror', None) or error})"
  for name, checksum in expected.items():
    try:
      found = of_file(folder / name)
    except (OSError, ValueError) as error:
      return f"{name} cannot be read ({getattr(error, 'strerror', None) or error})"
    if found != checksum:
      return f"{name} is not what was written"
  return None


def _read(path):
  """Dict of file name to checksum."""
  if not stat.S_ISREG(os.stat(path).st_mode):
    raise ValueError("not a regular file")
  content = json.loads(path.read_text(encoding="utf-8"))
  if not (isinstance(content, dict) and content and all(isinstance(value, str) for value in content.values())):
    raise ValueError("not a list of checksums")
  return content
