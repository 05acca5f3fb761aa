"""Pretraining on all tasks, then fine-tuning with the best step size of a grid (Finn et al. 2017, section 5.1).

The oracle is the same on tasks whose inputs say which task it is; the random baseline is the same without training.
"""

import numpy as np
import tensorflow as tf

from maml_tf import over_tasks, tracing
from maml_tf.algorithms.maml import MAML
from maml_tf.errors import DivergedError

# The paper says "automatically tuned step size" and its code has no such search; figure 2 names 0.02 for its fit. The
# smallest ones are for the oracle, which several steps of 0.001 already spoil.
STEP_SIZES = (0.00001, 0.0001, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2)
# Of a classifier; Ravi and Larochelle 2017 search from 1e-5 to 0.5.
STEP_SIZES_OF_CLASSES = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0)


class Pretraining(MAML):
  """Minimises the support loss of every task without adapting; adapts at test time as MAML does.

  Source: cbfinn/maml, `pretrain_op` on `total_loss1` in maml.py: the support points of a meta-batch.
  """

  @tracing.as_it_stands
  def meta_loss(self, weights, batch, seed=None):
    batch = over_tasks.as_tensors(batch)
    outputs, _, penalty = self.model.apply_with_penalty(weights, batch.support_x)
    support = batch.support_x, batch.support_mask
    loss = tf.reduce_mean(self.task_losses(batch.support_y, outputs, batch.support_mask, support, penalty))
    return loss, {"support_loss/step_0": loss}, {}


def best_step_size(evaluate, step_sizes=STEP_SIZES):
  """The first of what `search_step_size` returns."""
  return search_step_size(evaluate, step_sizes)[0]


def search_step_size(evaluate, step_sizes=STEP_SIZES):
  """The step size with the lowest loss, averaged over the tasks and over all steps but the zeroth.

  Args:
    evaluate: step size -> losses [S + 1, tasks], on validation tasks.
    step_sizes: the grid.

  Returns:
    (the best one, a dict of each step size as text -> its loss). A step size that diverges (a loss that is not finite)
    is never chosen; its loss is None.

  Raises:
    DivergedError: all diverge.
  """
  scores = [np.mean(_after_steps(np.asarray(evaluate(size), np.float64))) for size in step_sizes]
  scores = np.where(np.isfinite(scores), scores, np.inf)
  if np.isinf(scores).all():
    raise DivergedError(
      f"fine-tuning diverges with every step size of {step_sizes}; train with smaller steps, or name a step size"
    )
  tried = {f"{size:g}": float(s) if np.isfinite(s) else None for size, s in zip(step_sizes, scores, strict=True)}
  return step_sizes[int(np.argmin(scores))], tried


def _after_steps(losses):
  return losses[1:] if len(losses) > 1 else losses  # no steps: every step size is as good
