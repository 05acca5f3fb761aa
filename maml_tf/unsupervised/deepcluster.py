"""DeepCluster, a small one: a network learns the clusters of its own features (Caron et al. 2018)."""

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from maml_tf.unsupervised import extras
from maml_tf.unsupervised.trained import SIDE, TrainedEmbedding, adam, descend, initialise

CLUSTERS = 100
SCALES = 3
RATE = 1e-3
EPSILON = 1e-5


class DeepCluster(TrainedEmbedding):
  """Before every epoch: k-means of the whitened features, and a new last layer. Clusters are drawn alike often."""

  def build(self):
    stack = [keras.Input((SIDE, SIDE, self.channels))]
    for scale in range(SCALES):
      stack += [
        layers.Conv2D(self.width * 2**scale, 3, strides=2, padding="same", use_bias=False),
        layers.BatchNormalization(),
        layers.ReLU(),
      ]
    encoder = keras.Sequential([*stack, layers.Flatten(), layers.Dense(self.size)])
    head = keras.Sequential([keras.Input((self.size,)), layers.ReLU(), layers.Dense(CLUSTERS)])
    return {"encoder": encoder, "head": head}

  def make_optimizers(self):
    return [adam(RATE, self.networks.values())]

  def labels_of(self, images, rng):
    features = self.encoded(images)
    whitened = _whitened(features, *_whitening(features))
    clusters = min(CLUSTERS, len(images))
    with extras.one_thread():
      kmeans = extras.scikit_learn("cluster").KMeans(clusters, n_init=1, random_state=int(rng.integers(2**31)))
      labels = kmeans.fit_predict(whitened)
    initialise(self.networks["head"], rng)
    return labels.astype(np.int32)

  def order(self, labels, rng):
    """As many images of each cluster as of any other, with repetitions."""
    clusters = rng.permutation(np.resize(np.unique(labels), len(labels)))
    members = {cluster: np.flatnonzero(labels == cluster) for cluster in np.unique(labels)}
    return np.array([rng.choice(members[cluster]) for cluster in clusters])

  def train_step(self, x, labels, seed):
    del seed
    encoder, head = self.networks.values()
    with tf.GradientTape() as tape:
      logits = head(encoder(x, training=True), training=True)
      loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits))
    descend(self.optimizers[0], tape, loss, (encoder, head))
    return loss

  def fit(self, images, folder):
    state = super().fit(images, folder)
    mean, whiten = _whitening(self.encoded(images))
    return {**state, "mean": mean, "whiten": whiten}

  def transform(self, state, images):
    """Whitened and of length 1, as Hsu et al. 2019 have it."""
    return _whitened(super().transform(state, images), state["mean"], state["whiten"])


def _whitening(features):
  mean = features.mean(axis=0)
  values, vectors = np.linalg.eigh(np.cov(features - mean, rowvar=False))
  return mean, (vectors / np.sqrt(np.maximum(values, 0) + EPSILON)).astype(np.float32)


def _whitened(features, mean, whiten):
  x = (features - mean) @ whiten
  return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), EPSILON)
