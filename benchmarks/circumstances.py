"""On what, and with what, something was timed."""

import os

from maml_tf.errors import UserError
from maml_tf.startup import TENSORFLOW_VARIABLES


def describe(**settings):
  """JSON-able dict of the settings of a measurement, of TensorFlow's start, of versions and the machine."""
  from maml_tf.experiments import provenance

  environment = {name: os.environ[name] for name in TENSORFLOW_VARIABLES if name in os.environ}
  return {**settings, "environment": environment, **provenance.describe()}


def import_torch():
  """PyTorch.

  Raises:
    UserError: it is not installed.
  """
  try:
    import torch
  except ImportError as error:
    raise UserError('PyTorch is not installed; pip install ".[bench]" (or torch) brings it') from error
  return torch
