"""Poses of objects on a table (Finn et al. 2019, section 5.3): drawn once, and kept in a checked cache."""

import hashlib
import json
import os
import pathlib
import secrets
import shutil
import sys

import numpy as np

from maml_tf import checksums
from maml_tf.datasets import image_bank, locate, pose_mujoco, pose_raster, pose_scenes
from maml_tf.errors import UserError

FORMAT_VERSION = 1
RENDERERS = ("mujoco", "numpy")


def load(data_dir, renderer, size, num_tasks, examples):
  """The tasks, in the order of their numbers.

  Args:
    data_dir: folder of the data sets; the images are kept in it, or in the user's own cache.
    renderer: "mujoco" or "numpy".
    size: height and width of the images.
    num_tasks: how many, of 90.
    examples: images of each.

  Returns:
    (images, uint8 [tasks, examples, size, size, 3]; labels, float32 [tasks, examples, 4]: x, y, sin and cos of the
    object's pose; names).

  Raises:
    UserError: they cannot be drawn, or not be kept.
  """
  key = [FORMAT_VERSION, renderer, size, num_tasks, examples]
  digest = hashlib.sha256(json.dumps(key).encode()).hexdigest()[:16]
  folder = locate.cache_folder(data_dir) / f"pose-{digest}"
  shape = (num_tasks, examples, size, size, 3)
  tasks = [pose_scenes.a_task(number, examples) for number in range(num_tasks)]
  images = _open(folder, shape) if folder.is_dir() else None
  if images is None:
    _build(folder, renderer, tasks, size)
    images = _open(folder, shape)
  if images is None:
    raise UserError(f"{folder}: what was written just now is damaged; look after the disk, or have the cache elsewhere")
  labels = np.stack([pose_scenes.labels(poses) for _, _, poses in tasks])
  names = [f"object_{number % pose_scenes.OBJECTS}_view_{number // pose_scenes.OBJECTS}" for number in range(num_tasks)]
  return images, labels, names


def _open(folder, shape):
  """The images of a sound cache, memory-mapped; None where it is damaged, which is said."""
  damage = checksums.problem(folder)
  if damage is None:
    images = np.load(folder / "images.npy", mmap_mode="r", allow_pickle=False)
    if images.shape == shape and images.dtype == np.uint8:
      return images
    damage = f"images.npy holds {images.dtype} {list(images.shape)}, uint8 {list(shape)} was expected"
  print(f"{folder}: this cache is damaged: {damage}; drawing the images anew", file=sys.stderr, flush=True)
  return None


def _build(folder, renderer, tasks, size):
  """Draws all images into the folder, which appears whole or not at all."""
  count = sum(len(poses) for _, _, poses in tasks)
  print(f"Drawing {count:,} images of {size} x {size} with {renderer}, once", file=sys.stderr, flush=True)
  try:
    folder.parent.mkdir(parents=True, exist_ok=True)
    with image_bank.building(folder.parent):
      temporary = folder.parent / f".{folder.name}.{secrets.token_hex(4)}.half"
      temporary.mkdir()
      try:
        _write(
          temporary / "images.npy", _drawn(renderer, tasks, size), (len(tasks), count // len(tasks), size, size, 3)
        )
        checksums.write(temporary)
        shutil.rmtree(folder, ignore_errors=True)  # a damaged one, or another process's, with the same images
        os.rename(temporary, folder)
      finally:
        shutil.rmtree(temporary, ignore_errors=True)
  except OSError as error:
    needed = f"it needs {3 * count * size * size / 1e6:.0f} MB in a folder that can be written"
    raise UserError(
      f"{folder.parent}: cannot write the images ({error.strerror}); {needed}: make room, or change the permissions"
    ) from error


def _drawn(renderer, tasks, size):
  if renderer == "mujoco":
    return pose_mujoco.draw(tasks, size)
  return (pose_raster.draw(parts, camera, poses, size) for parts, camera, poses in tasks)


def _write(path, arrays, shape):
  """Writes an .npy file task by task, by write calls: there, a full disk is an error."""
  with open(pathlib.Path(path), "wb") as file:
    np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
    for images in arrays:
      file.write(np.ascontiguousarray(images).tobytes())
    file.flush()
    os.fsync(file.fileno())
