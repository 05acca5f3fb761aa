"""What does not meta-learn: classifiers that learn each task anew, on the same embedding (Hsu et al. 2019, section 4).

A classifier is a function (tasks, seed) -> predicted classes, int [T, m]. Tasks are a `TaskBatch` of NumPy arrays: of
embeddings [T, n, D] and labels [T, n].
"""

import functools

import numpy as np
import tensorflow as tf

from maml_tf import progress, randomness
from maml_tf.tasks import TaskBatch
from maml_tf.unsupervised import extras

HIDDEN, DROPOUT, RATE = 128, 0.5, 1e-3  # of the network; units and dropout are not published
STEPS = 500
PATIENCE = 2  # published
BLOCK = 100  # tasks that are in memory at a time


def accuracies(distribution, classify, num_tasks, seed, label):
  """The accuracy on each of many tasks, float [num_tasks].

  Args:
    distribution: `TaskDistribution` of embeddings.
    classify: a classifier.
    num_tasks: how many.
    seed: int32 tensor [2].
    label: of the progress bar.
  """
  found = []
  for first in progress.bar(range(0, num_tasks, BLOCK), desc=label, unit_scale=BLOCK, unit=" tasks"):
    own, count = randomness.fold(seed, first), min(BLOCK, num_tasks - first)
    drawn = distribution.sample(own, count)
    batch = TaskBatch(*(field.numpy() for field in drawn[:4]))
    found.append((classify(batch, randomness.fold(own, "classifier")) == batch.query_y).mean(axis=1))
  return np.concatenate(found)


def _one_by_one(batch, make):
  """Predictions of a classifier of scikit-learn for each task."""
  with extras.one_thread():
    return np.stack([
      make().fit(x, y).predict(query)
      for x, y, query in zip(batch.support_x, batch.support_y, batch.query_x, strict=True)
    ])  # fmt: skip


def nearest_neighbour(batch, seed):
  del seed
  neighbours = extras.scikit_learn("neighbors")
  return _one_by_one(batch, lambda: neighbours.KNeighborsClassifier(1))


def logistic_regression(batch, seed):
  """L2 with C = 1. The minimum is one, so any solver finds it; the published one is saga."""
  del seed
  linear = extras.scikit_learn("linear_model")
  return _one_by_one(batch, lambda: linear.LogisticRegression(C=1.0, max_iter=1000))


def network(batch, seed, stops_on_queries=False):
  """One hidden layer with dropout, trained by Adam on the whole support set; all tasks at once.

  Args:
    batch: tasks.
    seed: int32 tensor [2].
    stops_on_queries: stop each task's training when the loss on its *query labels* has not fallen in two steps, as the
      published code does. That is a leak: it looks at the answers.
  """
  ways = int(batch.support_y.max()) + 1
  arrays = (batch.support_x, batch.support_y, batch.query_x, batch.query_y)
  return _train_networks(*map(tf.constant, arrays), seed, ways, stops_on_queries).numpy()


@functools.partial(tf.function, autograph=False)
def _train_networks(support_x, support_y, query_x, query_y, seed, ways, stops_on_queries):
  tasks, width = tf.shape(support_x)[0], support_x.shape[-1]
  shapes = [(width, HIDDEN), (1, HIDDEN), (HIDDEN, ways), (1, ways)]
  weights = [
    (2 * randomness.uniform(randomness.fold(seed, i), [tasks, *shape], 0.0, 1.0, tf.float32) - 1)
    * (6.0 / sum(shape)) ** 0.5 * (shape[0] > 1)
    for i, shape in enumerate(shapes)
  ]  # fmt: skip
  moments = [[tf.zeros_like(w) for w in weights] for _ in range(2)]

  def logits(weights, x, kept=1.0):
    hidden = tf.nn.relu(x @ weights[0] + weights[1]) * kept
    return hidden @ weights[2] + weights[3]

  def loss_of(weights, x, y, kept=1.0):
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(y, logits(weights, x, kept))
    return tf.reduce_mean(losses, axis=1)

  def step(number, weights, moments, state):
    drawn = randomness.uniform(
      randomness.fold(seed, "dropout", number), [*tf.unstack(tf.shape(support_x)[:2]), HIDDEN], 0.0, 1.0, tf.float32
    )
    kept = tf.cast(drawn >= DROPOUT, tf.float32) / (1 - DROPOUT)
    with tf.GradientTape() as tape:
      tape.watch(weights)
      loss = tf.reduce_sum(loss_of(weights, support_x, support_y, kept))
    gradients = tape.gradient(loss, weights)
    t = tf.cast(number + 1, tf.float32)
    first = [0.9 * m + 0.1 * g for m, g in zip(moments[0], gradients, strict=True)]
    second = [0.999 * v + 0.001 * g * g for v, g in zip(moments[1], gradients, strict=True)]
    scale = RATE * tf.sqrt(1 - 0.999**t) / (1 - 0.9**t)
    changes = [scale * m / (tf.sqrt(v) + 1e-7) for m, v in zip(first, second, strict=True)]
    goes_on = state[1] < PATIENCE if stops_on_queries else tf.ones([tasks], bool)
    moving = goes_on[:, tf.newaxis, tf.newaxis]
    weights = [tf.where(moving, w - c, w) for w, c in zip(weights, changes, strict=True)]
    if stops_on_queries:
      found = loss_of(weights, query_x, query_y)
      worse = tf.where(found < state[0], 0, state[1] + 1)
      state = tf.minimum(found, state[0]), tf.where(goes_on, worse, state[1])
    return number + 1, weights, [first, second], state

  state = tf.fill([tasks], float("inf")), tf.zeros([tasks], tf.int32)
  _, weights, _, _ = tf.while_loop(lambda *_: True, step, (0, weights, moments, state), maximum_iterations=STEPS)
  return tf.argmax(logits(weights, query_x), axis=-1, output_type=tf.int32)


class ClusterMatching:
  """k-means of the training images; a cluster takes the label that most support images in it have.

  A query has the label of its own cluster; where that has none, of the nearest that has one.

  Args:
    centroids: [k, D].
  """

  def __init__(self, centroids):
    self.centroids = centroids

  def __call__(self, batch, seed):
    del seed
    return np.stack([self._task(*arrays) for arrays in zip(*batch[:3], strict=True)])

  def _task(self, x, y, query):
    votes = np.zeros((len(self.centroids), y.max() + 1), int)
    np.add.at(votes, (self._distances(x).argmin(axis=1), y), 1)
    labelled = np.flatnonzero(votes.sum(axis=1))
    return votes.argmax(axis=1)[labelled[self._distances(query)[:, labelled].argmin(axis=1)]]

  def _distances(self, x):
    return (self.centroids**2).sum(axis=1) - 2 * x @ self.centroids.T  # but for |x|², the same for every centroid


def cluster_matching(values, labels):
  """The classifier for clusters of an embedding.

  Args:
    values: float32 [M, D].
    labels: int [M], the cluster of each.
  """
  return ClusterMatching(np.stack([values[labels == label].mean(axis=0) for label in np.unique(labels)]))


CLASSIFIERS = {
  "knn": nearest_neighbour,
  "linear": logistic_regression,
  "mlp": network,
  "mlp_stopped_on_queries": functools.partial(network, stops_on_queries=True),
}
