"""Training on tasks without labels: from settings to an artefact."""

import pathlib
import shutil

import numpy as np
import pytest
import small_runs
import tensorflow as tf
from PIL import Image

from maml_tf import randomness
from maml_tf.errors import UserError
from maml_tf.experiments import run
from maml_tf.experiments.config import check_paths, resolve, train_command, training_settings
from maml_tf.experiments.domains.images.experiment import ImageExperiment
from maml_tf.experiments.unlabelled_settings import SETTINGS as OWN

SETTINGS = dict(
  datasource="folder", tasks="cactus", image_size=8, num_classes=3, num_filters=4, max_pool=False, clusters=6,
  partitions=2, embedding_size=4, train_queries=2, eval_queries=2, eval_tasks=20, validation_tasks=20, log_every=1,
  validate_every=2, checkpoint_every=2, metatrain_iterations=4, log=False,
)  # fmt: skip


def write(folder, images):
  folder.mkdir(parents=True, exist_ok=True)
  for number, image in images:
    Image.fromarray(image).save(folder / f"{number}.png")


@pytest.fixture(scope="module")
def pictures():
  """96 noisy pictures of eight patterns: (number, uint8 [8, 8, 3])."""
  rng = np.random.default_rng(0)
  patterns = rng.integers(40, 216, (8, 8, 8, 3))
  noisy = patterns[np.arange(96) % 8] + rng.integers(-15, 16, (96, 8, 8, 3))
  return list(enumerate(np.clip(noisy, 0, 255).astype(np.uint8)))


@pytest.fixture(scope="module")
def unsorted(pictures, tmp_path_factory):
  """Two folders deep, as a camera leaves them."""
  folder = tmp_path_factory.mktemp("unsorted")
  write(folder, pictures[:20])
  write(folder / "2026" / "May", pictures[20:])
  return folder


def config(data, **given):
  return resolve(**(SETTINGS | {"data_dir": data} | given))


def go(data, logdir, **given):
  return run.run(config(data, logdir=logdir, **given), say=lambda line: None)


@pytest.fixture(scope="module")
def trained(unsorted, tmp_path_factory):
  logdir = tmp_path_factory.mktemp("unlabelled")
  return go(unsorted, logdir, learner="protonet"), logdir


def test_pictures_without_labels_become_an_artefact_that_adapts(trained, pictures):
  results, _ = trained
  module = tf.saved_model.load(str(pathlib.Path(results["directory"]) / "saved_model"))
  images = np.stack([image for _, image in pictures]).astype(np.float32) / 255
  support, query = images[:5], images[8:13]  # the same five patterns
  outputs = module.adapt_and_predict(support, np.arange(3).repeat(2)[:5].astype(np.int32), query, 0)
  assert outputs.shape == (5, 3) and np.isfinite(outputs).all()
  assert results["results"]["2"]["accuracy"]["mean"][0] > 0.6  # of patterns that pixels tell apart


def test_it_goes_on_bit_for_bit(trained, unsorted, tmp_path):
  results, _ = trained
  go(unsorted, tmp_path, learner="protonet", metatrain_iterations=2, export=False)
  (again,) = tmp_path.iterdir()
  assert again.name == pathlib.Path(results["directory"]).name
  go(unsorted, tmp_path, learner="protonet", export=False)
  whole = pathlib.Path(results["directory"])
  one, other = (small_runs.arrays(folder / "checkpoints" / "model4.npz") for folder in (whole, again))
  for name in set(one) - {"__metadata__"}:  # which has the number of iterations that was asked for
    assert one[name].tobytes() == other[name].tobytes(), name
  for name in ("metrics.csv", "validation.csv"):
    assert small_runs.rows(whole / name) == small_runs.rows(again / name)


@pytest.mark.parametrize("tasks", ["cactus", "umtra", "random"])
def test_labels_of_training_images_are_never_read(pictures, tmp_path, tasks):
  """Shuffled over the class folders, the images give the same tasks, bit for bit."""
  batches = []
  for name, order in (("sorted", range(96)), ("shuffled", np.random.default_rng(1).permutation(96))):
    for place, index in enumerate(order):
      write(tmp_path / name / "train" / str(place % 8), [pictures[index]])
    for part in ("val", "test"):
      write(tmp_path / name / part / "class", pictures[:2])
    experiment = ImageExperiment(config(tmp_path / name, **given_of(tasks)))
    batches.append(experiment._training_tasks().sample(randomness.make_seed(0), 3))
  for one, other in zip(batches[0][:4], batches[1][:4], strict=True):
    np.testing.assert_array_equal(one, other)


def given_of(tasks):
  """The settings above that do not apply to these tasks are not given."""
  drop = {"cactus": (), "random": ("embedding_size",), "umtra": ("embedding_size", "clusters", "partitions")}[tasks]
  return {"tasks": tasks} | dict.fromkeys(drop)


def test_fewer_classes_are_the_first_outputs(unsorted):
  """A network for six classes, evaluated on three, is the one without the last three outputs."""
  experiment = ImageExperiment(config(unsorted, train_num_classes=6, eval_updates=2))
  weights = experiment.algorithm(0.05).initial_weights(0)
  algorithm, fewer = experiment._for_evaluation(weights, 0.05)
  batch = experiment._episodes("val", 1, 2).sample(randomness.make_seed(0), 2)
  task = algorithm.adapt_final(fewer, batch.support_x, batch.support_y, 2)
  outputs = algorithm.predict(task, batch.query_x)
  assert outputs.shape[-1] == 3
  cut = [name for name, value in fewer.items() if value.shape != weights[name].shape]
  assert cut and all(np.array_equal(fewer[name], weights[name][..., :3]) for name in cut)


@pytest.mark.parametrize("datasource", ["omniglot", "miniimagenet", "folder", "mnist"])
def test_settings_as_published(datasource):
  maml, protonet = (resolve(datasource, tasks="cactus", learner=learner) for learner in ("maml", "protonet"))
  assert (maml.update_lr, maml.num_updates, maml.eval_updates, maml.meta_batch_size) == (0.05, 5, 50, 8)
  assert (maml.train_queries, maml.num_filters) == (5, 32)
  assert (protonet.train_queries, protonet.num_filters, protonet.meta_batch_size) == (15, 64, 1)
  ways = {"omniglot": 20, "mnist": 10}
  assert maml.training_ways == protonet.training_ways == ways.get(datasource, 5)
  assert train_command(maml) == f"python scripts/main.py --datasource={datasource} --tasks=cactus"


def test_older_runs_keep_their_hashes():
  own = {s.name for s in OWN}
  for given in (dict(datasource="omniglot"), dict(datasource="miniimagenet", learner="protonet"), {}):
    assert not own & set(training_settings(resolve(**given)))
  evaluated = resolve("omniglot", tasks="cactus", train=False, num_classes=20, update_batch_size=5,
                      train_update_batch_size=1)  # fmt: skip
  assert training_settings(evaluated) == training_settings(resolve("omniglot", tasks="cactus"))


@pytest.mark.parametrize(
  ("given", "said"),
  [
    (dict(tasks="nonsense"), "--tasks=nonsense: expected one of given, cactus, umtra, random, oracle"),
    (dict(tasks="cactus", clusters=4), "--clusters=4: expected at least the 20 classes of a training task"),
    (dict(tasks="cactus", embedding="words"), "--embedding=words: expected one of pixels"),
    (dict(tasks="umtra", embedding="pca"), "--embedding=pca: expected no such flag, or --tasks=cactus with it"),
    (dict(clusters=10), "--clusters=10: expected no such flag, or --tasks=cactus"),
    (dict(tasks="cactus", embedding="pixels", embedding_size=3), "--embedding_size=3: expected no such flag"),
    (dict(tasks="cactus", num_classes=30, train_num_classes=20), "--train_num_classes=20: expected -1, or at least"),
    (dict(tasks="cactus", embedding="absent.npy"), "--embedding=absent.npy: no such file"),
    (dict(datasource="sinusoid", tasks="cactus"), "--tasks=cactus: expected no such flag here"),
  ],
)
def test_bad_settings_are_refused(given, said, monkeypatch, tmp_path):
  monkeypatch.setattr("maml_tf.datasets.locate.check_omniglot", lambda path: None)
  monkeypatch.setattr("maml_tf.datasets.locate.check_folder", lambda *_: None)
  with pytest.raises(UserError, match=said):
    check_paths(resolve(**({"datasource": "omniglot", "data_dir": str(tmp_path)} | given)))


def test_arrays_that_do_not_fit_are_refused_before_a_run_begins(unsorted, tmp_path):
  np.save(tmp_path / "e.npy", np.zeros((95, 2)))
  with pytest.raises(UserError, match=r"^--embedding=.*e\.npy: 95 rows for 96 training images"):
    go(unsorted, tmp_path / "logs", embedding=str(tmp_path / "e.npy"), embedding_size=None)
  assert not (tmp_path / "logs").exists()


def test_a_folder_without_pictures_is_refused(tmp_path):
  for folder in (tmp_path / "absent", tmp_path):
    with pytest.raises(UserError, match=r"^--data_dir=.*(no such folder|fewer than two pictures)"):
      check_paths(config(folder))
  shutil.rmtree(tmp_path)
