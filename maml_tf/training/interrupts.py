"""Ctrl-C and `kill`: acknowledged at once, put off while something is written, and heard within seconds.

Python runs its handlers when the main thread comes back from TensorFlow, which may take as long as an iteration does. A
thread that the kernel wakes says at once that the signal was heard. Where the main thread does not come back within
`GRACE` seconds, that thread keeps what there is (`last_resort`) and ends the process.
"""

import contextlib
import os
import select
import signal
import sys
import threading
import time

SIGNALS = (signal.SIGINT, signal.SIGTERM)
GRACE = 5.0  # seconds
_SAME = 1.0  # seconds within which a second signal is the same Ctrl-C, passed on by a parent process
_came_through = threading.Event()
_last_resort = None
_raised = False


class Interrupted(KeyboardInterrupt):
  """A signal that ends the run; `status` is the exit status that shells know it by."""

  def __init__(self, signum):
    super().__init__("interrupted; the same command goes on from the last checkpoint")
    self.status = 128 + signum


def say_on_stderr(line):
  """One line; on a terminal below the progress bar."""
  with contextlib.suppress(OSError):
    os.write(2, f"{chr(10) if os.isatty(2) else ''}{line}\n".encode())


@contextlib.contextmanager
def heard(say=say_on_stderr):
  """Inside, SIGINT and SIGTERM are acknowledged at once and raise `Interrupted` in the main thread.

  A second signal ends the process at once. A signal that is ignored (by `nohup`, say) stays so.

  Args:
    say: function of one line of text, called in another thread.
  """
  if threading.current_thread() is not threading.main_thread():
    yield
    return
  reader, writer = os.pipe()
  os.set_blocking(writer, False)
  _came_through.clear()
  global _raised
  _raised = False
  before = {s: signal.signal(s, _raise) for s in SIGNALS if signal.getsignal(s) is not signal.SIG_IGN}
  wakeup = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
  thread = threading.Thread(target=_watch, args=(reader, say), daemon=True, name="interrupts")
  thread.start()
  try:
    yield
  finally:
    signal.set_wakeup_fd(wakeup)
    for number, handler in before.items():
      signal.signal(number, handler)
    os.close(writer)  # which ends the thread
    thread.join()
    os.close(reader)


@contextlib.contextmanager
def held():
  """Puts an interrupt off to the end of the block, so that what belongs together is done together."""
  if threading.current_thread() is not threading.main_thread():
    yield
    return
  noted = []

  def note(signum, frame):
    _came_through.set()
    noted.append((signum, frame))

  before = {number: signal.getsignal(number) for number in SIGNALS}
  before = {number: handler for number, handler in before.items() if callable(handler)}
  for number in before:
    signal.signal(number, note)
  try:
    yield
  finally:
    for number, handler in before.items():
      signal.signal(number, handler)
    if noted:
      before[noted[0][0]](*noted[0])


@contextlib.contextmanager
def last_resort(function):
  """Inside, `function` is called in another thread where the main one does not come back; it returns a line to say."""
  global _last_resort
  before, _last_resort = _last_resort, function
  try:
    yield
  finally:
    _last_resort = before


def _raise(signum, frame):
  global _raised
  del frame
  _came_through.set()
  if not _raised:  # a second one must not disturb the saving; `_watch` ends the process
    _raised = True
    raise Interrupted(signum)


def _watch(reader, say):
  """Reads the numbers of the signals that the kernel's handler writes, until the pipe is closed."""
  while (signum := _next(reader)) not in SIGNALS:
    if signum is None:
      return
  say(f"{signal.Signals(signum).name}: stopping; once more ends it without keeping anything")
  began = time.monotonic()
  while True:
    left = None if _came_through.is_set() else began + GRACE - time.monotonic()
    if left is not None and left <= 0:
      _end(signum, say)
    ready, _, _ = select.select([reader], [], [], 0.2 if left is None else min(left, 0.2))
    again = _next(reader) if ready else 0
    if again is None:
      return
    if again in SIGNALS and time.monotonic() - began > _SAME:
      os._exit(128 + again)


def _end(signum, say):
  try:
    say(_last_resort() if _last_resort is not None else str(Interrupted(signum)))
  except Exception as error:  # whatever it is, the process ends
    say(f"nothing could be kept: {error}")
  sys.stdout.flush()
  os._exit(128 + signum)


def _next(reader):
  data = os.read(reader, 1)
  return data[0] if data else None


# A process that is forked (a simulator's) must not write into this one's pipe.
os.register_at_fork(after_in_child=lambda: _forget())


def _forget():
  if threading.current_thread() is threading.main_thread():
    with contextlib.suppress(ValueError):
      signal.set_wakeup_fd(-1)
