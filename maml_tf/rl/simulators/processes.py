"""Ant in worker processes that share memory with this one."""

import os
import tempfile

from maml_tf.rl.envs import child
from maml_tf.rl.envs.definition import Physics
from maml_tf.rl.simulators import worker
from maml_tf.rl.simulators.vector import MujocoVectorEnv


class ProcessVectorEnv(MujocoVectorEnv):
  """A simulator for any definition; each process steps every n-th environment.

  The shared memory is a file without a name, so that nothing is left behind however this process ends.

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
        self._workers += (child.start(worker.__name__, share, pass_fds=[file.fileno()]),)
    try:
      for process in self._workers:
        self._await(process)
    except BaseException:
      self.close()
      raise

  def close_extras(self, **_):
    child.stop(self._workers)
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
        child.send(process, command)
      for process in self._workers:
        self._await(process)
    except BaseException:  # an answer that nobody waited for, after Ctrl-C, would be taken for that of the next step
      self.close()
      raise
    return Physics(**{name: self._arrays[name].copy() for name in ("qpos", "qvel", *self.definition.derived)})

  def _await(self, process):
    if process.stdout.read(1) != worker.DONE:
      self._report(process)

  def _report(self, process):
    status = process.wait()
    how = f"by signal {-status}" if status < 0 else f"with status {status}"
    reason = "; signal 9 is often the system's answer to too little memory" if status == -9 else ""
    raise RuntimeError(
      f"a simulation process (pid {process.pid}) ended {how}{reason}; what it printed is above. "
      "Start again, with fewer threads or rollouts if memory is short"
    )


def _unnamed_file():
  """A file that lives in memory, or on Linux's relatives without such files, in the folder of temporary ones."""
  return os.fdopen(os.memfd_create("maml_tf"), "w+b") if hasattr(os, "memfd_create") else tempfile.TemporaryFile()
