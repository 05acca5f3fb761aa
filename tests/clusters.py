"""Tasks that are learned in seconds, five clusters each, and what every learner without gradient steps has to do."""

import numpy as np
import small_runs
import tensorflow as tf

from maml_tf import export, models, randomness, tasks
from maml_tf.experiments.config import resolve
from maml_tf.training import optimizers
from maml_tf.training.learner import SupervisedLearner

WAYS, DIM = 5, 4


class Clusters(tasks.TaskDistribution):
  """Five classes, each a cluster around a centre of its own, seldom near another."""

  compiles = False

  def __init__(self, shots=1, queries=1, noise=0.2):
    self.shots, self.queries, self.noise = shots, queries, noise

  def sample(self, seed, num_tasks):
    centres = self._uniform(seed, "centres", [num_tasks, WAYS, 1, DIM])

    def around(stream, count):
      points = centres + self.noise * self._uniform(seed, stream, [num_tasks, WAYS, count, DIM])
      labels = tf.tile(tf.repeat(tf.range(WAYS), count)[tf.newaxis], [num_tasks, 1])
      return tf.reshape(points, [num_tasks, WAYS * count, DIM]), labels

    return tasks.TaskBatch(*around("support", self.shots), *around("query", self.queries))

  def _uniform(self, seed, stream, shape):
    return randomness.uniform(randomness.fold(seed, stream), shape, -1.0, 1.0, tf.float32)


def network(hidden=(16,), stddev=0.5, norm=None):
  return models.MLP(WAYS, hidden, (DIM,), norm=norm, stddev=stddev, head=False)


class Bare(models.MLP):
  """Its features are its inputs."""

  def forward(self, weights, x, normalise):
    return x + 0.0 * weights["dense_0/bias"][0]


def bare():
  return Bare(WAYS, (1,), (DIM,), head=False)


def sampled(dtype=tf.float64, num_tasks=2):
  batch = Clusters(shots=1, queries=2).sample(tf.constant([3, 1]), num_tasks)
  return batch._replace(support_x=tf.cast(batch.support_x, dtype), query_x=tf.cast(batch.query_x, dtype))


def learner(algorithm, meta_lr=0.01, meta_batch_size=16, **sizes):
  return SupervisedLearner(
    algorithm, Clusters(**sizes), meta_batch_size=meta_batch_size, optimizer=optimizers.Adam(meta_lr), eval_updates=3
  )


def trained(who, iterations, folder):
  """The state after so many meta-iterations and a validation, as its checkpoint gives it back."""
  every = dict(log_every=iterations, validate_every=iterations, checkpoint_every=iterations, validation_tasks=20)
  schedule = small_runs.Schedule(iterations, **every)
  state, _ = small_runs.trainer(folder, schedule, who=who).train()
  again, info = small_runs.trainer(folder, schedule, who=who).train()
  assert info["resumed_from"] == iterations
  tf.nest.map_structure(np.testing.assert_array_equal, again, state)
  return again


def from_command_line(datasource, method, **given):
  """The algorithm as the experiments make it, and what it answers to three queries of a task of zeros."""
  small = {"num_filters": 2} if datasource == "omniglot" else {}
  config = resolve(datasource, learner=method, **small | given)
  experiment = config.domain.load()(config)
  algorithm, specs = experiment.algorithm(config.update_lr), experiment.example_specs()
  x, labels = np.random.default_rng(0).random([1, 5, *specs.support_x.shape[1:]], np.float32), tf.range(5)[tf.newaxis]
  y = labels if datasource == "omniglot" else tf.cast(labels, tf.float32)[..., tf.newaxis]
  task = algorithm.adapt_final(algorithm.initial_weights(0), x, y, 1, randomness.make_seed(0))
  return algorithm, algorithm.predict(task, x[:, :3])


def accuracy(who, state, tasks=100):
  """After the last step, in a share of the queries."""
  return float(np.mean(who.evaluate(state, tf.constant([5, 0]), tasks)["accuracy"][-1]))


def check_artefact(who, state, folder):
  """The exported four functions give what the algorithm gives, all queries at once and one by one."""
  export.save(who, state, folder)
  module = tf.saved_model.load(str(folder))
  batch = who.train_tasks.sample(tf.constant([5, 0]), 1)
  x, y, query = batch.support_x[0], batch.support_y[0], batch.query_x[0]
  algorithm = who.algorithm
  task = algorithm.adapt_final(state["weights"], batch.support_x, batch.support_y, 3, randomness.make_seed(0))
  expected = algorithm.predict(task, batch.query_x)[0]
  np.testing.assert_allclose(module.adapt_and_predict(x, y, query, 3), expected, rtol=1e-3, atol=1e-4)
  adapted = module.adapt(x, y, 3)
  alone = [module.predict(adapted, query[i : i + 1])[0] for i in range(2)]
  np.testing.assert_allclose(alone, expected[:2], rtol=1e-3, atol=1e-4)
  assert set(module.initialization()) == set(state["weights"])
