"""Bayesian MAML (Yoon et al. 2018): particles that move by Stein's variational gradient, and the chaser loss."""

import math

import tensorflow as tf

from maml_tf import over_tasks, tracing
from maml_tf.algorithms.base import Algorithm
from maml_tf.algorithms.maml import MAML

PARTICLES = "particles"


class BayesianMAML(MAML):
  """A task is what a set of particles, each the weights of a network, become by SVGD steps on its support set.

  The meta-loss is the chaser loss: the squared distance of the particles after `num_updates` steps on the support set
  to where `leader_updates` more, on support and query set together, would take them; those do not move for its sake.
  What the steps climb is minus the mean loss. Predictions are means over the particles.

  Args:
    model: an `ExplicitModel`.
    loss: as of `MAML`.
    inner_lr: a float.
    num_particles: M, at least 2.
    leader_updates: steps of the leader beyond the chaser.
    **settings: as of `MAML`.
  """

  compiles = False

  def __init__(self, model, loss="mse", inner_lr=0.01, num_particles=5, leader_updates=1, **settings):
    super().__init__(model, loss, inner_lr, **settings)
    if num_particles < 2:
      raise ValueError(f"num_particles: expected at least 2, got {num_particles}")
    self.num_particles, self.leader_updates = num_particles, leader_updates

  def initial_weights(self, seed=0):
    """Every particle starts from weights of its own: dict of `particles/NAME` -> [M, ...]."""
    drawn = [self.model.initial_weights(seed * self.num_particles + m) for m in range(self.num_particles)]
    return {f"{PARTICLES}/{name}": tf.stack([each[name] for each in drawn]) for name in self.model.weight_shapes}

  def optional_names(self, weights):
    del weights
    return ()

  def ready_tasks(self, weights):
    return [weights]

  @tracing.as_it_stands
  def meta_loss(self, weights, batch, seed=None):
    """The chaser loss, mean over tasks (eq. 6)."""
    del seed
    batch = over_tasks.as_tensors(batch)
    chaser = self._moved(self._start_of(weights, batch), batch.support_x, batch.support_y, self.num_updates)
    both_x, both_y = (
      tf.concat(parts, 1) for parts in ((batch.support_x, batch.query_x), (batch.support_y, batch.query_y))
    )
    leader = tf.stop_gradient(self._moved(chaser, both_x, both_y, self.leader_updates))
    loss = tf.reduce_mean(tf.reduce_sum((chaser - leader) ** 2, axis=[1, 2]))
    measured = self.measure(self.predict(self._named(chaser), batch.query_x), batch)
    return loss, {f"query_{k}/step_{self.num_updates}": tf.reduce_mean(v) for k, v in measured.items()}, {}

  @tracing.as_it_stands
  def adapt(self, weights, support_x, support_y, num_updates=None, seed=None):
    """Dict of `particles/NAME` -> [T, M, ...] after `num_updates` steps, an integer or a tensor."""
    del seed
    support_x, support_y = over_tasks.as_tensors((support_x, support_y))
    count = self.num_updates if num_updates is None else num_updates
    start = over_tasks.repeat(self._flat(weights), over_tasks.num_tasks_of(support_x))
    return self._named(self._moved(start, support_x, support_y, count))

  def adapt_final(self, weights, support_x, support_y, num_updates, seed=None):
    return self.adapt(weights, support_x, support_y, num_updates, seed)

  evaluate = Algorithm.evaluate

  @tracing.as_it_stands
  def predict(self, task, x):
    """Means over the particles, [T, n, ...]; [n, ...] of particles without a task axis."""
    first = next(iter(self.model.weight_shapes))
    if task[f"{PARTICLES}/{first}"].shape.rank == len(self.model.weight_shapes[first]) + 1:
      return self.predict_one(task, x)
    return tf.reduce_mean(self.outputs_of_particles(task, x), axis=1)

  def predict_one(self, task, x):
    return Algorithm.predict_one(self, task, x)

  @tracing.as_it_stands
  def hypotheses(self, weights, support_x, support_y, x, num_updates, seed, count):
    """Outputs at x [T, n, ...] of the particles, of which there are always `num_particles`: [M, T, n, ...]."""
    del seed, count
    outputs = self.outputs_of_particles(self.adapt(weights, support_x, support_y, num_updates), x)
    return tf.transpose(outputs, [1, 0, *range(2, outputs.shape.rank)])

  def outputs_of_particles(self, task, x):
    """[T, M, n, ...] at x [T, n, ...]."""
    x = tf.convert_to_tensor(x)
    merged = {name: _merged(task[f"{PARTICLES}/{name}"]) for name in self.model.weight_shapes}
    outputs = self.model.apply(merged, tf.repeat(x, self.num_particles, axis=0))
    return tf.reshape(outputs, tf.concat([[-1, self.num_particles], tf.shape(outputs)[1:]], 0))

  def _start_of(self, weights, batch):
    return over_tasks.repeat(self._flat(weights), over_tasks.num_tasks_of(batch.support_x))

  def _moved(self, flat, x, y, count):
    """Particles [T, M, D] after `count` SVGD steps on (x, y)."""
    if isinstance(count, int):
      for _ in range(count):
        flat = self._step(flat, x, y)
      return flat
    return tf.while_loop(lambda i, _: i < count, lambda i, flat: (i + 1, self._step(flat, x, y)), (0, flat))[1]

  def _step(self, flat, x, y):
    with tf.GradientTape(watch_accessed_variables=False) as tape:
      tape.watch(flat)
      outputs = self.outputs_of_particles(self._named(flat), x)
      labels = tf.repeat(y, self.num_particles, axis=0)
      loss = self.task_losses(labels, _merged(outputs), None, (tf.repeat(x, self.num_particles, axis=0), None))
    gradients = tape.gradient(loss, flat)
    return flat + self.inner_lr * svgd_direction(flat, -gradients)

  def _flat(self, weights):
    """Particles [M, D] of weights [M, ...]."""
    return tf.concat([tf.reshape(weights[f"{PARTICLES}/{n}"], [self.num_particles, -1]) for n in self._names()], axis=1)

  def _named(self, flat):
    """Weights `particles/NAME` [T, M, ...] of particles [T, M, D]."""
    shapes = [self.model.weight_shapes[name] for name in self._names()]
    parts = tf.split(flat, [math.prod(shape) for shape in shapes], axis=2)
    return {
      f"{PARTICLES}/{name}": tf.reshape(part, [-1, self.num_particles, *shape])
      for name, shape, part in zip(self._names(), shapes, parts, strict=True)
    }

  def _names(self):
    return list(self.model.weight_shapes)


def svgd_direction(particles, log_density_gradients):
  """(1/M) sum_j [k(x_j, x_m) grad log p(x_j) + grad_{x_j} k(x_j, x_m)], for each particle m (Liu and Wang 2016, eq. 8).

  k(x, x') = exp(-|x - x'|^2 / h), with h the median of the squared distances of different particles, over log(M + 1);
  no derivative is taken of h.

  Args:
    particles: [T, M, D].
    log_density_gradients: [T, M, D].

  Returns:
    [T, M, D].
  """
  count = particles.shape[1]
  differences = particles[:, :, tf.newaxis] - particles[:, tf.newaxis]  # [T, M, M, D], of m and j
  squared = tf.reduce_sum(differences**2, axis=-1)
  pairs = [m * count + j for m in range(count) for j in range(m + 1, count)]
  ordered = tf.sort(tf.gather(tf.reshape(squared, [-1, count * count]), pairs, axis=1), axis=1)
  middle = len(pairs) // 2
  median = ordered[:, middle] if len(pairs) % 2 else 0.5 * (ordered[:, middle - 1] + ordered[:, middle])
  width = tf.stop_gradient(median / math.log(count + 1.0))[:, tf.newaxis, tf.newaxis]
  kernel = tf.exp(-squared / width)
  drift = tf.matmul(kernel, log_density_gradients)
  repulsion = tf.reduce_sum(2.0 / width[..., tf.newaxis] * differences * kernel[..., tf.newaxis], axis=2)
  return (drift + repulsion) / count


def _merged(values):
  """[T, M, ...] -> [T * M, ...]."""
  return tf.reshape(values, tf.concat([[-1], tf.shape(values)[2:]], 0))
