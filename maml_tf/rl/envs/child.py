"""Child processes that run a module of this package and talk over their standard input and output.

They are started afresh, not forked and not by `multiprocessing`: TensorFlow stays out of them, and the script that is
running is not imported again, so that it needs no `__main__` guard. A child reads until its input ends; it cannot
outlive the process that holds the other end, however that one ends.
"""

import contextlib
import os
import pathlib
import pickle
import signal
import subprocess
import sys

import maml_tf


def start(module, message, pass_fds=(), stderr=None, **variables):
  """Starts `python -m module` and hands it a message.

  Args:
    module: its full name.
    message: what can be pickled.
    pass_fds: descriptors of files that the child inherits.
    stderr: as in `subprocess.Popen`.
    **variables: added to its environment.

  Returns:
    The `subprocess.Popen`, with pipes to its input and output.
  """
  package = str(pathlib.Path(maml_tf.__file__).parent.parent)
  path = os.pathsep.join([package, *filter(None, [os.environ.get("PYTHONPATH")])])
  process = subprocess.Popen(
    [sys.executable, "-m", module],
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
    stderr=stderr,
    pass_fds=pass_fds,
    env={**os.environ, "PYTHONPATH": path, **variables},
  )
  send(process, pickle.dumps(message))
  return process


def send(process, data):
  """Writes bytes to a child; whether it died is noticed when its answer is read."""
  with contextlib.suppress(BrokenPipeError):
    process.stdin.write(data)
    process.stdin.flush()


def stop(processes):
  """Ends children by the end of their input, or by force where they do not answer to that; waits for them."""
  for process in processes:
    with contextlib.suppress(BrokenPipeError):  # it is dead already
      process.stdin.close()
  for process in processes:
    try:
      process.wait(timeout=5)
    except subprocess.TimeoutExpired:
      process.kill()
      process.wait()
    process.stdout.close()


def connect():
  """In a child: (the message, a file to read commands from, a file to write answers to)."""
  signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the whole group; the parent decides what it means
  answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
  os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # whatever else is printed must not look like an answer
  return pickle.load(sys.stdin.buffer), sys.stdin.buffer, answers
