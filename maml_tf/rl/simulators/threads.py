"""HalfCheetah through `mujoco.rollout`: all environments in one call, on MuJoCo's own threads."""

import numpy as np

from maml_tf.rl.envs.definition import Physics
from maml_tf.rl.envs.physics import mujoco
from maml_tf.rl.simulators.planar import PlanarBody
from maml_tf.rl.simulators.vector import MujocoVectorEnv


class ThreadVectorEnv(MujocoVectorEnv):
  """A simulator for definitions that need no more than qpos, qvel and a planar robot's centre of mass.

  Args:
    definition, num_envs: see `MujocoVectorEnv`.
    sim_threads: number of threads.
  """

  def __init__(self, definition, num_envs, sim_threads):
    super().__init__(definition, num_envs)
    if set(definition.derived) - {"com", "com_velocity"} or definition.warm_start:
      raise ValueError(f"{definition.name}: `mujoco.rollout` does not return what this task needs; use processes")
    from mujoco.rollout import Rollout

    self._body = PlanarBody(self.model) if definition.derived else None
    # No thread of its own for one: the caller's does the work.
    self._rollout = Rollout(nthread=sim_threads if sim_threads > 1 else 0)
    self._data = [mujoco.MjData(self.model) for _ in range(sim_threads)]
    self._states = np.zeros((num_envs, 1 + self.model.nq + self.model.nv))  # time, qpos, qvel (mjSTATE_FULLPHYSICS)
    self._trajectories = np.zeros((num_envs, definition.frame_skip, self._states.shape[1]))
    self._rest = np.concatenate([[0.0], self.model.qpos0, np.zeros(self.model.nv)])

  def close_extras(self, **_):
    self._rollout.close()

  def _start(self, qpos, qvel):
    self._states = np.concatenate([np.zeros((self.num_envs, 1)), qpos, qvel], axis=1)
    return self._read()

  def _advance(self, controls, running):
    self._states[~running] = self._rest  # what has diverged must not go into MuJoCo again
    controls = np.repeat(controls[:, None], self.definition.frame_skip, axis=1)
    self._rollout.rollout(
      [self.model] * self.num_envs, self._data, self._states, controls, skip_checks=True,
      nstep=self.definition.frame_skip, state=self._trajectories,
    )  # fmt: skip
    self._states = self._trajectories[:, -1].copy()
    return self._read()

  def _read(self):
    qpos, qvel = self._states[:, 1 : 1 + self.model.nq].copy(), self._states[:, 1 + self.model.nq :].copy()
    if self._body is None:
      return Physics(qpos, qvel)
    with np.errstate(invalid="ignore", over="ignore"):
      return Physics(qpos, qvel, *self._body.centre_of_mass(qpos, qvel))
