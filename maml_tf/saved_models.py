"""Where a SavedModel lies. Imports neither TensorFlow nor NumPy: one that is missing is said at once."""

import pathlib

from maml_tf.errors import UserError


def find(path):
  """The folder of a SavedModel, a `pathlib.Path`.

  Args:
    path: that folder, a run's, or the one of runs where there is only one of them.

  Raises:
    UserError: none is there, or several.
  """
  path = pathlib.Path(path)
  there = [folder for folder in (path, path / "saved_model") if _is_one(folder)][:1]
  found = there or sorted(folder for folder in path.glob("*/saved_model") if _is_one(folder))
  if not found:
    raise UserError(f"{path}: no SavedModel here (a folder with saved_model.pb was expected, or a run that has one)")
  if len(found) > 1:
    names = ", ".join(folder.parent.name for folder in found[:3])
    more = ", ..." if found[3:] else ""
    raise UserError(f"{path}: {len(found)} runs here have a SavedModel ({names}{more}); name one")
  return found[0]


def _is_one(folder):
  return (folder / "saved_model.pb").is_file()
