"""Classifiers that do not meta-learn."""

import numpy as np
import pytest
from PIL import Image

from maml_tf import randomness, tasks
from maml_tf.errors import UserError
from maml_tf.experiments import comparisons as experiment
from maml_tf.experiments.config import resolve
from maml_tf.tasks import TaskBatch
from maml_tf.unsupervised import comparisons

SEED = randomness.make_seed(0)


def batch(spread, num_tasks=20, ways=4, shots=3, queries=5, size=6):
  """Tasks of normal clusters around random centres."""
  rng = np.random.default_rng(0)
  centres = rng.normal(size=(num_tasks, ways, 1, size))
  x = (centres + spread * rng.normal(size=(num_tasks, ways, shots + queries, size))).astype(np.float32)
  y = [np.tile(np.repeat(np.arange(ways, dtype=np.int32), n), (num_tasks, 1)) for n in (shots, queries)]
  return TaskBatch(
    x[:, :, :shots].reshape(num_tasks, -1, size), y[0], x[:, :, shots:].reshape(num_tasks, -1, size), y[1]
  )


@pytest.fixture(scope="module")
def hard():
  return batch(1.0)


def test_the_nearest_neighbour_is_the_nearest(hard):
  found = comparisons.nearest_neighbour(hard, SEED)
  distances = np.linalg.norm(hard.query_x[:, :, None] - hard.support_x[:, None], axis=-1)
  np.testing.assert_array_equal(found, np.take_along_axis(hard.support_y, distances.argmin(-1), axis=1))


@pytest.mark.parametrize("name", ["linear", "mlp", "mlp_stopped_on_queries"])
def test_what_is_far_apart_is_told_apart(name):
  easy = batch(0.1)
  assert (comparisons.CLASSIFIERS[name](easy, SEED) == easy.query_y).mean() > 0.95


def test_logistic_regression_is_at_its_minimum(hard):
  """At the minimum of sum of losses + |W|^2 / 2, W is the support set's residuals times inputs; so is the decision."""
  found = comparisons.logistic_regression(hard, SEED)
  x, y = hard.support_x[0].astype(np.float64), np.eye(4)[hard.support_y[0]]
  weights, bias = np.zeros((6, 4)), np.zeros(4)
  for _ in range(4000):
    p = np.exp(x @ weights + bias)
    residuals = p / p.sum(1, keepdims=True) - y
    weights -= 0.02 * (x.T @ residuals + weights)
    bias -= 0.02 * residuals.sum(0)
  np.testing.assert_array_equal(found[0], (hard.query_x[0] @ weights + bias).argmax(1))


def test_only_the_classifier_that_says_so_looks_at_query_labels(hard):
  other = hard._replace(query_y=np.roll(hard.query_y, 5, axis=1))
  for name, looks in (("knn", False), ("linear", False), ("mlp", False), ("mlp_stopped_on_queries", True)):
    classify = comparisons.CLASSIFIERS[name]
    assert np.array_equal(classify(hard, SEED), classify(other, SEED)) != looks, name
  assert "mlp_stopped_on_queries" not in experiment.USUAL


def test_clusters_take_the_label_of_most_of_their_support_images():
  values = np.array([[0.0, 0], [0, 2], [10, 0], [10, 2], [20, 1], [20, 1]])
  classify = comparisons.cluster_matching(values, np.array([0, 0, 1, 1, 2, 2]))
  np.testing.assert_array_equal(classify.centroids, [[0, 1], [10, 1], [20, 1]])
  support = np.array([[[1.0, 1], [0, 0], [0, 3], [9, 1]]]), np.array([[1, 1, 0, 0]])
  query = np.array([[[2.0, 2], [11, 1], [19, 1]]])  # the last one's cluster has no label: the middle one's is nearest
  np.testing.assert_array_equal(classify(TaskBatch(*support, query, None), SEED), [[1, 0, 0]])


def test_accuracies_are_those_of_so_many_tasks():
  values = np.repeat(np.eye(6, dtype=np.float32), 8, axis=0)
  distribution = tasks.from_arrays(values, np.repeat(np.arange(6), 8), ways=3, shots=1, queries=2)
  found = comparisons.accuracies(distribution, comparisons.nearest_neighbour, 130, SEED, "tasks")
  assert found.shape == (130,) and (found == 1).all()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  root, rng = tmp_path_factory.mktemp("labelled"), np.random.default_rng(0)
  for part in ("train", "val", "test"):
    for c in range(6):
      (root / part / f"{part}{c}").mkdir(parents=True)
      pattern = rng.integers(30, 220, (4, 4, 3))
      for i in range(8):
        image = pattern + rng.integers(-10, 11, (4, 4, 3))
        Image.fromarray(image.astype(np.uint8)).save(root / part / f"{part}{c}" / f"{i}.png")
  return root


def config(folder, **given):
  own = dict(image_size=4, clusters=6, eval_tasks=20, eval_queries=2, test_set=True)
  return resolve("folder", tasks="cactus", data_dir=str(folder), **(own | given))


def test_a_comparison_is_a_results_file(folder):
  said = []
  content = experiment.compare(config(folder, embedding_size=5), ("knn", "cluster_matching"), "a command", said.append)
  assert (content["comparison"], content["tasks"], content["split"]) == ("pca5", 20, "test")
  assert list(content["results"]) == ["knn", "cluster_matching"] and len(said) == 4
  assert content["results"]["knn"]["5-way 5-shot"]["mean"] == 1.0


def test_arrays_need_rows_for_the_test_images(folder, tmp_path):
  np.savez(tmp_path / "e.npz", train=np.zeros((48, 2)))
  given = dict(embedding=str(tmp_path / "e.npz"))
  with pytest.raises(UserError, match="it has no array named test"):
    experiment.compare(config(folder, **given), ("knn",))
  np.savez(tmp_path / "e.npz", train=np.zeros((48, 2)), test=np.zeros((5, 2)))
  with pytest.raises(UserError, match="test has 5 rows for 48 images"):
    experiment.compare(config(folder, **given), ("knn",))
  with pytest.raises(UserError, match=r"^classifiers=svm: expected some of knn, linear"):
    experiment.compare(config(folder), ("svm",))
