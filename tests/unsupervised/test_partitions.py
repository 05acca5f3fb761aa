"""Partitions of embeddings into clusters."""

import numpy as np
import pytest

from maml_tf.errors import UserError
from maml_tf.unsupervised import kept, partitions
from maml_tf.unsupervised.embeddings import Embedded

SMALLEST = 6


def embedded(values):
  values = np.asarray(values, np.float32)
  return Embedded(values, kept.fingerprint(values), None)


@pytest.fixture(scope="module")
def blobs():
  """Four groups of 20, far from each other in both directions, in random order: (embedding, group)."""
  rng = np.random.default_rng(0)
  group = rng.permutation(np.repeat(np.arange(4), 20))
  centres = np.array([[0, 0], [100, 10], [50, 90], [10, 60]])
  return embedded(centres[group] + rng.normal(size=(80, 2))), group


def purity(labels, classes):
  """The share of the images that are of the class that most of their cluster are of."""
  counts = np.zeros((labels.max() + 1, classes.max() + 1), int)
  np.add.at(counts, (labels, classes), 1)
  return counts.max(axis=1).sum() / len(labels)


def same_pairs(labels):
  return labels[:, None] == labels[None, :]


def test_clusters_are_the_groups_that_are_there(blobs, tmp_path):
  values, group = blobs
  labels = partitions.kmeans(values, 4, 3, SMALLEST, seed=1, cache_dir=tmp_path)
  assert labels.shape == (3, 80) and labels.dtype == np.int32
  np.testing.assert_array_equal(same_pairs(labels[0]), same_pairs(group))  # the first is of the embedding itself


def test_random_scales_change_what_is_alike(tmp_path):
  """Uniform points: which ones are together hangs on the scales."""
  values = embedded(np.random.default_rng(0).uniform(size=(120, 6)))
  labels = partitions.kmeans(values, 5, 3, SMALLEST, seed=0, cache_dir=tmp_path)
  assert len({same_pairs(row).tobytes() for row in labels}) == 3


def test_partitions_are_kept_and_go_on_after_an_interruption(blobs, tmp_path, monkeypatch):
  values, _ = blobs
  whole = partitions.kmeans(values, 4, 4, SMALLEST, seed=2, cache_dir=tmp_path / "whole")
  make, made = partitions._large_enough, []

  def interrupted(*args, **kwargs):
    made.append(args[1])
    if len(made) == 3:
      raise KeyboardInterrupt
    return make(*args, **kwargs)

  monkeypatch.setattr(partitions, "_large_enough", interrupted)
  with pytest.raises(KeyboardInterrupt):
    partitions.kmeans(values, 4, 4, SMALLEST, seed=2, cache_dir=tmp_path / "cut")
  np.testing.assert_array_equal(partitions.kmeans(values, 4, 4, SMALLEST, seed=2, cache_dir=tmp_path / "cut"), whole)
  assert made == [0, 1, 2, 2, 3]  # the first two were not made again
  np.testing.assert_array_equal(partitions.kmeans(values, 4, 4, SMALLEST, seed=2, cache_dir=tmp_path / "cut"), whole)
  assert len(made) == 5


def test_a_damaged_partition_is_made_anew(blobs, tmp_path, capsys):
  values, _ = blobs
  labels = partitions.kmeans(values, 4, 1, SMALLEST, seed=0, cache_dir=tmp_path)
  (file,) = tmp_path.glob("partitions-*/labels.npy")
  file.write_bytes(file.read_bytes()[:-4] + b"\1\2\3\4")
  np.testing.assert_array_equal(partitions.kmeans(values, 4, 1, SMALLEST, seed=0, cache_dir=tmp_path), labels)
  assert "labels.npy is not what was written" in capsys.readouterr().err


@pytest.mark.parametrize(
  ("clusters", "said"), [(81, "expected at most 80"), (40, "only .* clusters have the 6 images")]
)
def test_too_many_clusters_are_refused(blobs, tmp_path, monkeypatch, clusters, said):
  monkeypatch.setattr(partitions, "ATTEMPTS", 2)
  with pytest.raises(UserError, match=rf"^clusters={clusters}: .*{said}"):
    partitions.kmeans(blobs[0], clusters, 1, SMALLEST, seed=0, cache_dir=tmp_path)


def test_a_partition_with_small_clusters_is_made_again(tmp_path, monkeypatch):
  """The published rule: at least three quarters of the clusters have to be large enough."""
  tried = []

  class KMeans:
    def __init__(self, clusters, **settings):
      tried.append(settings["random_state"])

    def fit_predict(self, values):
      return np.arange(40) % 4 if len(tried) > 1 else np.repeat([0, 1, 2, 3], [17, 17, 5, 1])

  monkeypatch.setattr(partitions.extras, "scikit_learn", lambda module: type("", (), {"KMeans": KMeans}))
  labels = partitions.kmeans(embedded(np.zeros((40, 2))), 4, 1, SMALLEST, seed=0, cache_dir=tmp_path)
  assert len(set(tried)) == 2
  np.testing.assert_array_equal(labels[0], np.arange(40) % 4)


def test_random_assignments_know_nothing_of_the_classes():
  classes = np.repeat(np.arange(50), 100)
  labels = partitions.random_assignment(len(classes), 10, 20, seed=0)
  alike = same_pairs(classes) & ~np.eye(len(classes), dtype=bool)
  together = np.mean([same_pairs(row)[alike].mean() for row in labels])
  assert together == pytest.approx(0.1, abs=0.01)  # of two images of a class, by chance one in ten pairs
  assert np.mean([purity(row, classes) for row in labels]) < 0.05
  assert purity(classes, classes) == 1


def test_hyperplanes_cut_zones_with_room_for_ten_tasks():
  values = np.random.default_rng(0).normal(size=(3000, 4)).astype(np.float32)
  labels = partitions.hyperplanes(values, ways=5, partitions=4, smallest=3, seed=0)
  for row in labels:
    assert np.bincount(row, minlength=8).min() >= 30
  wide = partitions.hyperplanes(values, ways=2, partitions=1, smallest=3, seed=0, margin=0.5)[0]
  apart = np.linalg.norm(values[wide == 0][:, None] - values[wide == 1][None], axis=-1)
  assert (wide == -1).any() and apart.min() >= 1.0  # on two sides of a strip
  with pytest.raises(UserError, match=r"^partitioning=hyperplanes: no 3 of"):
    partitions.hyperplanes(values[:100], ways=5, partitions=1, smallest=3, seed=0)
