"""Ant in worker processes that share memory with this one."""

import contextlib
import os
import pathlib
import pickle
import subprocess
import sys
import tempfile

import maml_tf
from maml_tf.rl.envs.definition import Physics
from maml_tf.rl.simulators import worker
from maml_tf.rl.simulators.vector import MujocoVectorEnv


class ProcessVectorEnv(MujocoVectorEnv):
  """A simulator for any definition; each process steps every n-th environment.

  The shared memory is a file without a name, so there is nothing to remove however this process ends; and the workers
  end with their standard input, which is this process's to hold.

  Args:
    definition, num_envs: see `MujocoVectorEnv`.
    num_processes: number of workers.
  """

  _workers: tuple = ()  # also where a constructor fails early and `close` runs all the same

  def __init__(self, definition, num_envs, num_processes):
    super().__init__(definition, num_envs)
    with _unnamed_file() as file:
      self._arrays = worker.shared_arrays(definition, self.model, num_envs, file.fileno())
      for first in range(num_processes):
        share = worker.Share(definition, num_envs, first, num_processes, file.fileno())
        self._workers += (_start_worker(share),)
    try:
      for process in self._workers:
        self._await(process)
    except BaseException:
      self.close()
      raise

  def close_extras(self, **_):
    for process in self._workers:
      with contextlib.suppress(BrokenPipeError):  # it is dead already
        process.stdin.close()
    for process in self._workers:
      try:
        process.wait(timeout=5)
      except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
      process.stdout.close()
    self._workers = ()

  def _start(self, qpos, qvel):
    self._arrays["qpos"][:], self._arrays["qvel"][:] = qpos, qvel
    return self._ask_all(worker.START)

  def _advance(self, controls, running):
    self._arrays["controls"][:], self._arrays["running"][:] = controls, running
    return self._ask_all(worker.ADVANCE)

  def _ask_all(self, command):
    if not self._workers:
      raise RuntimeError("this simulator is closed; make another")
    try:
      for process in self._workers:
        self._ask(process, command)
      for process in self._workers:
        self._await(process)
    except BaseException:  # an answer that nobody waited for, after Ctrl-C, would be taken for that of the next step
      self.close()
      raise
    return Physics(**{name: self._arrays[name].copy() for name in ("qpos", "qvel", *self.definition.derived)})

  def _ask(self, process, command):
    try:
      process.stdin.write(command)
      process.stdin.flush()
    except BrokenPipeError:
      self._report(process)

  def _await(self, process):
    if process.stdout.read(1) != worker.DONE:
      self._report(process)

  def _report(self, process):
    status = process.wait()
    how = f"by signal {-status}" if status < 0 else f"with status {status}"
    reason = "; signal 9 is often the system's answer to too little memory" if status == -9 else ""
    raise RuntimeError(
      f"a simulation process (pid {process.pid}) ended {how}{reason}; what it printed is above. "
      "Start again, with fewer --sim_threads or rollouts if memory is short"
    )


def _unnamed_file():
  """A file that lives in memory, or on Linux's relatives without such files, in the folder of temporary ones."""
  return os.fdopen(os.memfd_create("maml_tf"), "w+b") if hasattr(os, "memfd_create") else tempfile.TemporaryFile()


def _start_worker(share):
  package = str(pathlib.Path(maml_tf.__file__).parent.parent)
  paths = [package, *filter(None, [os.environ.get("PYTHONPATH")])]
  process = subprocess.Popen(
    [sys.executable, "-m", worker.__name__],
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
    pass_fds=[share.file],
    env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
  )
  pickle.dump(share, process.stdin)
  process.stdin.flush()
  return process
