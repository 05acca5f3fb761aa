"""HalfCheetah as rllab defined it (reference of Finn et al. 2017), and as Gymnasium's version 5 does."""

import numpy as np

from maml_tf.rl.envs.definition import Definition


class HalfCheetah(Definition):
  """rllab's: 0.01 s per action, the velocity of the whole body's centre of mass, control cost 0.05 sum(a^2).

  Observation: qpos without the root's x (8), qvel (9), centre of mass (3).
  `normalize()` clips actions before rllab's environment sees them, so the control cost is that of clipped ones.
  """

  asset = "half_cheetah.xml"
  timestep = 0.01
  initial_qpos = (0.0,) * 9
  num_velocities = 9
  observation_dim = 20
  action_dim = 6
  derived = ("com", "com_velocity")
  # `mujoco.rollout` does not hand back the solver's last solution. Starting cold makes a step a function of the state.
  warm_start = False

  def observe(self, after):
    return np.concatenate([after.qpos[:, 1:], after.qvel, after.com], axis=1)

  def reward(self, before, after, actions, goals):
    return self.progress(before, after, goals) - 0.05 * np.square(within_bounds(actions)).sum(axis=1)


class HalfCheetahV5(HalfCheetah):
  """Gymnasium's HalfCheetah-v5 with the task's reward in place of its forward reward.

  0.05 s per action, the root's velocity by finite differences, control cost 0.1 sum(a^2) on actions as they are given,
  observation without the centre of mass (17).
  """

  frame_skip = 5
  observation_dim = 17
  derived = ()
  finite_differences = True
  forward_after_step = False

  def initial_states(self, rng, num):
    return noisy_start(self, rng, num)

  def observe(self, after):
    return np.concatenate([after.qpos[:, 1:], after.qvel], axis=1)

  def reward(self, before, after, actions, goals):
    return self.progress(before, after, goals) - 0.1 * np.square(actions).sum(axis=1)

  def velocity(self, before, after):
    return (after.qpos[:, 0] - before.qpos[:, 0]) / self.dt


def noisy_start(definition, rng, num):
  """(qpos, qvel) at the start of an episode of version 5: uniform noise of 0.1 on positions, normal on velocities."""
  qpos = definition.initial_qpos + rng.uniform(-0.1, 0.1, (num, len(definition.initial_qpos)))
  return qpos, 0.1 * rng.standard_normal((num, definition.num_velocities))


def within_bounds(actions):
  """Actions as rllab's `normalize()` hands them on; what is no number stays so."""
  return np.minimum(np.maximum(actions, -1.0), 1.0)
