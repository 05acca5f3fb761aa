"""Runs of several seeds as one results file, whatever their domain."""

import pathlib

from maml_tf.errors import UserError
from maml_tf.experiments.domains import domain_of
from maml_tf.results import images, online, policies, sinusoid
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
  try:
    content = _content(output, folders, root, shots)
  except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
    names = ", ".join(map(str, folders))
    raise UserError(f"{names}: what a run has written is damaged ({error!r}); evaluate it anew") from error
  write_results(output, content)
  return content


def _content(output, folders, root, shots):
  domain = domain_of(datasource_of(folders[0])).name
  if shots is not None and domain != "images":
    raise UserError(f"shots={shots}: only runs of images are collected by shots; leave it out")
  if domain == "images":
    content = images.collect(folders, root, shots, read_json(output) if output.exists() else None)
  elif domain == "policies":
    content = policies.collect(folders, root)
  elif domain == "online":
    content = online.collect(folders, root)
  elif domain == "sinusoid":
    content = sinusoid.collect(folders)
  else:
    raise UserError(f"{folders[0]}: runs of {domain} are not collected; expected images, online, policies or sinusoid")
  return content
