"""Draws the scenes of `pose_scenes` with NumPy alone: a ray for every pixel, which meets boxes, cylinders, a table."""

import numpy as np

from maml_tf.datasets.pose_scenes import DOT, DOT_RADIUS

TABLE, GROUND, RED = (0.72, 0.6, 0.45), (0.85, 0.87, 0.9), (0.9, 0.05, 0.05)
LIGHT = np.array([0.3, 0.4, 0.87])
AMBIENT = 0.45
FAR = np.inf


def draw(parts, camera, poses, size):
  """Images uint8 [n, size, size, 3] of an object at poses [n, 3]."""
  origin, directions = _rays(camera, size)
  background, distance = _table(origin, directions)
  images = [_with_object(background, distance, origin, directions, parts, pose) for pose in poses]
  return np.rint(255 * np.clip(np.stack(images), 0, 1)).astype(np.uint8).reshape(-1, size, size, 3)


def _rays(camera, size):
  origin, right, up, forward = camera.frame()
  half = np.tan(camera.fov / 2)
  places = half * (2 * (np.arange(size) + 0.5) / size - 1)
  down, across = (grid.reshape(-1, 1) for grid in np.meshgrid(places, places, indexing="ij"))
  return origin, forward + across * right - down * up


def _table(origin, directions):
  """(colours [P, 3] of table, dot and ground; the distance at which a ray meets them, [P])."""
  with np.errstate(divide="ignore"):
    distance = np.where(directions[:, 2] < 0, -origin[2] / directions[:, 2], FAR)
  with np.errstate(invalid="ignore"):
    place = origin[:2] + distance[:, np.newaxis] * directions[:, :2]
    on_table = (np.abs(place) <= 1).all(axis=1)
    on_dot = np.hypot(*(place - DOT).T) <= DOT_RADIUS
  colors = np.where(on_table[:, np.newaxis], TABLE, GROUND)
  return np.where((on_table & on_dot)[:, np.newaxis], RED, colors), distance


def _with_object(image, distance, origin, directions, parts, pose):
  for part in parts:
    angle = pose[2] + part.yaw
    center = np.append(pose[:2] + _turn(np.asarray(part.center[:2]), pose[2]), part.center[2])
    start, along = _turn(origin - center, -angle), _turn(directions, -angle)
    met, normal = (_box if part.kind == "box" else _cylinder)(start, along, np.asarray(part.size))
    nearer = met < distance
    light = AMBIENT + (1 - AMBIENT) * np.clip(_turn(normal, angle) @ LIGHT, 0, 1)
    color = light[:, np.newaxis] * np.asarray(part.color)
    image, distance = np.where(nearer[:, np.newaxis], color, image), np.where(nearer, met, distance)
  return image


def _turn(vectors, angle):
  """Vectors [..., 2 or 3], turned around z."""
  cos, sin = np.cos(angle), np.sin(angle)
  x, y = cos * vectors[..., 0] - sin * vectors[..., 1], sin * vectors[..., 0] + cos * vectors[..., 1]
  return np.concatenate([np.stack([x, y], axis=-1), vectors[..., 2:]], axis=-1)


def _box(start, along, size):
  """(distances [P] at which rays meet a box around the origin, inf where they do not; normals [P, 3])."""
  with np.errstate(divide="ignore", invalid="ignore"):
    first, second = (-size - start) / along, (size - start) / along
  entry, leaving = np.minimum(first, second), np.maximum(first, second).min(axis=1)
  axis = entry.argmax(axis=1)
  met = entry.max(axis=1)
  rows = np.arange(len(along))
  normal = np.zeros_like(along)
  normal[rows, axis] = -np.sign(along[rows, axis])
  return np.where((met <= leaving) & (met > 0), met, FAR), normal


def _cylinder(start, along, size):
  """Likewise of an upright cylinder."""
  radius, half = size[0], size[2]
  a = (along[:, :2] ** 2).sum(axis=1)
  b, c = along[:, :2] @ start[:2], start[:2] @ start[:2] - radius**2
  with np.errstate(divide="ignore", invalid="ignore"):
    side = (-b - np.sqrt(b**2 - a * c)) / a
    top = (half - start[2]) / along[:, 2]
    side = np.where(np.abs(start[2] + side * along[:, 2]) <= half, side, FAR)
    at_top = start[:2] + top[:, np.newaxis] * along[:, :2]
    top = np.where(((at_top**2).sum(axis=1) <= radius**2) & (top > 0), top, FAR)
  met = np.fmin(np.where(side > 0, side, FAR), top)
  with np.errstate(invalid="ignore"):
    outward = np.append(start[:2], 0.0) + met[:, np.newaxis] * along * [1, 1, 0]
  upward = np.array([0.0, 0.0, 1.0])
  return met, np.where((top <= side)[:, np.newaxis], upward, np.nan_to_num(outward / radius, posinf=0, neginf=0))
