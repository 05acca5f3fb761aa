"""A method by command: it trains, resumes, is evaluated and exported, in seconds; for the tests of the methods."""

import numpy as np
import tensorflow as tf

from maml_tf.experiments.config import resolve
from maml_tf.experiments.run import run

SMALL = dict(
  metatrain_iterations=20, eval_tasks=20, validation_tasks=20, log_every=5, validate_every=10, checkpoint_every=10,
  log=False, jit_compile=False,
)  # fmt: skip


def trains_resumes_and_exports(folder, **given):
  """Trains a sinusoid method for 20 iterations, then, from its checkpoint, for 10 more; asks its SavedModel.

  Args:
    folder: of the run directories.
    **given: settings.

  Returns:
    The content of the results.
  """
  quiet = dict(say=lambda line: None)
  first = run(resolve(**(SMALL | given), logdir=folder), **quiet)
  longer = run(resolve(**(SMALL | given | {"metatrain_iterations": 30}), logdir=folder), **quiet)
  assert longer["directory"] == first["directory"] and longer["training"]["starts"][-1]["iteration"] == 20
  module = tf.saved_model.load(f"{longer['directory']}/saved_model")
  x = np.linspace(-3, 3, 5, dtype=np.float32)[:, np.newaxis]
  task = module.adapt(x, np.sin(x), 2)
  asked = module.predict(task, x)
  assert asked.shape == (5, 1) and np.isfinite(asked).all()
  np.testing.assert_allclose(module.adapt_and_predict(x, np.sin(x), x, 2), asked, rtol=1e-5)
  assert set(module.initialization()) and np.isfinite(longer["results"]["10"]["mse"]["mean"]).all()
  return longer
