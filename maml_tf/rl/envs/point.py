"""2D navigation as an ordinary Gymnasium environment; `environments.PointNavigation` is the same inside the graph."""

import gymnasium
import numpy as np
from PIL import Image, ImageDraw

from maml_tf.errors import UserError

SIZE = 400  # of a rendered frame, in pixels
SMALLEST_VIEW = 0.8  # half the width of what a frame shows; it grows with the way that the point has gone
OVERSAMPLING = 3  # drawn larger and then reduced: smooth edges
INK = {
  "paper": (255, 255, 255), "box": (238, 241, 245), "axis": (216, 221, 228), "start": (120, 128, 140),
  "trail": (122, 163, 214), "point": (31, 93, 168), "goal": (208, 64, 48),
}  # fmt: skip


class PointNavEnv(gymnasium.Env):
  """A point moves up to 0.1 in each direction towards a goal that it does not see.

  Source: cbfinn/maml_rl, point_env_randgoal.py. An observation is the position, float32 [2], from (0, 0) on. The reward
  is the negative distance from the goal after the move; an episode ends within 0.01 of it in both directions. In
  float32, so that the numbers are those of the environment inside the graph.

  Args:
    goal: (x, y); None: a new one at each reset, from U(-0.5, 0.5)^2. One that `reset(options={"goal": ...})` gives
      stays as well.
    render_mode: None or "rgb_array".
  """

  metadata = {"render_modes": ["rgb_array"], "render_fps": 20}  # noqa: RUF012 (Gymnasium's own convention)
  step_size, tolerance, goal_limit = np.float32(0.1), np.float32(0.01), 0.5

  def __init__(self, goal=None, render_mode=None):
    if render_mode not in (None, *self.metadata["render_modes"]):
      raise UserError(f'render_mode: expected None or "rgb_array", got {render_mode!r}')
    self.render_mode = render_mode
    self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float32)
    self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32)
    self._given = None if goal is None else _as_goal(goal)
    self.goal = self._given
    self._trail = [np.zeros(2, np.float32)]

  def reset(self, *, seed=None, options=None):
    """Begins at (0, 0): (observation, {"goal": [2]})."""
    super().reset(seed=seed)
    if options and options.get("goal") is not None:
      self._given = _as_goal(options["goal"])
    drawn = self.np_random.uniform(-self.goal_limit, self.goal_limit, 2).astype(np.float32)
    self.goal = drawn if self._given is None else self._given
    self._trail = [np.zeros(2, np.float32)]
    return self._observe(), self._info()

  def step(self, action):
    """(observation, reward, terminated, False, {"goal": [2]}); actions beyond [-1, 1] are clipped."""
    if self.goal is None:
      raise RuntimeError("step was called before reset; call reset first")
    move = self.step_size * np.clip(np.asarray(action, np.float32), -1.0, 1.0)
    self._trail.append(self._trail[-1] + move)
    away = self._trail[-1] - self.goal
    terminated = bool(np.all(np.abs(away) < self.tolerance))
    return self._observe(), -float(np.sqrt(np.sum(away**2))), terminated, False, self._info()

  def render(self):
    """The goal (a cross), the way so far and the point, uint8 [400, 400, 3]; None without a render mode."""
    if self.render_mode is None:
      return None
    view = max(SMALLEST_VIEW, 1.1 * float(np.max(np.abs(self._trail))))
    image = Image.new("RGB", (SIZE * OVERSAMPLING, SIZE * OVERSAMPLING), INK["paper"])
    self._draw(_Pen(image, view))
    return np.asarray(image.resize((SIZE, SIZE), Image.Resampling.LANCZOS))

  def _draw(self, pen):
    limit = self.goal_limit
    pen.box((-limit, -limit), (limit, limit), INK["box"])  # where goals come from: it shows the scale
    pen.line([(-pen.view, 0.0), (pen.view, 0.0)], INK["axis"], 1)
    pen.line([(0.0, -pen.view), (0.0, pen.view)], INK["axis"], 1)
    pen.disc((0.0, 0.0), INK["start"], 4)
    pen.line(self._trail, INK["trail"], 3)
    for position in self._trail[1:-1]:
      pen.disc(position, INK["trail"], 3)
    if self.goal is not None:
      pen.cross(self.goal, INK["goal"], 8)
    pen.disc(self._trail[-1], INK["point"], 7)

  def _observe(self):
    return self._trail[-1].copy()

  def _info(self):
    return {"goal": self.goal.copy()}


class _Pen:
  """Draws in the coordinates of the plane, with sizes in pixels of the finished frame."""

  def __init__(self, image, view):
    self._draw, self._width, self.view = ImageDraw.Draw(image), image.width, view

  def _pixel(self, position):
    x, y = float(position[0]), float(position[1])
    return (1 + x / self.view) * self._width / 2, (1 - y / self.view) * self._width / 2

  def box(self, low, high, colour):
    (left, bottom), (right, top) = self._pixel(low), self._pixel(high)
    self._draw.rectangle([left, top, right, bottom], fill=colour)

  def line(self, positions, colour, width):
    if len(positions) > 1:
      self._draw.line([self._pixel(p) for p in positions], fill=colour, width=width * OVERSAMPLING, joint="curve")

  def disc(self, position, colour, radius):
    (x, y), radius = self._pixel(position), radius * OVERSAMPLING
    self._draw.ellipse([x - radius, y - radius, x + radius, y + radius], fill=colour)

  def cross(self, position, colour, radius):
    (x, y), radius = self._pixel(position), radius * OVERSAMPLING
    for sign in (-1, 1):
      ends = [x - radius, y - sign * radius, x + radius, y + sign * radius]
      self._draw.line(ends, fill=colour, width=4 * OVERSAMPLING)


def _as_goal(goal):
  values = np.asarray(goal, np.float32)
  if values.shape != (2,) or not np.all(np.isfinite(values)):
    raise UserError(f"goal of 2D navigation: expected two finite numbers (x, y), got {goal!r}")
  return values
