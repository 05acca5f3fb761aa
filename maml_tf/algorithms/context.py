"""Context vectors (Finn et al. 2017, appendix C.2, after Rei 2015): only parameters beside the input are adapted."""

import tensorflow as tf

from maml_tf import tracing
from maml_tf.algorithms import checks
from maml_tf.algorithms.maml import MAML

CONTEXT = "context"


class Context(MAML):
  """MAML whose inner loop changes a vector that is joined to every input; the network and its start are meta-learned.

  Args:
    model: an `ExplicitModel` whose inputs have `context_size` more entries on the last axis than the data.
    loss: as of `MAML`.
    inner_lr: a float.
    context_size: entries of the vector. The paper does not say how many.
    **settings: as of `MAML`.
  """

  def __init__(self, model, loss="mse", inner_lr=0.01, context_size=10, **settings):
    super().__init__(model, loss, inner_lr, **settings)
    self.inner_lr, self.context_size = {CONTEXT: inner_lr}, context_size

  def initial_weights(self, seed=0):
    weights = super().initial_weights(seed)
    return weights | {CONTEXT: tf.zeros([self.context_size], next(iter(weights.values())).dtype)}

  def optional_names(self, weights):
    return tuple(name for name in super().optional_names(weights) if name != CONTEXT)

  def ready_tasks(self, weights):
    return [weights]

  def check_batch(self, batch):
    checks.check_batch(self, batch, self.initial_weights(0))

  @tracing.as_it_stands
  def outputs_of(self, weights, x, statistics=None):
    return super().outputs_of(weights, joined(x, weights[CONTEXT]), statistics)


def joined(x, context):
  """Inputs with the context behind them on the last axis.

  Args:
    x: [T, n, ..., d], or [n, ..., d] of one task.
    context: [T, c], or [c] of one task or of all.

  Returns:
    [..., d + c], in the dtype of the context.
  """
  x = tf.cast(tf.convert_to_tensor(x), context.dtype)
  if context.shape.rank == 2:
    between = [1] * (x.shape.rank - 2)
    context = tf.reshape(context, [-1, *between, context.shape[-1]])
  context = tf.broadcast_to(context, tf.concat([tf.shape(x)[:-1], context.shape[-1:]], 0))
  return tf.concat([x, context], axis=-1)
