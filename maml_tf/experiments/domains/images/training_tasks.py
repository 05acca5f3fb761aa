"""Training tasks from images without their labels."""

import functools
import hashlib

import numpy as np
import tensorflow as tf

from maml_tf import checksums
from maml_tf.datasets import locate
from maml_tf.datasets.image_bank import ImageBank
from maml_tf.experiments.domains.images.unlabelled import WITHOUT_LABELS
from maml_tf.unsupervised import embeddings, partitions, tasks
from maml_tf.unsupervised.records import is_array


class TrainingTasks:
  """What a config makes of the training images of a data set.

  Args:
    config: `Config`, with `tasks` other than "given".
    data_set: `datasets.records.DataSet`.

  Attributes:
    labelled: whether there are classes with labels for validation and test.
  """

  def __init__(self, config, data_set):
    self._config, self._data_set = config, data_set
    unsorted = data_set.without_labels(config.data_dir) if config.tasks in WITHOUT_LABELS else None
    self._unsorted, self.labelled = unsorted, unsorted is None or unsorted.labelled

  def fingerprint(self):
    """A text that tells the training data apart, where the data set's name does not; or None."""
    parts = [
      self._data_set.fingerprint(self._config.data_dir) if self._unsorted is None else self._unsorted.fingerprint()
    ]
    if self._config.tasks == "cactus" and is_array(self._config.embedding):
      parts.append(checksums.of_file(self._config.embedding))
    there = [part for part in parts if part is not None]
    return hashlib.sha256("\n".join(there).encode()).hexdigest()[:16] if there else None

  @functools.cached_property
  def images(self):
    """uint8 [M, H, W, C], one tensor for all distributions."""
    config = self._config
    return tf.constant(self._data_set.load_unlabelled(config.data_dir, config.split, config.image_size))

  def distribution(self):
    """The `TaskDistribution` of the meta-batches.

    Raises:
      UserError: the images do not give such tasks.
    """
    config = self._config
    ways, shots, queries = config.training_ways, config.training_shots, config.train_queries or config.training_shots
    sizes = {"ways": ways, "shots": shots, "queries": queries, "invert": self._data_set.invert}
    if config.tasks == "umtra":
      return tasks.UMTRA(self.images, **sizes, shift=config.shift)
    return tasks.over_clusters(self.images, self._labels, **sizes)

  def summary(self):
    """One line for the user."""
    config = self._config
    tail = "" if config.tasks == "umtra" else f"; {len(self._labels):,} partitions"
    return f"{config.datasource} train: {len(self.images):,} images without labels{tail}"

  def bank(self):
    """In place of classes for validation and test, where there are none: clusters of principal components."""
    config = self._config
    labels = self._clusters(config.clusters)
    least = config.update_batch_size + max(1, config.eval_queries)
    kept = [label for label in range(labels.max() + 1) if np.count_nonzero(labels == label) >= least]
    rows = [np.flatnonzero(labels == label) for label in kept]
    members = np.concatenate(rows) if rows else np.zeros(0, np.int64)
    offsets = np.cumsum([0, *map(len, rows)])
    return ImageBank(self.images.numpy()[members], tuple(f"cluster {label}" for label in kept), offsets)

  def embedded(self):
    """The embedding of the training images, `embeddings.Embedded`."""
    config = self._config
    return embeddings.embed(
      config.embedding, self.images.numpy(), self.cache, config.embedding_size, config.embedding_seed,
      config.embedding_width, config.embedding_epochs,
    )  # fmt: skip

  @property
  def cache(self):
    """Folder of the embeddings and partitions."""
    return locate.cache_folder(self._config.data_dir)

  @property
  def _smallest(self):
    return self._config.training_shots + (self._config.train_queries or self._config.training_shots)

  @functools.cached_property
  def _labels(self):
    """int32 [P, M]."""
    config = self._config
    if config.tasks == "random":
      return partitions.random_assignment(len(self.images), config.clusters, config.partitions, config.seed)
    if config.partitioning == "hyperplanes":
      values, margin = self.embedded().values, config.hyperplane_margin
      return partitions.hyperplanes(
        values, config.training_ways, config.partitions, self._smallest, config.seed, margin
      )
    return partitions.kmeans(
      self.embedded(), config.clusters, config.partitions, self._smallest, config.seed, self.cache
    )

  def _clusters(self, number):
    """int32 [M]: clusters of a principal-component embedding."""
    embedded = embeddings.embed("pca", self.images.numpy(), self.cache)
    return partitions.kmeans(embedded, number, 1, self._smallest, self._config.seed, self.cache)[0]
