"""What is computed once and kept: files that survive a crash, one process at a time."""

import contextlib
import fcntl
import os
import sys


@contextlib.contextmanager
def locked(folder, doing):
  """Lets one process at a time work in a folder; another waits.

  The lock is on the folder itself, so it leaves no file; the kernel lets go of it when a process dies.

  Args:
    folder: its path; it exists.
    doing: what the other process does, for a line to who waits at a terminal.

  Yields:
    Whether this process is alone: a file system may have no locks, and then all work at once.
  """
  descriptor = os.open(folder, os.O_RDONLY)
  try:
    alone = False
    with contextlib.suppress(OSError):
      _wait_for_lock(descriptor, f"another process is {doing} {folder}; waiting for it")
      alone = True
    yield alone
  finally:
    os.close(descriptor)


def _wait_for_lock(descriptor, message):
  try:
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
  except BlockingIOError:
    if sys.stderr.isatty():
      print(message, file=sys.stderr, flush=True)
    fcntl.flock(descriptor, fcntl.LOCK_EX)


def write(path, chunks):
  """Writes a file that survives a crash of the machine once this returns."""
  with open(path, "wb") as file:
    for chunk in chunks:
      file.write(chunk)
    file.flush()
    os.fsync(file.fileno())
