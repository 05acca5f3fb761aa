"""The MuJoCo tasks as ordinary Gymnasium environments."""

import gymnasium
import numpy as np
from gymnasium import spaces

from maml_tf.rl.envs import DEFINITIONS, physics
from maml_tf.rl.envs.definition import clipped
from maml_tf.rl.envs.drawing import Drawer


class MujocoTaskEnv(gymnasium.Env):
  """One task of a family: `gym.make("maml_tf.rl.envs:maml_tf/AntVel-v0", goal=1.5)`.

  Without a goal, each `reset` draws one from the training distribution. A goal given here or by
  `reset(options={"goal": ...})` stays until another is given.

  Args:
    name: one of `maml_tf.rl.envs.DEFINITIONS`.
    goal: a number or [G].
    render_mode: None, "rgb_array" (see `drawing`) or "human" (a window, by Gymnasium's own renderer).
    width, height: of rendered images, in pixels.
  """

  metadata = {"render_modes": ["human", "rgb_array"], "render_fps": 100}  # noqa: RUF012

  def __init__(self, name, goal=None, render_mode=None, width=480, height=480):
    if name not in DEFINITIONS:
      raise ValueError(f"name: expected one of {list(DEFINITIONS)}, got {name!r}")
    self.definition = DEFINITIONS[name]
    self.metadata = {**type(self).metadata, "render_fps": round(1 / self.definition.dt)}
    if render_mode is not None and render_mode not in self.metadata["render_modes"]:
      raise ValueError(f"render_mode: expected None or one of {self.metadata['render_modes']}, got {render_mode!r}")
    self.render_mode, self._size = render_mode, (width, height)
    self.model = physics.compile_model(self.definition)
    self.data = physics.mujoco.MjData(self.model)
    self._views = physics.views(self.definition, self.data)
    self.action_space = spaces.Box(-1.0, 1.0, (self.definition.action_dim,), np.float32)
    self.observation_space = spaces.Box(-np.inf, np.inf, (self.definition.observation_dim,), np.float64)
    self.goal = None if goal is None else self._checked(goal)
    self._goal_is_given = goal is not None
    self._drawer = self._viewer = None
    self._observation = None  # the last sound one

  @property
  def dt(self):
    """Seconds from one observation to the next."""
    return self.definition.dt

  def reset(self, *, seed=None, options=None):
    super().reset(seed=seed)
    qpos, qvel = self.definition.initial_states(self.np_random, 1)
    options = options or {}
    if set(options) - {"goal"}:
      raise ValueError(f"options: expected at most 'goal', got {sorted(options)}")
    if options.get("goal") is not None:
      self.goal, self._goal_is_given = self._checked(options["goal"]), True
    elif not self._goal_is_given:
      self.goal = self.definition.sample_goals(self.np_random, 1)[0]
    self.set_state(qpos[0], qvel[0])
    if self.render_mode == "human":
      self.render()
    return self._observation.copy(), {"goal": self.goal.copy()}

  def set_state(self, qpos, qvel):
    """Starts from a state: positions [nq] and velocities [nv] of the joints; returns the observation there."""
    physics.mujoco.mj_resetData(self.model, self.data)
    self.data.qpos[:], self.data.qvel[:] = qpos, qvel
    physics.settle(self.definition, self.model, self.data)
    self._observation = self.definition.observe(self._read())[0]
    return self._observation.copy()

  def step(self, action):
    if self._observation is None or self.goal is None:
      raise RuntimeError("step was called before reset; call reset first")
    actions = np.asarray(action, np.float64)[None]
    if actions.shape != (1, self.definition.action_dim):
      raise ValueError(f"action: expected shape {(self.definition.action_dim,)}, got {actions.shape[1:]}")
    before = self._read() if self.definition.finite_differences else None
    self.data.ctrl[:] = clipped(actions)[0]
    physics.advance(self.definition, self.model, self.data)
    after = self._read()
    outcome = self.definition.outcome(before, after, actions, self.goal[None])
    if self.render_mode == "human":
      self.render()
    return self._reported(outcome)

  def render(self):
    """An image [height, width, 3] uint8 from a camera that follows the robot, or None where the mode is "human"."""
    if self.render_mode is None:
      gymnasium.logger.warn('render() without a render mode shows nothing; say render_mode="rgb_array" when making it')
      return None
    if self.render_mode == "human":
      return self._window().render("human")
    if self._drawer is None:
      self._drawer = Drawer(self.definition, *self._size)
    return self._drawer.draw(self.data.qpos)

  def close(self):
    for opened in (self._drawer, self._viewer):
      if opened is not None:
        opened.close()
    self._drawer = self._viewer = None

  def __getstate__(self):
    """A copy keeps its task and its state; what it looks at and draws with is its own."""
    return {**self.__dict__, "_views": None, "_drawer": None, "_viewer": None}

  def __setstate__(self, state):
    self.__dict__.update(state)
    self._views = physics.views(self.definition, self.data)

  def _read(self):
    return physics.read(self.definition, self._views)

  def _reported(self, outcome):
    diverged = bool(outcome.diverged[0])
    if not diverged:
      self._observation = outcome.observations[0]
    info = {
      "goal": self.goal.copy(),
      "velocity": 0.0 if diverged else float(outcome.velocity[0]),
      "diverged": diverged,
    }
    reward = 0.0 if diverged else float(outcome.rewards[0])
    return self._observation.copy(), reward, diverged or bool(outcome.terminated[0]), False, info

  def _checked(self, goal):
    return self.definition.check_goals(np.atleast_1d(np.asarray(goal, np.float64))[None], 1)[0]

  def _window(self):
    if self._viewer is None:
      from gymnasium.envs.mujoco.mujoco_rendering import MujocoRenderer

      width, height = self._size
      self._viewer = MujocoRenderer(self.model, self.data, width=width, height=height, camera_name="track")
    return self._viewer
