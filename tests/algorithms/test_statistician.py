"""The neural statistician against NumPy and TensorFlow's own losses, and as a method of the experiments."""

import clusters
import numpy as np
import pytest
import tensorflow as tf

from maml_tf.algorithms.statistician import Statistician, divergence, drawn, pairwise_divergence
from maml_tf.errors import UserError
from maml_tf.experiments.config import resolve


def normal(*shape, seed=0):
  return np.random.default_rng(seed).normal(size=shape)


def numpy_divergence(mean, log_variance, other_mean, other_log_variance):
  """By the definition for one-dimensional Gaussians, summed."""
  spread, other = np.exp(0.5 * log_variance), np.exp(0.5 * other_log_variance)
  return (np.log(other / spread) + (spread**2 + (mean - other_mean) ** 2) / (2 * other**2) - 0.5).sum(-1)


def test_the_divergence_of_gaussians():
  left, right = (normal(2, 3, 4), normal(2, 3, 4, seed=1)), (normal(2, 5, 4, seed=2), normal(2, 5, 4, seed=3))
  pairs = pairwise_divergence([tf.constant(part) for part in left], [tf.constant(part) for part in right]).numpy()
  for task in range(2):
    for i in range(3):
      for j in range(5):
        expected = numpy_divergence(*(part[task, i] for part in left), *(part[task, j] for part in right))
        np.testing.assert_allclose(pairs[task, i, j], expected, rtol=1e-9)
  same = [tf.constant(part) for part in left]
  np.testing.assert_allclose(divergence(same, same), np.zeros([2, 3]), atol=1e-12)
  np.testing.assert_allclose(divergence(same, [tf.constant(part[:, :3]) for part in right])[1, 2], pairs[1, 2, 2])


def made():
  algorithm = Statistician(clusters.bare(), statistic_size=3, latent_size=2)
  fresh = algorithm.initial_weights(0)
  return algorithm, {n: tf.constant(0.2 * normal(*w.shape, seed=i)) for i, (n, w) in enumerate(fresh.items())}


def test_a_query_is_of_the_class_with_the_nearest_context(float64):
  algorithm, weights = made()
  batch = clusters.sampled()
  outputs = algorithm.predict(algorithm.adapt(weights, batch.support_x, batch.support_y), batch.query_x).numpy()

  def context(features):
    hidden = np.maximum(features @ weights["statistician/statistic_0/kernel"].numpy()
                        + weights["statistician/statistic_0/bias"].numpy(), 0)  # fmt: skip
    both = (
      hidden @ weights["statistician/statistic_1/kernel"].numpy() + weights["statistician/statistic_1/bias"].numpy()
    )
    return both[..., :3], both[..., 3:]

  for task in range(2):
    classes = [batch.support_x[task].numpy()[batch.support_y[task].numpy() == k].mean(0) for k in range(5)]
    for query in range(10):
      own = context(batch.query_x[task, query].numpy())
      expected = [-numpy_divergence(*own, *context(features)) for features in classes]
      np.testing.assert_allclose(outputs[task, query], expected, rtol=1e-6, atol=1e-9)


def test_the_bound_is_that_of_its_definition(float64):
  """Without noise, of one class of two images: log-likelihood of both, minus the divergences of z and c, halved."""
  algorithm, weights = made()
  x, features = np.random.default_rng(0).random([1, 2, 4]), normal(1, 2, 4)
  found = algorithm.bound(weights, tf.constant(x), tf.constant(features), tf.constant([[0, 0]]))
  w = {n.removeprefix("statistician/"): v.numpy() for n, v in weights.items()}

  def network(name, inputs):
    hidden = np.maximum(inputs @ w[f"{name}_0/kernel"] + w[f"{name}_0/bias"], 0)
    return hidden @ w[f"{name}_1/kernel"] + w[f"{name}_1/bias"]

  c, c_log = np.split(network("statistic", features[0].mean(0)), 2)
  total = -numpy_divergence(c, c_log, np.zeros(3), np.zeros(3))
  for image, feature in zip(x[0], features[0], strict=True):
    z, z_log = np.split(network("latent", np.concatenate([feature, c])), 2)
    total -= numpy_divergence(z, z_log, *np.split(network("prior", c), 2))
    p = 1 / (1 + np.exp(-network("decoder", np.concatenate([z, c]))))
    total += (image * np.log(p) + (1 - image) * np.log(1 - p)).sum()
  np.testing.assert_allclose(found, [total / 2], rtol=1e-9)


def test_draws_have_their_mean_and_deviation_and_do_not_depend_on_other_tasks():
  mean, log_variance = tf.fill([2, 4000, 1], 3.0), tf.fill([2, 4000, 1], np.float32(np.log(4.0)))
  draws = drawn((mean, log_variance), tf.constant([1, 2]), "context").numpy()
  assert abs(draws.mean() - 3) < 0.15 and abs(draws.std() - 2) < 0.15
  alone = drawn((mean[1:], log_variance[1:]), tf.constant([1, 3]), "context")
  np.testing.assert_array_equal(alone[0], draws[1])


class Grey(clusters.Clusters):
  """Between 0 and 1, as pixels are."""

  def sample(self, seed, num_tasks):
    batch = super().sample(seed, num_tasks)
    return batch._replace(support_x=(batch.support_x + 1.2) / 2.4, query_x=(batch.query_x + 1.2) / 2.4)


def test_it_learns_resumes_and_exports_the_four_functions(tmp_path):
  """No label is compared in its training: it learns what makes the images of a class alike."""
  algorithm = Statistician(clusters.network(), statistic_size=8, latent_size=2)
  who = clusters.learner(algorithm, meta_lr=0.003)
  who.train_tasks = who.eval_tasks = Grey(shots=2, queries=2)
  state = clusters.trained(who, 400, tmp_path / "run")
  assert clusters.accuracy(who, state) > 0.6  # chance: 0.2
  clusters.check_artefact(who, state, tmp_path / "model")


def test_the_experiments_make_it_and_refuse_what_it_lacks():
  _, answers = clusters.from_command_line("omniglot", "statistician", statistic_size=4)
  assert answers.shape == (1, 3, 5) and np.isfinite(answers).all()
  for given in ({"num_updates": 2}, {"eval_updates": 3}, {"bn_mode": "running"}, {"context_size": 2}):
    with pytest.raises(UserError, match=f"^--{next(iter(given))}="):
      resolve("omniglot", learner="statistician", **given)
  with pytest.raises(UserError, match=r"^--learner=statistician: expected"):
    resolve("sinusoid", learner="statistician")
