"""Processes that a queue starts: one that dies takes them along, and one that is ended first gets time to save."""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time

GRACE_SECONDS = 180
_PR_SET_PDEATHSIG = 1


class Child:
  """A Python process whose output goes into a file.

  Args:
    arguments: script and flags.
    log: path of the file; what it says is put at its end.
    folder: working directory.
    locks: file descriptors of locks that it holds as well, so that they are held as long as it lives.
    environment: variables on top of this process's own.
  """

  def __init__(self, arguments, log, folder, locks=(), environment=None):
    self.stopped_at, self._killed = None, False
    with open(log, "ab") as file:
      self._log, self._start = log, file.tell()
      self._process = subprocess.Popen(
        [sys.executable, *map(str, arguments)],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=file,
        stderr=subprocess.STDOUT,
        env={**os.environ, **(environment or {})},
        pass_fds=locks,
        start_new_session=True,  # Ctrl-C is for the queue, which ends its children one by one
        preexec_fn=_dies_with_parent(),
      )

  def ended(self):
    """Whether it has; one that was asked to stop and does not is killed after `GRACE_SECONDS`."""
    if self._process.poll() is not None:
      return True
    if self.stopped_at is not None and not self._killed and time.monotonic() > self.stopped_at + GRACE_SECONDS:
      self._killed = True
      os.killpg(self._process.pid, signal.SIGKILL)
    return False

  def stop(self):
    """Asks it to stop."""
    if self.stopped_at is None:
      self.stopped_at = time.monotonic()
      self._process.terminate()
      self._process.send_signal(signal.SIGCONT)  # one that was suspended would hear nothing

  def error(self):
    """What went wrong, in one line; None for one that ended well or was stopped."""
    code = self._process.returncode
    if code == 0 or self.stopped_at is not None:
      return None
    with open(self._log, "rb") as file:
      file.seek(self._start)
      lines = [line for line in file.read().decode(errors="replace").splitlines() if line.strip()]
    said = lines[-1].strip() if lines else "it said nothing"
    return f"killed by signal {-code} ({said})" if code < 0 else said


def _dies_with_parent():
  """A function for the new process: the kernel (Linux) sends it SIGTERM when this one dies; it is as nice as this."""
  if not sys.platform.startswith("linux"):
    return None
  prctl, parent = ctypes.CDLL(None).prctl, os.getpid()  # looked up here: after a fork only system calls are safe
  niceness = b"%d" % os.nice(0)

  def prepare():
    prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
      os._exit(143)
    # Where the kernel shares processors out among sessions first, `nice` means something within a session only, and
    # this is a new one.
    with contextlib.suppress(OSError):
      group = os.open("/proc/self/autogroup", os.O_WRONLY)
      os.write(group, niceness)
      os.close(group)

  return prepare
