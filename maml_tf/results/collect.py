"""Runs of several seeds as one results file, whatever their domain."""

import pathlib

from maml_tf.errors import UserError
from maml_tf.experiments.config import resolve
from maml_tf.results import images, policies, sinusoid
from maml_tf.results.files import read_json, write_results
from maml_tf.results.runs import datasource_of


def collect(output, folders, root, shots=None):
  """Writes a results file.

  Args:
    output: the file. Evaluations of images that it has already, of the same checkpoints, stay in it.
    folders: run directories, of several seeds of one training.
    root: the checkout, which may hold kept checkpoints.
    shots: images: of the evaluations to gather; None: those of the training.

  Returns:
    Its content.

  Raises:
    UserError: runs that cannot be read or do not belong together.
  """
  output, folders, root = pathlib.Path(output), [pathlib.Path(folder) for folder in folders], pathlib.Path(root)
  config = resolve(datasource_of(folders[0]))
  if shots is not None and not config.has_images:
    raise UserError(f"shots={shots}: runs of {config.datasource} have evaluations of one kind; leave it out")
  if config.has_images:
    content = images.collect(folders, root, shots, read_json(output) if output.exists() else None)
  elif config.has_policy:
    content = policies.collect(folders, root)
  else:
    content = sinusoid.collect(folders)
  write_results(output, content)
  return content
