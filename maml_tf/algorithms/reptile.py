"""Reptile (Nichol, Achiam and Schulman 2018): no derivative through the inner loop at all."""

import tensorflow as tf

from maml_tf import losses, over_tasks, randomness, tracing
from maml_tf import maml as inner_loop
from maml_tf.algorithms.maml import MAML
from maml_tf.algorithms.meta_parameters import MetaParameters
from maml_tf.errors import UserError

BETA_2, EPSILON = 0.999, 1e-8  # openai/supervised-reptile: TensorFlow's Adam, with beta_1 = 0
SECOND, STEPS = "second/", "inner_steps"  # names of the inner Adam's state, among those of training


class Reptile(MAML):
  """Reptile (Nichol et al. 2018, algorithm 2): the initialisation moves towards the adapted weights.

  In training it adapts to a task's support and query examples together, and it adapts all weights of the model, those
  of normalisation included. Its meta-gradient, theta - mean of theta_i', is for the optimiser to use: plain descent
  with a step that shrinks to 0, as published, or another.

  Args:
    model: an `ExplicitModel`.
    loss: as of `MAML`.
    inner_lr: a float.
    inner_optimizer: "sgd"; or "adam", with beta_1 = 0, as published. The squared gradients that it keeps go on from
      meta-iteration to meta-iteration, as their mean over the tasks, and into the test.
    inner_batch_size: examples of each inner step in training, from an order that is drawn anew whenever all have been
      used, as published; 0: all. To adapt, all are used at every step.
    **settings: as of `MAML`, but for `first_order`: there are no second derivatives to leave out.

  Raises:
    UserError: another optimiser.
  """

  def __init__(self, model, loss="mse", inner_lr=0.01, inner_optimizer="sgd", inner_batch_size=0, **settings):
    super().__init__(model, loss, dict.fromkeys(model.weight_shapes, inner_lr), first_order=True, **settings)
    if inner_optimizer not in ("sgd", "adam"):
      raise UserError(f"inner_optimizer={inner_optimizer}: expected sgd or adam")
    self.adam, self.inner_batch_size = inner_optimizer == "adam", inner_batch_size

  def initial_weights(self, seed=0):
    weights = super().initial_weights(seed)
    if not self.adam:
      return weights
    state = {SECOND + name: tf.zeros_like(weights[name]) for name in self.model.weight_shapes}
    state[STEPS] = tf.zeros([], next(iter(weights.values())).dtype)
    return weights | MetaParameters({}, {}, {}, state).flat()

  @tracing.as_it_stands
  def adapt(self, weights, support_x, support_y, num_updates=None, seed=None):
    if not self.adam:
      return super().adapt(weights, support_x, support_y, num_updates, seed)
    num_updates = self.num_updates if num_updates is None else num_updates
    return [self.adapt_final(weights, support_x, support_y, count) for count in range(num_updates + 1)]

  @tracing.as_it_stands
  def adapt_final(self, weights, support_x, support_y, num_updates, seed=None):
    if not self.adam:
      return super().adapt_final(weights, support_x, support_y, num_updates, seed)
    support_x, support_y = over_tasks.as_tensors((support_x, support_y))
    start, rates = self._start(weights, support_x)
    loss_fn = self._support_loss(start, support_x, support_y)
    adapted, _, _ = self._descended(weights, start, rates, lambda step: loss_fn, num_updates)
    return self._give_task_axis(self._with_statistics(adapted, support_x), support_x)

  @tracing.as_it_stands
  def evaluate(self, weights, batch, num_updates=10, seed=None):
    if not self.adam:
      return super().evaluate(weights, batch, num_updates, seed)
    batch = over_tasks.as_tensors(batch)
    start, rates = self._start(weights, batch.support_x)
    loss_fn = self._support_loss(start, batch.support_x, batch.support_y, batch.support_mask)
    names = ["loss", *losses.accuracy_names(self.loss)]

    def measure(adapted):
      measured = self._query_metrics(adapted, batch)
      return [measured[name] for name in names]

    stacked = self._descended(weights, start, rates, lambda step: loss_fn, num_updates, measure, len(names))[2]
    return dict(zip(names, stacked, strict=True))

  @tracing.as_it_stands
  def meta_loss(self, weights, batch, seed=None):
    """As `MAML.meta_loss`: the query loss after adapting, whose gradient is Reptile's."""
    whole, moved, support_losses = _all_as_support(batch), {}, []
    if self.adam or self.inner_batch_size:
      adapted, moved = self._adapted_as_published(weights, over_tasks.as_tensors(whole), seed)
    else:
      adapted, support_losses, *_ = self._adapt_for_training(weights, whole)
    loss, metrics, updates = self._loss_and_metrics(weights, adapted, support_losses, batch)
    towards = {n: tf.stop_gradient(weights[n] - tf.reduce_mean(adapted[n], axis=0)) for n in self.model.weight_shapes}
    with_gradient = tf.add_n([tf.reduce_sum(towards[n] * weights[n]) for n in towards])
    return with_gradient + tf.stop_gradient(loss - with_gradient), metrics, updates | moved

  def _adapted_as_published(self, weights, batch, seed):
    """(adapted weights, the inner Adam's state after it), of a batch without query examples of its own."""
    weights = {name: tf.stop_gradient(weight) for name, weight in weights.items()}
    start, rates = self._start(weights, batch.support_x)
    size, count = self.inner_batch_size, batch.support_y.shape[1]
    loss_fn = self._support_loss(start, batch.support_x, batch.support_y, batch.support_mask)

    def loss_at(step):
      if not size:
        return loss_fn
      chosen = tf.gather(order, step * size + tf.range(size), axis=1)
      x, y = (tf.gather(field, chosen, axis=1, batch_dims=1) for field in (batch.support_x, batch.support_y))
      return self._support_loss(start, x, y)

    if size:
      if batch.support_mask is not None:
        raise ValueError("support_mask: mini-batches are drawn from all examples; give every task as many")
      order = orders(seed, over_tasks.num_tasks_of(batch.support_x), count, -(-self.num_updates * size // count))
    adapted, second, _ = self._descended(weights, start, rates, loss_at, self.num_updates)
    state = {SECOND + name: tf.reduce_mean(value, axis=0) for name, value in second.items()}
    if self.adam:
      # Rounded: a mean over chunks of tasks, which adds shares, is a whole number but for rounding.
      state[STEPS] = tf.round(MetaParameters.of(weights).training[STEPS]) + self.num_updates
    return adapted, MetaParameters({}, {}, {}, state).flat()

  def _descended(self, weights, start, rates, loss_at, num_updates, measure=None, num_measured=0):
    """(weights after the last step, squared gradients, what `measure` gives after 0 to num_updates steps, stacked)."""
    names, training = list(self.model.weight_shapes), MetaParameters.of(weights).training
    dtype = start[names[0]].dtype
    second = {n: tf.zeros_like(start[n]) + training[SECOND + n] for n in names} if self.adam else {}
    before = training[STEPS] if self.adam else None
    num_updates = tf.cast(num_updates, tf.int32)
    arrays = [tf.TensorArray(dtype, num_updates + 1) for _ in range(num_measured)]

    def record(step, adapted, arrays):
      values = measure(start | adapted) if arrays else []
      return [array.write(step, value) for array, value in zip(arrays, values, strict=True)]

    def body(step, adapted, second, arrays):
      _, gradients = inner_loop.losses_and_gradients(loss_at(step), start | adapted, names)
      if self.adam:
        second = {n: BETA_2 * second[n] + (1.0 - BETA_2) * gradients[n] ** 2 for n in names}
        correction = tf.sqrt(1.0 - BETA_2 ** (before + tf.cast(step + 1, dtype)))
        gradients = {n: correction * gradients[n] / (tf.sqrt(second[n]) + EPSILON) for n in names}
      adapted = {n: adapted[n] - inner_loop.as_rate(rates[n], dtype) * gradients[n] for n in names}
      return step + 1, adapted, second, record(step + 1, adapted, arrays)

    adapted = {name: start[name] for name in names}
    _, adapted, second, arrays = tf.while_loop(
      lambda step, *_: step < num_updates, body, (0, adapted, second, record(0, adapted, arrays)), parallel_iterations=1
    )
    return start | adapted, second, [array.stack() for array in arrays]


def orders(seed, num_tasks, count, passes):
  """Examples 0 to count - 1 in a random order, several times over, for each task: int32 [T, passes * count]."""

  def order(task_seed):
    keys = randomness.integers(randomness.fold(task_seed, "order"), [passes, count], 2**31 - 1)
    return tf.reshape(tf.argsort(keys), [passes * count])

  spec = tf.TensorSpec([passes * count], tf.int32)
  return tf.map_fn(order, randomness.per_task(seed, num_tasks), fn_output_signature=spec)


def _all_as_support(batch):
  """The tasks with their query examples joined to the support set."""

  def join(support, query):
    return tf.nest.map_structure(lambda s, q: tf.concat([s, q], axis=1), support, query)

  batch = over_tasks.as_tensors(batch)

  mask = None
  if batch.support_mask is not None or batch.query_mask is not None:
    masks = (_mask(batch.support_mask, batch.support_y), _mask(batch.query_mask, batch.query_y))
    mask = join(*masks)
  return batch._replace(
    support_x=join(batch.support_x, batch.query_x), support_y=join(batch.support_y, batch.query_y), support_mask=mask
  )


def _mask(mask, labels):
  return tf.ones(tf.shape(tf.nest.flatten(labels)[0])[:2], tf.bool) if mask is None else tf.cast(mask, tf.bool)
