"""Reptile (Nichol, Achiam and Schulman 2018): no derivative through the inner loop at all."""

import tensorflow as tf

from maml_tf import tracing
from maml_tf.algorithms.maml import MAML


class Reptile(MAML):
  """Reptile (Nichol et al. 2018, algorithm 2): the initialisation moves towards the adapted weights.

  In training it adapts to a task's support and query examples together, and it adapts all weights of the model, those
  of normalisation included. Its meta-gradient, theta - mean of theta_i', is for the optimiser to use.

  Args:
    model: an `ExplicitModel`.
    loss: as of `MAML`.
    inner_lr: a float.
    **settings: as of `MAML`, but for `first_order`: there are no second derivatives to leave out.
  """

  def __init__(self, model, loss="mse", inner_lr=0.01, **settings):
    super().__init__(model, loss, dict.fromkeys(model.weight_shapes, inner_lr), first_order=True, **settings)

  @tracing.as_it_stands
  def meta_loss(self, weights, batch, seed=None):
    """As `MAML.meta_loss`: the query loss after adapting, whose gradient is Reptile's."""
    adapted, support_losses, *_ = self._adapt_for_training(weights, _all_as_support(batch))
    loss, metrics, updates = self._loss_and_metrics(weights, adapted, support_losses, batch)
    towards = {n: tf.stop_gradient(weights[n] - tf.reduce_mean(adapted[n], axis=0)) for n in self.model.weight_shapes}
    with_gradient = tf.add_n([tf.reduce_sum(towards[n] * weights[n]) for n in towards])
    return with_gradient + tf.stop_gradient(loss - with_gradient), metrics, updates


def _all_as_support(batch):
  """The tasks with their query examples joined to the support set."""

  def join(support, query):
    return tf.concat([support, query], axis=1)

  mask = None
  if batch.support_mask is not None or batch.query_mask is not None:
    masks = (_mask(batch.support_mask, batch.support_y), _mask(batch.query_mask, batch.query_y))
    mask = join(*masks)
  return batch._replace(
    support_x=join(batch.support_x, batch.query_x), support_y=join(batch.support_y, batch.query_y), support_mask=mask
  )


def _mask(mask, labels):
  return tf.ones(tf.shape(labels)[:2], tf.bool) if mask is None else tf.cast(mask, tf.bool)
