"""MuJoCo's side of a task definition: its model, a step, and what is read from it afterwards."""

import importlib.util
import os
import pathlib
import warnings

from maml_tf.errors import UserError
from maml_tf.rl.envs.definition import Physics

# MuJoCo loads the OpenGL that MUJOCO_GL names, which crashes beside TensorFlow; only `drawing` has a use for it.
_opengl = os.environ.pop("MUJOCO_GL", None)
try:
  import mujoco
except ImportError as error:
  raise UserError(f"MuJoCo cannot be imported ({error}); install it with: pip install mujoco gymnasium") from error
finally:
  if _opengl is not None:
    os.environ["MUJOCO_GL"] = _opengl

TORSO = 1  # body index, after the world
_VIEWS = {
  "com": lambda data: data.subtree_com[TORSO],
  "com_velocity": lambda data: data.subtree_linvel[TORSO],
  "contact_forces": lambda data: data.cfrc_ext,
  "torso_rotation": lambda data: data.xmat[TORSO],
  "torso_position": lambda data: data.xpos[TORSO],
}


def compile_model(definition):
  """The MjModel of a definition: Gymnasium's own asset, changed in memory where rllab's model differs from it."""
  spec = mujoco.MjSpec.from_file(str(_asset(definition.asset)))
  spec.option.timestep = definition.timestep
  if definition.solimp is not None:
    for geom in spec.geoms:
      geom.solimp[: len(definition.solimp)] = definition.solimp
  with warnings.catch_warnings():
    warnings.simplefilter("ignore", UserWarning)  # about attributes of Gymnasium's file, which nobody here can mend
    model = spec.compile()
  # By default MuJoCo puts a diverged simulation back to its start without a word; it is to be seen and counted instead.
  model.opt.disableflags |= mujoco.mjtDisableBit.mjDSBL_AUTORESET
  return model


def settle(definition, model, data):
  """Computes what is derived from a state that was just set."""
  mujoco.mj_forward(model, data)
  if definition.forward_after_step:
    _finish(model, data)


def advance(definition, model, data):
  """One action's time under `data.ctrl`; derived quantities are then the new state's if the definition asks for it."""
  if not definition.warm_start:
    data.qacc_warmstart[:] = 0
  mujoco.mj_step(model, data, nstep=definition.frame_skip)
  if definition.forward_after_step:
    mujoco.mj_forward(model, data)  # else positions, velocities and forces would be one evaluation behind
    _finish(model, data)
  else:
    mujoco.mj_rnePostConstraint(model, data)


def views(definition, data):
  """Arrays that look into `data`: qpos, qvel and the derived fields of the definition, in this order."""
  return [data.qpos, data.qvel, *(_VIEWS[field](data) for field in definition.derived)]


def read(definition, looked_at):
  """The state of one simulation, whose `views` are given, as a Physics, [1, ...] each, copied."""
  return Physics(
    **{name: view[None].copy() for name, view in zip(("qpos", "qvel", *definition.derived), looked_at, strict=True)}
  )


def _finish(model, data):
  # Since version 2.0 MuJoCo leaves contact forces at zero, and velocities of subtrees too, unless asked for them.
  mujoco.mj_rnePostConstraint(model, data)
  mujoco.mj_subtreeVel(model, data)


def _asset(name):
  found = importlib.util.find_spec("gymnasium")
  if found is None:
    raise UserError("Gymnasium, whose robots are simulated, is missing; install it with: pip install gymnasium")
  path = pathlib.Path(found.origin).parent / "envs" / "mujoco" / "assets" / name
  if not path.is_file():
    raise UserError(f"{path}: this version of Gymnasium has no such model; install another: pip install gymnasium==1.4")
  return path
