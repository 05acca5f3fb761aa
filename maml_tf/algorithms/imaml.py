"""Implicit MAML (Rajeswaran, Finn, Kakade and Levine 2019): a meta-gradient that does not depend on the inner path."""

import tensorflow as tf

from maml_tf import linear, over_tasks, tracing
from maml_tf import maml as inner_loop
from maml_tf.algorithms import checks
from maml_tf.algorithms.maml import MAML, MetaParameters


class ImplicitMAML(MAML):
  """Adapts to a minimum of the support loss near the initialisation, and differentiates that by what it fulfils.

  The inner loop descends L(phi) + lambda / 2 |phi - theta|^2 (eq. 3). At its minimum the meta-gradient of a task is
  (I + H / lambda)^-1 times the query loss's gradient, where H is the Hessian of L (lemma 1, eq. 6). Conjugate gradients
  find it from products with H. Memory is that of one step, however many there are.

  All weights of the model are adapted, those of normalisation included, as the lemma has it.

  Args:
    model: an `ExplicitModel`.
    loss: as of `MAML`.
    inner_lr: a float.
    num_updates: inner steps in training; as many as come close to the minimum.
    proximal_weight: lambda.
    cg_iterations: products with the Hessian for each task.
    **settings: as of `MAML`, but for `first_order` and `checkpoint_inner_steps`: nothing is differentiated twice along
      the inner path.

  Raises:
    ValueError: `proximal_weight` is not above 0.
  """

  def __init__(
    self, model, loss="mse", inner_lr=0.01, num_updates=16, proximal_weight=2.0, cg_iterations=5, **settings
  ):
    if not proximal_weight > 0:
      raise ValueError(f"proximal_weight: expected a number above 0, got {proximal_weight}")
    rates = dict.fromkeys(model.weight_shapes, inner_lr)
    super().__init__(model, loss, rates, num_updates, first_order=True, **settings)
    self.proximal_weight, self.cg_iterations = proximal_weight, cg_iterations

  @tracing.as_it_stands
  def meta_loss(self, weights, batch, seed=None):
    """As `MAML.meta_loss`: the query loss after adapting, whose gradient is the implicit one."""
    del seed
    batch = over_tasks.as_tensors(batch)
    start, rates = self._start({n: tf.stop_gradient(w) for n, w in weights.items()}, batch.support_x)
    checks.refuse_dropped_derivatives(self, MetaParameters.of(weights).model, rates, batch)
    support_loss = self._support_loss(start, batch.support_x, batch.support_y, batch.support_mask)
    adapted = inner_loop.adapt_final(support_loss, start, rates, self.num_updates)
    adapted = {n: tf.stop_gradient(w) for n, w in adapted.items()}
    found = {name: adapted[name] for name in self.model.weight_shapes}
    with tf.GradientTape(watch_accessed_variables=False) as tape:
      tape.watch(found)
      loss, metrics, updates = self._loss_and_metrics(weights, adapted | found, [], batch)
    gradient = tape.gradient(loss, found, unconnected_gradients=tf.UnconnectedGradients.ZERO)
    implicit = self._implicit(support_loss, adapted, found, gradient)
    metrics["support_loss/regularised"] = tf.reduce_mean(support_loss(adapted))
    # Each task's is a share of the mean already.
    towards = {name: tf.stop_gradient(tf.reduce_sum(value, axis=0)) for name, value in implicit.items()}
    with_gradient = tf.add_n([tf.reduce_sum(towards[name] * weights[name]) for name in towards])
    return with_gradient + tf.stop_gradient(loss - with_gradient), metrics, updates

  def _implicit(self, support_loss, adapted, found, gradient):
    """(I + H / lambda)^-1 gradient, for every task: dicts of name -> [T, ...]."""

    def product(vector):
      with tf.GradientTape(watch_accessed_variables=False) as outer:
        outer.watch(found)
        with tf.GradientTape(watch_accessed_variables=False) as inner:
          inner.watch(found)
          losses = support_loss(adapted | found)
        along = linear.dot(inner.gradient(losses, found), vector)
      # The regularised loss has the Hessian H + lambda I.
      pulled = outer.gradient(along, found)
      return {name: value / self.proximal_weight for name, value in pulled.items()}

    return linear.conjugate_gradient_per_task(product, gradient, self.cg_iterations)

  def _support_loss(self, start, x, y, mask=None):
    data_loss = super()._support_loss(start, x, y, mask)

    def loss_fn(weights):
      away = linear.add(weights_of(weights, self.model), weights_of(start, self.model), -1.0)
      return data_loss(weights) + 0.5 * self.proximal_weight * linear.dot_per_task(away, away)

    return loss_fn


def weights_of(weights, model):
  """The model's own, of a flat dict."""
  return {name: weights[name] for name in model.weight_shapes}
