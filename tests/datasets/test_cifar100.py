"""CIFAR-100 from an archive in its own layout with small, known images; and classes that arrive five at a time."""

import io
import os
import pickle
import tarfile

import numpy as np
import pytest

from maml_tf.datasets import cifar100, image_sequence, locate
from maml_tf.datasets.records import DATASETS
from maml_tf.errors import UserError

TRAIN, TEST = 12, 20  # of each class


def contents():
  """Red is the class, green the number of the image in its class; the test's begin at 100."""
  found = {"meta": {b"fine_label_names": [f"class_{c}".encode() for c in range(100)]}}
  for name, count, first in (("train", TRAIN, 0), ("test", TEST, 100)):
    labels = np.tile(np.arange(100), count)
    data = np.zeros([100 * count, 3, 1024], np.uint8)
    data[:, 0] = labels[:, np.newaxis]
    data[:, 1] = first + np.repeat(np.arange(count), 100)[:, np.newaxis]
    found[name] = {b"data": data.reshape(-1, 3072), b"fine_labels": labels.tolist()}
  return found


def write_archive(path, found):
  with tarfile.open(path, "w:gz", compresslevel=1) as archive:
    for name, content in found.items():
      data = content if isinstance(content, bytes) else pickle.dumps(content, protocol=2)
      info = tarfile.TarInfo(f"cifar-100-python/{name}")
      info.size = len(data)
      archive.addfile(info, io.BytesIO(data))


@pytest.fixture
def data_dir(tmp_path, monkeypatch):
  monkeypatch.setattr(cifar100, "TRAIN_PER_CLASS", TRAIN)
  monkeypatch.setattr(cifar100, "VALIDATION_PER_CLASS", 2)
  monkeypatch.setattr(cifar100, "TEST_PER_CLASS", TEST)
  monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
  monkeypatch.setattr(locate, "reachable", lambda url: False)
  write_archive(tmp_path / "cifar-100-python.tar.gz", contents())
  return tmp_path


def test_parts_have_all_classes_and_no_image_twice(data_dir):
  for part, numbers in (("train", range(10)), ("val", range(10, 12)), ("test", range(100, 120))):
    bank = DATASETS["cifar100"].load(data_dir, part)
    assert bank.names == tuple(f"class_{c}" for c in range(100)) and set(bank.sizes) == {len(numbers)}
    reds, greens = (bank.images[:, 5, 7, channel].reshape(100, -1) for channel in (0, 1))
    np.testing.assert_array_equal(reds, np.broadcast_to(np.arange(100)[:, np.newaxis], reds.shape))
    np.testing.assert_array_equal(greens, np.broadcast_to(np.array(numbers), greens.shape))


def test_a_pickle_may_not_run_anything(data_dir):
  class Evil:
    def __reduce__(self):
      return os.mkdir, (str(data_dir / "ran"),)

  write_archive(data_dir / "cifar-100-python.tar.gz", contents() | {"train": {b"data": Evil()}})
  with pytest.raises(UserError, match=r"cannot be read as CIFAR-100's archive \(it asks for posix.mkdir\); fetch"):
    DATASETS["cifar100"].load(data_dir, "train")
  assert not (data_dir / "ran").exists()


@pytest.mark.parametrize(("change", "says"), [
  ({"train": b"no pickle"}, "cannot be read as CIFAR-100's archive"),
  ({"train": {b"data": np.zeros([5, 3072], np.uint8), b"fine_labels": [0] * 5}}, "holds uint8 [5, 3072] and [5]"),
  ({"train": {}}, "cifar-100-python/train has no images and labels (KeyError(b'data'))"),
  ({"meta": {}}, "cifar-100-python/meta names 0 classes, expected 100"),
])  # fmt: skip
def test_a_damaged_archive_is_refused_in_one_line(data_dir, change, says):
  write_archive(data_dir / "cifar-100-python.tar.gz", contents() | change)
  with pytest.raises(UserError) as error:
    DATASETS["cifar100"].load(data_dir, "train")
  assert says in str(error.value) and "\n" not in str(error.value)


def test_what_keras_has_unpacked_is_found(data_dir):
  with tarfile.open(data_dir / "cifar-100-python.tar.gz") as archive:
    archive.extractall(data_dir / "keras" / "datasets" / "cifar-100-python-target", filter="data")
  (data_dir / "cifar-100-python.tar.gz").unlink()
  assert DATASETS["cifar100"].load(data_dir, "val").images.shape == (200, 32, 32, 3)


def test_five_new_classes_arrive_with_each_task(data_dir):
  images, labels, names = image_sequence.load(data_dir, "cifar100", seed=3, examples=50)
  assert images.shape == (20, 150, 32, 32, 3) and labels.shape == (150,)
  assert np.bincount(labels[:50]).tolist() == [10] * 5 and np.bincount(labels[50:]).tolist() == [20] * 5
  classes = images[..., 0, 0, 0]
  of_tasks = [[int(name.removeprefix("class_")) for name in task.split(", ")] for task in names]
  assert sorted(np.ravel(of_tasks)) == list(range(100))
  np.testing.assert_array_equal(classes, np.array(of_tasks)[:, labels])
  arriving, held_out = images[:, :50, 0, 0, 1], images[:, 50:, 0, 0, 1]
  assert held_out.min() >= 100 and arriving.max() < 12  # the held-out ones are the data set's own test images
  assert all(
    len(set(zip(task, green, strict=True))) == 50 for task, green in zip(classes[:, :50], arriving, strict=True)
  )
  again, other = (image_sequence.load(data_dir, "cifar100", seed, 50)[2] for seed in (3, 4))
  assert again == names != other
  with pytest.raises(UserError, match="examples_per_task=100: expected at most 60"):
    image_sequence.load(data_dir, "cifar100", 0, 100)
