"""Probabilistic MAML, PLATIPUS (Finn, Xu and Levine 2018): initial weights are a distribution, of which tasks draw."""

import tensorflow as tf

from maml_tf import maml as inner_loop
from maml_tf import over_tasks, randomness, tracing
from maml_tf.algorithms.maml import MAML

PRIOR, POSTERIOR = "log_prior_variance", "log_posterior_variance"
GAMMAS = ("gamma_p", "gamma_q")
INITIAL_LOG_VARIANCE = -6.0  # the paper says nothing of it


class PLATIPUS(MAML):
  """Draws initial weights from N(mu - gamma_p grad L(mu; support), sigma^2), then takes MAML's steps (algorithm 2).

  In training (algorithm 1) they are drawn from q = N(mu - gamma_q grad L(mu; query), v), and the KL divergence from q
  to what the test draws from is added to the query loss. All is differentiated through: the means mu, which are the
  model's weights; the logarithms of the variances, for every element; and the two gammas.

  Args:
    model: an `ExplicitModel`.
    loss: as of `MAML`.
    inner_lr: a float.
    kl_weight: what the divergence is multiplied by, where the loss is a mean and no log-likelihood.
    **settings: as of `MAML`.
  """

  compiles = False

  def __init__(self, model, loss="mse", inner_lr=0.001, kl_weight=1e-6, **settings):
    super().__init__(model, loss, inner_lr, **settings)
    self.kl_weight = kl_weight

  def initial_weights(self, seed=0):
    weights = super().initial_weights(seed)
    variances = {
      f"{kind}/{name}": tf.fill(weights[name].shape, tf.constant(INITIAL_LOG_VARIANCE, weights[name].dtype))
      for kind in (PRIOR, POSTERIOR)
      for name in self.model.adapted_names
    }
    dtype = next(iter(weights.values())).dtype
    return weights | variances | {name: tf.constant(self.inner_lr, dtype) for name in GAMMAS}

  def ready_tasks(self, weights):
    return [{n: w for n, w in weights.items() if n in self.model.weight_shapes}]

  @tracing.as_it_stands
  def meta_loss(self, weights, batch, seed=None):
    """Query loss and KL divergence, mean over tasks."""
    batch = over_tasks.as_tensors(batch)
    centre = self._centre(weights, batch.support_x)
    means = self._moved(centre, weights["gamma_q"], batch.query_x, batch.query_y)
    prior_means = self._moved(centre, weights["gamma_p"], batch.support_x, batch.support_y)
    posterior, prior = (_of_kind(weights, kind) for kind in (POSTERIOR, PRIOR))
    start = centre | self._drawn(means, posterior, seed)
    support_loss = self._support_loss(start, batch.support_x, batch.support_y)
    rates = dict.fromkeys(self.model.adapted_names, self.inner_lr)
    steps, _ = inner_loop.unrolled(support_loss, start, rates, self.num_updates, self.first_order)
    measured = self._query_metrics(steps[-1], batch)
    divergence = kl_divergence(means, posterior, prior_means, prior)
    loss = tf.reduce_mean(measured["loss"] + self.kl_weight * divergence)
    metrics = {f"query_{k}/step_{self.num_updates}": tf.reduce_mean(v) for k, v in measured.items()}
    return loss, metrics | {"kl_divergence": tf.reduce_mean(divergence)}, {}

  @tracing.as_it_stands
  def adapt(self, weights, support_x, support_y, num_updates=None, seed=None):
    """As `MAML.adapt`, from initial weights that are drawn: one hypothesis for each task."""
    support_x, support_y = over_tasks.as_tensors((support_x, support_y))
    start, rates = self._start_of_test(weights, support_x, support_y, seed)
    count = self.num_updates if num_updates is None else num_updates
    steps = inner_loop.adapt(self._support_loss(start, support_x, support_y), start, rates, count, self.first_order)
    return [self._give_task_axis(self._with_statistics(step, support_x), support_x) for step in steps]

  @tracing.as_it_stands
  def adapt_final(self, weights, support_x, support_y, num_updates, seed=None):
    support_x, support_y = over_tasks.as_tensors((support_x, support_y))
    start, rates = self._start_of_test(weights, support_x, support_y, seed)
    adapted = inner_loop.adapt_final(self._support_loss(start, support_x, support_y), start, rates, num_updates)
    return self._give_task_axis(self._with_statistics(adapted, support_x), support_x)

  @tracing.as_it_stands
  def evaluate(self, weights, batch, num_updates=10, seed=None):
    """As `MAML.evaluate`, of one hypothesis for each task."""
    batch = over_tasks.as_tensors(batch)
    steps = self.adapt(weights, batch.support_x, batch.support_y, num_updates, seed)
    measured = [self._query_metrics(step, batch) for step in steps]
    return {name: tf.stack([values[name] for values in measured]) for name in measured[0]}

  @tracing.as_it_stands
  def hypotheses(self, weights, support_x, support_y, x, num_updates, seed, count):
    """Outputs at x [T, n, ...] of `count` draws: [count, T, n, ...]."""
    outputs = []
    for index in range(count):
      task = self.adapt_final(weights, support_x, support_y, num_updates, randomness.fold(seed, "draw", index))
      outputs.append(self.predict(task, x))
    return tf.stack(outputs)

  def _start_of_test(self, weights, support_x, support_y, seed):
    centre = self._centre(weights, support_x)
    means = self._moved(centre, weights["gamma_p"], support_x, support_y)
    start = centre | self._drawn(means, _of_kind(weights, PRIOR), seed)
    return start, dict.fromkeys(self.model.adapted_names, self.inner_lr)

  def _centre(self, weights, support_x):
    """mu: the adapted weights once for each task [T, ...], and the others, shared."""
    plain = {name: tf.convert_to_tensor(weights[name]) for name in self.model.weight_shapes}
    num_tasks = over_tasks.num_tasks_of(support_x)
    return {n: over_tasks.repeat(w, num_tasks) if n in self.model.adapted_names else w for n, w in plain.items()}

  def _moved(self, centre, gamma, x, y):
    """A step of gamma down the loss on (x, y): dict of the adapted weights, [T, ...]."""
    names = self.model.adapted_names
    with tf.GradientTape(watch_accessed_variables=False) as tape:
      point = {name: tf.identity(centre[name]) for name in names}
      tape.watch(point)
      loss = self._support_loss(None, x, y)(centre | point)
    gradients = over_tasks.gradients(tape, loss, point)
    return {name: centre[name] - gamma * gradients[name] for name in names}

  def _drawn(self, means, log_variances, seed):
    noise = noise_like(means, randomness.make_seed(0) if seed is None else seed)
    return {name: mean + tf.exp(0.5 * log_variances[name]) * noise[name] for name, mean in means.items()}


def _of_kind(weights, kind):
  return {n.removeprefix(f"{kind}/"): w for n, w in weights.items() if n.startswith(f"{kind}/")}


def noise_like(tensors, seed):
  """Standard normal noise in the shapes [T, ...] of a dict; a task's does not depend on how many others there are."""
  shapes = {name: tensor.shape[1:] for name, tensor in tensors.items()}
  sizes = [shape.num_elements() for shape in shapes.values()]
  first = next(iter(tensors.values()))
  seeds = randomness.per_task(seed, over_tasks.num_tasks_of(first))
  spec = tf.TensorSpec([sum(sizes)], first.dtype)
  drawn = tf.map_fn(lambda s: randomness.normal(s, [sum(sizes)], first.dtype), seeds, fn_output_signature=spec)
  parts = zip(shapes.items(), tf.split(drawn, sizes, axis=1), strict=True)
  return {name: tf.reshape(part, [-1, *shape]) for (name, shape), part in parts}


def kl_divergence(means, log_variances, other_means, other_log_variances):
  """KL(N(means, variances) || N(other_means, other_variances)) of diagonal Gaussians, summed over all weights: [T].

  Args:
    means: dict of name -> [T, ...].
    log_variances: dict of name -> [...].
    other_means: likewise.
    other_log_variances: likewise.
  """
  total = 0.0
  for name, mean in means.items():
    difference = log_variances[name] - other_log_variances[name]
    away = (mean - other_means[name]) ** 2 * tf.exp(-other_log_variances[name])
    each = 0.5 * (tf.exp(difference) - difference - 1.0 + away)
    total += tf.reduce_sum(each, axis=list(range(1, each.shape.rank)))
  return total
