"""Partitions of an embedding into clusters (Hsu et al. 2019, section 3 and appendix; kylehkhsu/cactus-maml).

Labels are int32 [P, M]: the cluster of each of M images in each of P partitions; -1: in none.
"""

import math

import numpy as np

from maml_tf import progress
from maml_tf.errors import UserError
from maml_tf.unsupervised import extras, kept

SURVIVING = 0.75  # the share of the clusters that has to be large enough, else the partition is made anew
ATTEMPTS = 10
MOST_STEPS = 3000  # of Lloyd's algorithm
HYPERPLANES = 1000  # to choose from
PLANE_ATTEMPTS = 1000
OFFSET = 0.8  # the points that planes go through are within it, in every direction
IMAGES_PER_TASK = 10  # a zone has room for so many disjoint tasks


def kmeans(embedded, clusters, partitions, smallest, seed, cache_dir):
  """Partitions by k-means: the first of the embedding, each other of the embedding times random scales in [0, 1).

  A partition of which fewer than three quarters of the clusters have `smallest` images is made anew.

  Args:
    embedded: `Embedded`.
    clusters: k.
    partitions: P.
    smallest: images of the smallest cluster that counts: R = shots + queries of a task.
    seed: Python integer.
    cache_dir: where partitions are kept.

  Returns:
    Labels, int32 [P, M].

  Raises:
    UserError: fewer images than clusters, or too few clusters that are large enough, time and again.
  """
  values = embedded.values
  if clusters > len(values):
    raise UserError(f"clusters={clusters}: expected at most {len(values)}, the number of images")
  extras.scikit_learn("cluster")  # before minutes of work

  def make(folder):
    labels = []
    for number in progress.bar(range(partitions), desc="partitions", unit=" partitions"):
      found = kept.load(folder / f"{number}.npy")
      if found is None:
        found = _large_enough(values, number, clusters, smallest, seed, n_init=10 if partitions == 1 else 1)
        kept.save(folder / f"{number}.npy", found)
      labels.append(found)
    return {"labels": np.stack(labels)}

  made_from = ["kmeans", embedded.fingerprint, clusters, partitions, smallest, seed]
  return kept.arrays(cache_dir, "partitions", made_from, make)["labels"]


def _large_enough(values, number, clusters, smallest, seed, n_init):
  for attempt in range(ATTEMPTS):
    rng = np.random.default_rng([seed, number, attempt])
    scales = np.ones(values.shape[1]) if number == 0 else rng.uniform(size=values.shape[1])
    with extras.one_thread():
      found = extras.scikit_learn("cluster").KMeans(
        clusters, n_init=n_init, max_iter=MOST_STEPS, random_state=int(rng.integers(2**31)), algorithm="lloyd"
      )
      labels = found.fit_predict(values * scales.astype(np.float32))
    surviving = np.count_nonzero(np.bincount(labels, minlength=clusters) >= smallest)
    if surviving >= SURVIVING * clusters:
      return labels.astype(np.int32)
  raise UserError(
    f"clusters={clusters}: only {surviving} clusters have the {smallest} images of a task, in each of {ATTEMPTS} "
    f"attempts; expected {math.ceil(SURVIVING * clusters)}: fewer clusters are larger"
  )


def hyperplanes(values, ways, partitions, smallest, seed, margin=0.0):
  """Partitions by random hyperplanes, ceil(log2 ways) of them each; every zone has room for ten tasks.

  Args:
    values: float32 [M, D].
    ways: classes of a task.
    partitions: P.
    smallest: images of each class of a task.
    seed: Python integer.
    margin: images that are closer to a plane are in no zone.

  Returns:
    Labels, int32 [P, M].

  Raises:
    UserError: no choice of planes leaves zones that are large enough.
  """
  rng = np.random.default_rng([seed, ways, smallest])
  normals = rng.uniform(-1, 1, (HYPERPLANES, values.shape[1]))
  normals /= np.linalg.norm(normals, axis=1, keepdims=True)
  points = rng.uniform(-OFFSET, OFFSET, normals.shape)
  distances = values @ normals.T.astype(np.float32) - (normals * points).sum(axis=1).astype(np.float32)
  number = math.ceil(math.log2(ways))
  return np.stack([
    _zones(distances, number, IMAGES_PER_TASK * smallest, margin, rng)
    for _ in progress.bar(range(partitions), desc="partitions", unit=" partitions")
  ])  # fmt: skip


def _zones(distances, number, smallest, margin, rng):
  for _ in range(PLANE_ATTEMPTS):
    chosen = distances[:, rng.choice(distances.shape[1], number, replace=False)]
    zones = (chosen > 0) @ 2 ** np.arange(number)
    zones = np.where((np.abs(chosen) < margin).any(axis=1), -1, zones)
    if np.bincount(zones[zones >= 0], minlength=2**number).min() >= smallest:
      return zones.astype(np.int32)
  raise UserError(
    f"partitioning=hyperplanes: no {number} of {distances.shape[1]} planes leave {smallest} images in every zone, in "
    f"{PLANE_ATTEMPTS} attempts; fewer ways, shots or queries need fewer, and so does a smaller margin"
  )


def random_assignment(num_images, clusters, partitions, seed):
  """Partitions by chance, which know nothing of the images. Returns labels, int32 [P, M]."""
  return np.random.default_rng([seed, clusters]).integers(clusters, size=(partitions, num_images), dtype=np.int32)
