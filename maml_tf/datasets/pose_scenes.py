"""Objects on a table with a red dot, seen by a camera (Finn et al. 2019, section 5.3): geometry, without drawing it.

There the objects are 50 models of PASCAL3D+; here they are put together from boxes and cylinders, each object from its
number. Lengths are in half widths of the table, angles in radians, z is up.
"""

from typing import NamedTuple

import numpy as np

OBJECTS, TASKS = 50, 90
DOT, DOT_RADIUS = (0.75, 0.75), 0.08  # on the table: what tells where x and y come from, wherever the camera stands
REACH = 0.5  # of an object's x and y
LEAST_ASYMMETRY = 0.15
SIMILAR_ANGLE = np.pi / 6  # turned by less, every object looks like itself
_OBJECTS_SEED, _TASKS_SEED = 0, 1


class Part(NamedTuple):
  """A box or an upright cylinder, fixed in an object.

  Attributes:
    kind: "box" or "cylinder".
    center: (x, y, z) in the object.
    size: half sizes (x, y, z) of a box; (radius, radius, half height) of a cylinder.
    yaw: by which it is turned in the object.
    color: (red, green, blue) in [0, 1].
  """

  kind: str
  center: tuple
  size: tuple
  yaw: float
  color: tuple


class Camera(NamedTuple):
  """Looks at the middle of the table.

  Attributes:
    azimuth: from where, around the table.
    elevation: above it.
    distance: from its middle.
    fov: vertical field of view.
  """

  azimuth: float
  elevation: float
  distance: float = 3.0
  fov: float = np.pi / 4

  def frame(self):
    """(position [3]; right, up and forward, unit vectors [3])."""
    flat = np.cos(self.elevation)
    outward = np.array([flat * np.cos(self.azimuth), flat * np.sin(self.azimuth), np.sin(self.elevation)])
    right = np.cross([0.0, 0.0, 1.0], outward)
    right /= np.linalg.norm(right)
    return self.distance * outward, right, np.cross(outward, right), -outward


def an_object(number):
  """The parts of an object; those that come out symmetric are rejected, and drawn anew."""
  rng = np.random.default_rng([_OBJECTS_SEED, number])
  while True:
    parts = _draw(rng)
    if asymmetry(parts) >= LEAST_ASYMMETRY:
      return parts


def _draw(rng):
  parts = []
  for index in range(rng.integers(2, 5)):
    kind = ("box", "cylinder")[rng.integers(2)]
    size = rng.uniform(0.07, 0.2, size=3)
    if kind == "cylinder":
      size[1] = size[0]
    distance, angle = (0.0 if index == 0 else rng.uniform(0.12, 0.28)), rng.uniform(-np.pi, np.pi)
    center = (distance * np.cos(angle), distance * np.sin(angle), size[2])
    color = rng.uniform(0.1, 0.95, size=3)
    color[0] *= 0.6  # the dot alone is red
    parts.append(Part(kind, center, tuple(size), rng.uniform(-np.pi, np.pi), tuple(color)))
  return parts


def asymmetry(parts, angles=36, points=64):
  """How unlike itself an object is from above, at the angle at which it is most like itself: 0, symmetric, to 1.

  The share of the area, of the object and of itself turned, on which another part (or the table) is on top.
  """
  axis = np.linspace(-0.6, 0.6, points)
  place = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
  seen = _on_top(parts, place)
  turns = np.arange(1, angles) * 2 * np.pi / angles
  turns = turns[(turns >= SIMILAR_ANGLE - 1e-9) & (turns <= 2 * np.pi - SIMILAR_ANGLE + 1e-9)]
  return min(_difference(seen, _on_top(parts, turned(place, turn))) for turn in turns)


def _difference(seen, other):
  either = (seen >= 0) | (other >= 0)
  return np.mean(seen[either] != other[either])


def _on_top(parts, place):
  """The number of the part on top at each place [n, 2]; -1: none."""
  top, seen = np.zeros(len(place)), np.full(len(place), -1)
  for number, part in enumerate(parts):
    local = turned(place - np.asarray(part.center[:2]), -part.yaw)
    box, disc = (np.abs(local) <= part.size[:2]).all(axis=1), np.hypot(*local.T) <= part.size[0]
    inside = box if part.kind == "box" else disc
    higher = inside & (part.center[2] + part.size[2] > top)
    top[higher], seen[higher] = part.center[2] + part.size[2], number
  return seen


def turned(place, angle):
  """Points [n, 2], turned around the origin."""
  cos, sin = np.cos(angle), np.sin(angle)
  return place @ np.array([[cos, sin], [-sin, cos]])


def a_task(number, count):
  """(parts, `Camera`, poses [count, 3]: x, y and yaw of the object) of a task.

  Of 50 objects 40 are in two tasks, seen from two sides: 90 tasks.
  """
  rng = np.random.default_rng([_TASKS_SEED, number])
  camera = Camera(rng.uniform(-np.pi, np.pi), rng.uniform(np.deg2rad(35), np.deg2rad(65)))
  poses = rng.uniform([-REACH, -REACH, -np.pi], [REACH, REACH, np.pi], size=(count, 3))
  return an_object(number % OBJECTS), camera, poses


def labels(poses):
  """(x, y, sin, cos) of poses [..., 3], float32 [..., 4]."""
  x, y, yaw = np.moveaxis(np.asarray(poses), -1, 0)
  return np.stack([x, y, np.sin(yaw), np.cos(yaw)], axis=-1).astype(np.float32)
