"""Ant as rllab defined it (reference of Finn et al. 2017), and as Gymnasium's version 5 does."""

import numpy as np

from maml_tf.rl.envs.definition import Definition
from maml_tf.rl.envs.half_cheetah import noisy_start, within_bounds

HEALTHY = (0.2, 1.0)  # m, height of the torso


class Ant(Definition):
  """rllab's: 0.02 s per action (RK4), the centre of mass of the whole body, contact costs, ends where the ant falls.

  Observation: qpos (15), qvel (14), contact forces clipped to +-1 (84), the torso's rotation (9), centre of mass (3).
  rllab acts in +-150 with gear 1 and costs 0.005 sum((a / 150)^2); Gymnasium's asset acts in +-1 with gear 150, which
  is the same after rllab's `normalize()`.
  """

  asset = "ant.xml"
  timestep = 0.02
  solimp = (0.8, 0.8, 0.01)
  initial_qpos = (0, 0, 0.55, 1, 0, 0, 0, 0, 1, 0, -1, 0, -1, 0, 1)
  num_velocities = 14
  observation_dim = 125
  action_dim = 8
  derived = ("com", "com_velocity", "contact_forces", "torso_rotation")

  def initial_states(self, rng, num):
    qpos, qvel = super().initial_states(rng, num)
    # MuJoCo 1.31 did so in place before the first observation; today's normalises only where it uses a quaternion.
    qpos[:, 3:7] /= np.linalg.norm(qpos[:, 3:7], axis=1, keepdims=True)
    return qpos, qvel

  def observe(self, after):
    forces = clipped_forces(after).reshape(len(after.qpos), -1)
    return np.concatenate([after.qpos, after.qvel, forces, after.torso_rotation, after.com], axis=1)

  def reward(self, before, after, actions, goals):
    alive = {"velocity": 1.0, "direction": 0.0, "goal": 4.0}[self.task] + 0.05
    control = 0.005 * np.square(within_bounds(actions)).sum(axis=1)
    return self.progress(before, after, goals) + alive - control - contact_cost(after)

  def terminated(self, after):
    return ~healthy(after)


class AntV5(Ant):
  """Gymnasium's Ant-v5 with the task's reward in place of its forward reward.

  0.05 s per action, the torso's velocity by finite differences, control cost 0.5 sum(a^2) on actions as they are given,
  contact cost as rllab's, 1 for staying healthy; observation: qpos without x and y (13), qvel (14), clipped contact
  forces without the world's (78). Version 5 reads positions and forces as `mj_step` leaves them, which is one
  evaluation behind qpos and qvel; so does this.
  """

  timestep = 0.01
  frame_skip = 5
  solimp = None
  initial_qpos = (0, 0, 0.75, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
  observation_dim = 105
  derived = ("contact_forces", "torso_position")
  finite_differences = True
  forward_after_step = False

  def initial_states(self, rng, num):
    return noisy_start(self, rng, num)

  def observe(self, after):
    forces = clipped_forces(after)[:, 1:].reshape(len(after.qpos), -1)
    return np.concatenate([after.qpos[:, 2:], after.qvel, forces], axis=1)

  def reward(self, before, after, actions, goals):
    control = 0.5 * np.square(actions).sum(axis=1)
    return self.progress(before, after, goals) + healthy(after) - control - contact_cost(after)

  def velocity(self, before, after):
    return (after.torso_position[:, 0] - before.torso_position[:, 0]) / self.dt


def clipped_forces(after):
  """[N, nbody, 6] in [-1, 1]."""
  return within_bounds(after.contact_forces)


def contact_cost(after):
  """[N]"""
  return 0.0005 * np.square(clipped_forces(after)).sum(axis=(1, 2))


def healthy(after):
  """[N] bool: the torso neither on the ground nor in the air. What is not finite counts as diverged, in `outcome`."""
  height = after.qpos[:, 2]
  return (height >= HEALTHY[0]) & (height <= HEALTHY[1])
