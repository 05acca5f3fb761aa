"""A process that simulates its share of the environments of `processes.ProcessVectorEnv`; TensorFlow stays out of it.

It gets a `Share` (see `maml_tf.rl.envs.child`), then one byte per command, and answers each with one byte when it is
done. States and actions are in memory that both processes see.
"""

import mmap
import os
from typing import NamedTuple

import numpy as np

from maml_tf.rl.envs import child, physics
from maml_tf.rl.envs.definition import Definition
from maml_tf.rl.envs.physics import mujoco

START, ADVANCE, NOTHING, DONE = b"s", b"a", b"n", b"d"
FULL_STATE = int(mujoco.mjtState.mjSTATE_INTEGRATION)  # with the solver's warm start: a step is bit for bit the same


class Share(NamedTuple):
  """What a worker has to know: it simulates environments `first`, `first + every`, ... of `num_envs`."""

  definition: Definition
  num_envs: int
  first: int
  every: int
  file: int  # descriptor of the shared memory


def shared_arrays(definition, model, num_envs, file):
  """The arrays in a file of shared memory, which grows to fit: name -> float64 [num_envs, ...].

  "controls" and "running" go to the workers; "qpos", "qvel" and the definition's derived fields come back (the first
  two also go there, at the start).
  """
  shapes = {"controls": (model.nu,), "running": ()}
  looked_at = physics.views(definition, mujoco.MjData(model))
  shapes |= {name: view.shape for name, view in zip(("qpos", "qvel", *definition.derived), looked_at, strict=True)}
  sizes = [num_envs * int(np.prod(shape)) for shape in shapes.values()]
  os.ftruncate(file, 8 * sum(sizes))
  parts = np.split(np.frombuffer(mmap.mmap(file, 8 * sum(sizes)), np.float64), np.cumsum(sizes)[:-1])
  return {name: part.reshape(num_envs, *shape) for (name, shape), part in zip(shapes.items(), parts, strict=True)}


class Simulator:
  """A share of the environments, one after the other in a single MjData, which stays in the processor's cache."""

  def __init__(self, share):
    self._definition = share.definition
    self._model = physics.compile_model(share.definition)
    self._data = mujoco.MjData(self._model)
    self._arrays = shared_arrays(share.definition, self._model, share.num_envs, share.file)
    self._mine = range(share.first, share.num_envs, share.every)
    self._states = list(np.zeros((share.num_envs, mujoco.mj_stateSize(self._model, FULL_STATE))))
    here = physics.views(share.definition, self._data)
    there = [self._arrays[name] for name in ("qpos", "qvel", *share.definition.derived)]
    # Pairs of views (in MjData, in shared memory), made once: there are several per environment and step.
    self._copies = [[(source, target[env]) for source, target in zip(here, there, strict=True)] for env in self._mine]

  def start(self):
    """Puts the environments into the states that are in shared memory."""
    for env, copies in zip(self._mine, self._copies, strict=True):
      mujoco.mj_resetData(self._model, self._data)
      self._data.qpos[:], self._data.qvel[:] = self._arrays["qpos"][env], self._arrays["qvel"][env]
      physics.settle(self._definition, self._model, self._data)
      self._store(env, copies)

  def advance(self):
    """One action's time in those environments that still run."""
    running, controls = self._arrays["running"].tolist(), self._arrays["controls"]
    for env, copies in zip(self._mine, self._copies, strict=True):
      if running[env]:
        mujoco.mj_setState(self._model, self._data, self._states[env], FULL_STATE)
        self._data.ctrl[:] = controls[env]
        physics.advance(self._definition, self._model, self._data)
        self._store(env, copies)

  def _store(self, env, copies):
    mujoco.mj_getState(self._model, self._data, self._states[env], FULL_STATE)
    for source, target in copies:
      target[:] = source


def main():
  share, requests, answers = child.connect()
  simulator = Simulator(share)
  commands = {START: simulator.start, ADVANCE: simulator.advance, NOTHING: lambda: None}
  request = NOTHING  # the first answer says that it is there
  while request:
    commands[request]()
    answers.write(DONE)
    answers.flush()
    request = requests.read(1)


if __name__ == "__main__":
  main()
