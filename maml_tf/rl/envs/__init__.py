"""Task families for meta-reinforcement learning, and their registration with Gymnasium.

Importing this package registers them: `gym.make("maml_tf.rl.envs:maml_tf/AntVel-v0", goal=1.5)` does both at once.
"""

import numpy as np

from maml_tf.errors import UserError
from maml_tf.rl.envs.ant import Ant, AntV5
from maml_tf.rl.envs.definition import Definition, Physics
from maml_tf.rl.envs.half_cheetah import HalfCheetah, HalfCheetahV5

__all__ = ["DEFINITIONS", "POINT_ID", "Definition", "Physics", "published_test_goals", "register"]

POINT_ID = "maml_tf/PointNav-v0"
NUM_TEST_GOALS = 40
# Bounds of goals: cheetah U(0, 2), ant U(0, 3) m/s, places U(-3, 3)^2 m; directions are thresholds at their middle.
DEFINITIONS = {
  definition.name: definition
  for definition in (
    HalfCheetah("cheetah_vel", "maml_tf/HalfCheetahVel-v0", "velocity", (0.0,), (2.0,)),
    HalfCheetah("cheetah_dir", "maml_tf/HalfCheetahDir-v0", "direction", (-1.0,), (1.0,)),
    Ant("ant_vel", "maml_tf/AntVel-v0", "velocity", (0.0,), (3.0,)),
    Ant("ant_dir", "maml_tf/AntDir-v0", "direction", (-1.0,), (1.0,)),
    Ant("ant_goal", "maml_tf/AntGoal-v0", "goal", (-3.0, -3.0), (3.0, 3.0)),
    HalfCheetahV5("cheetah_vel_v5", "maml_tf/HalfCheetahVelV5-v0", "velocity", (0.0,), (2.0,)),
    HalfCheetahV5("cheetah_dir_v5", "maml_tf/HalfCheetahDirV5-v0", "direction", (-1.0,), (1.0,)),
    AntV5("ant_vel_v5", "maml_tf/AntVelV5-v0", "velocity", (0.0,), (3.0,)),
    AntV5("ant_dir_v5", "maml_tf/AntDirV5-v0", "direction", (-1.0,), (1.0,)),
  )
}


def register():
  """Registers every environment with Gymnasium; those that are registered already stay as they are."""
  try:
    import gymnasium
  except ImportError as error:
    raise UserError(f"Gymnasium cannot be imported ({error}); install it with: pip install gymnasium") from error

  entries = {POINT_ID: ("maml_tf.rl.envs.point:PointNavEnv", 100, {})}
  for definition in DEFINITIONS.values():
    entry_point = "maml_tf.rl.envs.mujoco_env:MujocoTaskEnv"
    entries[definition.gym_id] = (entry_point, definition.horizon, {"name": definition.name})
  for gym_id, (entry_point, max_episode_steps, kwargs) in entries.items():
    if gym_id not in gymnasium.registry:
      gymnasium.register(gym_id, entry_point, max_episode_steps=max_episode_steps, kwargs=kwargs)


def published_test_goals(name):
  """The 40 goals that the published numbers were measured on (cbfinn/maml_rl, `maml_examples/test_maml_*.py`).

  Args:
    name: "point" or one of DEFINITIONS. Nothing was published for ant_goal and the tasks on Gymnasium's version 5:
      the former gets the same recipe, the latter the goals of their rllab twins.

  Returns:
    float64 [40, G]: velocities in m/s, places in m, directions -1 or +1.
  """
  if name != "point" and name not in DEFINITIONS:
    raise ValueError(f"name: expected one of {['point', *DEFINITIONS]}, got {name!r}")
  name = name.removesuffix("_v5")
  rng = np.random.RandomState(2 if name == "ant_dir" else 1)
  if name == "point":
    return rng.uniform(-0.5, 0.5, (NUM_TEST_GOALS, 2))
  if name == "ant_goal":
    return rng.uniform(-3.0, 3.0, (NUM_TEST_GOALS, 2))
  fastest = 3.0 if name.startswith("ant") else 2.0
  goals = rng.uniform(0.0, fastest, (NUM_TEST_GOALS, 1))
  return np.where(goals > fastest / 2, 1.0, -1.0) if name.endswith("_dir") else goals


register()
