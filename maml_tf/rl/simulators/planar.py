"""Centre of mass of a planar chain of bodies, for many states at once."""

import numpy as np

from maml_tf.rl.envs.physics import mujoco


class PlanarBody:
  """Position and velocity of the centre of mass of a robot that moves in the x-z plane, from qpos and qvel alone.

  A point (x, z) is the complex number x + iz, so that turning by an angle about the y axis is a product with
  exp(-i angle). With the absolute angle of body k, the sum of the hinges between it and the world, the centre of mass
  is  c = c_0 + (slides) + sum_k v_k exp(-i angle_k),  where v_k collects, weighted by mass, what is fixed to body k:
  its own centre of mass and the origins of its children.

  Equal to MuJoCo's `subtree_com` and `subtree_linvel` of the root body. `mujoco.rollout` gives neither of them for the
  state that it ends in.

  Args:
    model: an `mujoco.MjModel` of one robot whose joints are slides in the plane and hinges about y, at the origins of
      bodies that are not rotated at rest.
  """

  def __init__(self, model):
    slides = model.jnt_type == mujoco.mjtJoint.mjJNT_SLIDE
    hinges = model.jnt_type == mujoco.mjtJoint.mjJNT_HINGE
    planar = np.where(hinges[:, None], model.jnt_axis[:, [0, 2]], model.jnt_axis[:, [1, 1]])
    if not ((slides | hinges).all() and not planar.any() and not model.jnt_pos.any()):
      raise ValueError("the joints of this model are not planar; simulate it in processes, as the ant")
    if not (np.allclose(model.body_quat, [1, 0, 0, 0]) and model.nq == model.nv == model.njnt):
      raise ValueError("the bodies of this model are rotated at rest; simulate it in processes, as the ant")
    self._slides = np.where(slides[:, None], model.jnt_axis, 0.0)  # [nq, 3]
    self._angles, self._fixed = np.zeros((model.nq, model.nbody)), np.zeros(model.nbody, complex)  # [nq, nbody]
    for body in range(1, model.nbody):  # parents come before their children
      parent = model.body_parentid[body]
      self._angles[:, body] = self._angles[:, parent]
      joints = np.flatnonzero((model.jnt_bodyid == body) & hinges)
      self._angles[joints, body] += model.jnt_axis[joints, 1]
      self._fixed[body] += model.body_mass[body] * _complex(model.body_ipos[body])
      self._fixed[parent] += model.body_subtreemass[body] * _complex(model.body_pos[body])
    self._fixed /= model.body_subtreemass[0]

  def centre_of_mass(self, qpos, qvel):
    """(position [N, 3], velocity [N, 3]) in m and m/s of joint positions [N, nq] and velocities [N, nq]."""
    angles = qpos @ self._angles
    turned = (np.cos(angles) - 1j * np.sin(angles)) * self._fixed
    moving = -1j * turned * (qvel @ self._angles)
    # Matrix products stay real: a complex one is handed to BLAS' threads, which took a hundred times as long.
    return qpos @ self._slides + _vectors(turned.sum(axis=1)), qvel @ self._slides + _vectors(moving.sum(axis=1))


def _complex(vectors):
  return vectors[..., 0] + 1j * vectors[..., 2]


def _vectors(numbers):
  return np.stack([numbers.real, np.zeros(len(numbers)), numbers.imag], axis=1)
