"""What this part needs beside the package's own dependencies."""

import contextlib
import importlib
import warnings

from maml_tf.errors import UserError


def scikit_learn(module):
  """A module of scikit-learn, `sklearn.<module>`.

  Raises:
    UserError: it is not installed; the message names the extra.
  """
  try:
    return importlib.import_module(f"sklearn.{module}")
  except ImportError as error:
    raise UserError(
      f"scikit-learn is not installed ({error}); install the extra: pip install 'maml_tf[unsupervised]', or "
      "pip install 'scikit-learn>=1.6'"
    ) from error


@contextlib.contextmanager
def one_thread():
  """Sums in the same order whatever the machine's cores, and no warnings of clusters that stay empty."""
  threadpoolctl = importlib.import_module("threadpoolctl")  # scikit-learn brings it
  with threadpoolctl.threadpool_limits(1), warnings.catch_warnings():
    warnings.simplefilter("ignore")
    yield
