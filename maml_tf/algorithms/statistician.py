"""The neural statistician (Edwards and Storkey 2017): a class is a distribution over contexts."""

import math

import tensorflow as tf

from maml_tf import over_tasks, randomness, tracing
from maml_tf.algorithms.features import features_of
from maml_tf.algorithms.lstm import head_outputs, head_weights
from maml_tf.algorithms.metric import Metric
from maml_tf.algorithms.prototypical import prototypes

HIDDEN = 256  # conormdurkan/neural-statistician, Omniglot
WIDEST = 10.0  # a logarithm of a variance, at most in size
# The perceptrons of one hidden layer: what each is given and what it gives, in the letters of `sizes`.
NETWORKS = {"statistic": ("e", "cc"), "latent": ("ec", "zz"), "prior": ("c", "zz"), "decoder": ("zc", "x")}


class Statistician(Metric):
  """Learns contexts c of sets of one class as a variational autoencoder (Edwards and Storkey 2017, section 3).

  The statistic network takes the mean of a set's features to q(c | set). In training, all examples of a class in a task
  are a set, whose images are generated from c and a latent variable of each image; no labels are compared. A query is
  of the class whose q(c | support examples) is the nearest to q(c | query), by the KL divergence from the latter.

  Args:
    model: as of `Metric`; inputs are between 0 and 1.
    loss: as of `Metric`: what is reported. Training maximises the variational bound, over the number of images.
    bn_mode: as of `Metric`.
    statistic_size: entries of a context.
    latent_size: entries of an image's latent variable.
  """

  learned = ("context_mean", "context_log_variance")

  def __init__(self, model, loss="crossentropy", bn_mode="transductive", statistic_size=512, latent_size=16):
    super().__init__(model, loss, bn_mode)
    self.sizes = {"e": features_of(model), "c": statistic_size, "z": latent_size, "x": math.prod(model.example_shape)}

  def initial_weights(self, seed=0):
    weights = super().initial_weights(seed)
    for name, (given, gives) in NETWORKS.items():
      inside, outside = (sum(self.sizes[letter] for letter in letters) for letters in (given, gives))
      weights |= head_weights(f"statistician/{name}_0", inside, HIDDEN, seed)
      weights |= head_weights(f"statistician/{name}_1", HIDDEN, outside, seed)
    return weights

  def learn(self, weights, features, labels, mask):
    mean, log_variance = self._gaussian(weights, "statistic", prototypes(features, labels, mask))
    return {"context_mean": mean, "context_log_variance": log_variance}

  def compare(self, weights, learned, features):
    queries = self._gaussian(weights, "statistic", features)
    return -pairwise_divergence(queries, [learned[name] for name in self.learned])

  @tracing.as_it_stands
  def meta_loss(self, weights, batch, seed=None):
    """Minus the bound for an image, mean over all images of a task and over tasks; the metrics are of the queries."""
    batch = over_tasks.as_tensors(batch)
    learned, features = self._both_sets(weights, batch)
    measured = self.measure(self.compare(weights, learned, features), batch)
    metrics = {f"query_{name}/adapted": tf.reduce_mean(value) for name, value in measured.items()}
    if batch.support_mask is not None or batch.query_mask is not None:
      raise ValueError("support_mask: sets are generated whole; give every task as many examples")
    x, labels = (tf.concat([getattr(batch, f"{s}_{f}") for s in ("support", "query")], axis=1) for f in "xy")
    features = tf.concat([self.model.apply(weights, batch.support_x), features], axis=1)
    bound = self.bound(weights, x, features, labels, seed)
    return -tf.reduce_mean(bound), metrics, {}

  def bound(self, weights, x, features, labels, seed=None):
    """The variational bound of every task, for an image: [T].

    Args:
      weights: dict.
      x: [T, n, ...], between 0 and 1.
      features: [T, n, D].
      labels: integers [T, n].
      seed: int32 tensor [2]; None: means in place of draws.
    """
    context = self._gaussian(weights, "statistic", prototypes(features, labels))
    of_image = tf.gather(drawn(context, seed, "context"), labels, axis=1, batch_dims=1)
    latent = self._gaussian(weights, "latent", tf.concat([features, of_image], axis=-1))
    prior = self._gaussian(weights, "prior", of_image)
    logits = self._network(weights, "decoder", tf.concat([drawn(latent, seed, "latent"), of_image], axis=-1))
    x = tf.reshape(tf.cast(x, logits.dtype), tf.shape(logits))
    generated = -tf.reduce_sum(tf.nn.sigmoid_cross_entropy_with_logits(labels=x, logits=logits), axis=[1, 2])
    standard = [tf.zeros_like(part) for part in context]
    divergences = tf.reduce_sum(divergence(latent, prior), axis=1) + tf.reduce_sum(
      divergence(context, standard), axis=1
    )
    return (generated - divergences) / tf.cast(tf.shape(labels)[1], logits.dtype)

  def _gaussian(self, weights, name, inputs):
    """(mean, logarithm of the variance), each [T, n, size]."""
    mean, log_variance = tf.split(self._network(weights, name, inputs), 2, axis=-1)
    return mean, tf.clip_by_value(log_variance, -WIDEST, WIDEST)

  def _network(self, weights, name, inputs):
    hidden = tf.nn.relu(head_outputs(weights, f"statistician/{name}_0", inputs))
    return head_outputs(weights, f"statistician/{name}_1", hidden)


def divergence(left, right):
  """KL(left || right) of diagonal Gaussians, (mean, log variance) of [..., d] each: [...]."""
  (mean, log_variance), (other_mean, other_log_variance) = left, right
  ratios = (tf.exp(log_variance) + (mean - other_mean) ** 2) * tf.exp(-other_log_variance)
  return 0.5 * tf.reduce_sum(other_log_variance - log_variance + ratios - 1.0, axis=-1)


def pairwise_divergence(left, right):
  """The same of every pair: left of [T, q, d], right of [T, N, d] -> [T, q, N]."""
  (mean, log_variance), (other_mean, other_log_variance) = left, right
  precision = tf.exp(-other_log_variance)
  squares = tf.matmul(tf.exp(log_variance) + mean**2, precision, transpose_b=True)
  products = tf.matmul(mean, other_mean * precision, transpose_b=True)
  own = tf.reduce_sum(log_variance + 1.0, axis=-1)[..., tf.newaxis]
  theirs = tf.reduce_sum(other_log_variance + other_mean**2 * precision, axis=-1)[:, tf.newaxis]
  return 0.5 * (squares - 2.0 * products + theirs - own)


def drawn(gaussian, seed, name):
  """A draw of (mean, log variance) of [T, n, d], the noise of each task from a seed of its own; no seed: the mean."""
  mean, log_variance = gaussian
  if seed is None:
    return mean
  shape, seeds = tf.shape(mean)[1:], randomness.per_task(seed, over_tasks.num_tasks_of(mean))

  def noise(task_seed):
    seed = randomness.fold(task_seed, name)
    return tf.random.stateless_normal(shape, seed, dtype=mean.dtype, alg=randomness.ALGORITHM)

  noise = tf.map_fn(noise, seeds, fn_output_signature=tf.TensorSpec(mean.shape[1:], mean.dtype))
  return mean + tf.exp(0.5 * log_variance) * noise
