"""Folders of a user's own pictures to predict from. Imports neither TensorFlow nor NumPy: bad input is said at once."""

import pathlib

from maml_tf.datasets import locate
from maml_tf.errors import UserError


def support_files(folder):
  """[(class name, path)] of `<folder>/<class>/<picture>`, sorted.

  Raises:
    UserError: no folder, fewer than two classes, a class without pictures.
  """
  classes = locate.class_folders(_existing("support", folder))
  if len(classes) == 1:
    raise UserError(
      f"{folder}: only one class, {classes[0][0]}, and nothing to tell it from; add a folder for each other class"
    )
  return [(name, path) for name, paths in classes for path in paths]


def query_files(folder):
  """Paths of the pictures in a folder, sorted.

  Raises:
    UserError: no folder, or no picture in it.
  """
  files = locate.pictures(_existing("query", folder))
  if not files:
    raise UserError(
      f"{folder}: no picture here (looked for {', '.join(locate.IMAGE_SUFFIXES)}, not in folders inside); put those to "
      "be labelled there"
    )
  return files


def _existing(name, folder):
  path = pathlib.Path(folder)
  if not path.is_dir():
    what = "this is a file, a folder was expected" if path.exists() else "no such folder"
    raise UserError(f"{name}={folder}: {what}; name the folder of the pictures")
  return path
