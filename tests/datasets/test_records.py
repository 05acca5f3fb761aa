"""The records of the data sets: what they say, refuse and load."""

import gzip
import hashlib
import importlib
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from real_data import REAL, needs_real_data

from maml_tf.datasets import locate, mnist
from maml_tf.datasets.records import DATASETS
from maml_tf.errors import UserError


def test_shapes_and_augmentation_are_the_papers():
  assert {name: (d.image_shape, d.rotations, d.invert, d.class_splits) for name, d in DATASETS.items()} == {
    "omniglot": ((28, 28, 1), True, True, ("published", "alphabets")),
    "miniimagenet": ((84, 84, 3), False, False, ("published",)),
    "folder": ((84, 84, 3), False, False, ("published",)),
    "mnist": ((28, 28, 1), False, False, ("published",)),
    "cifar100": ((32, 32, 3), False, False, ("published",)),
  }
  assert DATASETS["omniglot"].shape(14) == (14, 14, 1) and DATASETS["folder"].shape() == (84, 84, 3)


@pytest.mark.parametrize("name", DATASETS)
def test_what_is_not_there_is_refused_by_name(name, tmp_path, monkeypatch):
  monkeypatch.setattr(locate, "reachable", lambda url: False)
  monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
  data_set = DATASETS[name]
  for data_dir, message in (
    (tmp_path / "none", "no such folder"), ("", "expected the name of a folder"), ("~/data", "the shell left the ~"),
  ):  # fmt: skip
    for refused in (lambda: data_set.check(data_dir), lambda: data_set.load(data_dir, "train")):  # noqa: B023
      with pytest.raises(UserError, match=rf"^data_dir={data_dir}: {message}"):
        refused()
  with pytest.raises(UserError, match="image_size=0: expected a whole number of pixels"):
    data_set.load(tmp_path, "train", image_size=0)
  with pytest.raises(UserError, match=f"class_split=mine: {name} has published"):
    data_set.load(tmp_path, "train", class_split="mine")
  with pytest.raises(ValueError, match="part='all': expected one of train, val, test"):
    data_set.load(tmp_path, "all")


@pytest.mark.parametrize("name", DATASETS)
def test_loaders_are_there(name):
  module, function = DATASETS[name].loader.split(":")
  assert callable(getattr(importlib.import_module(module), function))


def test_records_import_neither_tensorflow_nor_numpy():
  code = (
    "import sys, maml_tf.datasets.records\nprint([m for m in ('tensorflow', 'numpy', 'keras') if m in sys.modules])"
  )
  done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
  assert done.stdout == "[]\n"


def make_folder(root):
  for number, split in enumerate(locate.SPLITS):
    for name in ("ant", "bee"):
      folder = root / split / f"{name}_{split}"
      folder.mkdir(parents=True)
      for i in range(2):
        Image.new("RGB", (12, 10), (50 * number, 10 * i, 7)).save(folder / f"{i}.png")
  return root


def test_a_folder_is_loaded_part_by_part_at_any_size(tmp_path):
  folder = make_folder(tmp_path / "insects")
  for number, part in enumerate(locate.SPLITS):
    bank = DATASETS["folder"].load(folder, part, image_size=6)
    assert bank.images.shape == (4, 6, 6, 3) and bank.names == (f"ant_{part}", f"bee_{part}")
    assert set(bank.images[..., 0].flat) == {50 * number}
  assert DATASETS["folder"].load(folder, "val").images.shape == (4, 84, 84, 3)
  (folder / "test" / "ant_train").mkdir()
  Image.new("RGB", (4, 4)).save(folder / "test" / "ant_train" / "0.png")
  with pytest.raises(UserError, match=r"train/: class ant_train is in .*test/ too"):
    DATASETS["folder"].load(folder, "train")


def test_only_folders_have_a_fingerprint(tmp_path):
  assert {name for name, d in DATASETS.items() if d.fingerprint(make_folder(tmp_path / name))} == {"folder"}


def original_hash(folder):
  """How the hash in the names of earlier runs was made, of every file."""
  files = (path for inside in folder.iterdir() for path in inside.iterdir())
  lines = sorted(f"{path.parent.name}/{path.name} {path.stat().st_size}" for path in files)
  return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def test_the_fingerprint_of_a_folder_is_of_its_images_alone(tmp_path):
  folder, data_set = make_folder(tmp_path / "insects"), DATASETS["folder"]
  before = original_hash(folder / "train")
  assert data_set.fingerprint(folder) == before
  for junk in (".DS_Store", "Thumbs.db", "._0.png", "notes.txt", "photo.heic"):
    (folder / "train" / "ant_train" / junk).write_bytes(b"junk")
  (folder / "train" / ".hidden").mkdir()
  assert data_set.fingerprint(folder) == before != original_hash(folder / "train")
  Image.new("RGB", (3, 3)).save(folder / "train" / "ant_train" / "2.png")
  assert data_set.fingerprint(folder) != before


def test_what_is_passed_over_is_said(tmp_path):
  folder = make_folder(tmp_path / "insects")
  for name in (".DS_Store", "Thumbs.db", "desktop.ini", "one.heic", "two.HEIC", "three.heic", "README"):
    (folder / "val" / "ant_val" / name).write_bytes(b"junk")
  train, val = (DATASETS["folder"].load(folder, part, image_size=4) for part in ("train", "val"))
  assert train.summary() == "2 classes, 4 images"
  assert val.summary() == "2 classes, 4 images; passed over 4 files of other kinds: 3 .heic, 1 README"


# MNIST ----------------------------------------------------------------------------------------------------------------


def write_mnist(data_dir, monkeypatch, **changed):
  """A file in Keras' layout with few images: 40 and 20, of which 10 are for validation. Returns its arrays."""
  for name, value in (("NUM_TRAIN", 40), ("NUM_TEST", 20), ("NUM_VALIDATION", 10)):
    monkeypatch.setattr(mnist, name, value)
  rng = np.random.default_rng(0)
  arrays = {
    "x_train": rng.integers(0, 256, [40, 28, 28]).astype(np.uint8),
    "y_train": np.tile(rng.permutation(10), 4).astype(np.uint8),
    "x_test": rng.integers(0, 256, [20, 28, 28]).astype(np.uint8),
    "y_test": np.tile(rng.permutation(10), 2).astype(np.uint8),
  } | changed
  (data_dir / "mnist").mkdir(parents=True, exist_ok=True)
  np.savez(data_dir / "mnist" / "mnist.npz", **arrays)
  return arrays


def test_mnist_has_ten_digits_from_disjoint_images(tmp_path, monkeypatch):
  arrays = write_mnist(tmp_path, monkeypatch)
  rows = {"train": ("train", range(30)), "val": ("train", range(30, 40)), "test": ("test", range(20))}
  for part, (name, chosen) in rows.items():
    bank = DATASETS["mnist"].load(tmp_path, part)
    assert bank.names == tuple("0123456789") and bank.images.shape == (len(chosen), 28, 28, 1)
    for digit in range(10):
      expected = [arrays[f"x_{name}"][i] for i in chosen if arrays[f"y_{name}"][i] == digit]
      np.testing.assert_array_equal(bank.images[bank.offsets[digit] : bank.offsets[digit + 1], ..., 0], expected)
  smaller = DATASETS["mnist"].load(tmp_path, "test", image_size=14)
  first = arrays["x_test"][np.flatnonzero(arrays["y_test"] == 0)[0]]
  expected = np.asarray(Image.fromarray(first).resize((14, 14), Image.Resampling.LANCZOS))
  np.testing.assert_array_equal(smaller.images[0, ..., 0], expected)


@pytest.mark.parametrize(("changed", "message"), [
  ({"y_train": np.zeros(40, np.uint8)}, "y_train holds other labels than the digits 0 to 9"),
  ({"x_train": np.zeros([39, 28, 28], np.uint8)}, r"x_train is uint8 \[39, 28, 28\].*MNIST has uint8 \[40, 28, 28\]"),
  ({"x_train": np.zeros([40, 28, 28], np.float32)}, r"x_train is float32"),
])  # fmt: skip
def test_another_file_than_mnists_is_named(tmp_path, monkeypatch, changed, message):
  write_mnist(tmp_path, monkeypatch, **changed)
  with pytest.raises(UserError, match=rf"mnist\.npz: {message}"):
    DATASETS["mnist"].load(tmp_path, "train")


def test_a_damaged_file_of_mnist_is_named(tmp_path, monkeypatch):
  write_mnist(tmp_path, monkeypatch)
  path = tmp_path / "mnist" / "mnist.npz"
  content = bytearray(path.read_bytes())
  content[1000] ^= 1
  for damaged in (bytes(content), bytes(content[:5000]), b"", gzip.compress(b"x")):
    path.write_bytes(damaged)
    with pytest.raises(UserError, match=r"mnist\.npz: cannot be read as Keras' file of MNIST \(.*fetch it anew"):
      DATASETS["mnist"].load(tmp_path, "train")


def test_mnist_that_keras_has_downloaded_is_found(tmp_path, monkeypatch):
  write_mnist(tmp_path / "keras", monkeypatch)
  (tmp_path / "keras" / "mnist").rename(tmp_path / "keras" / "datasets")
  monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
  assert DATASETS["mnist"].load(tmp_path / "none", "val").images.shape == (10, 28, 28, 1)


@needs_real_data
def test_real_mnist():
  counts = {part: np.diff(DATASETS["mnist"].load(REAL, part).offsets) for part in locate.SPLITS}
  assert {part: int(count.sum()) for part, count in counts.items()} == {"train": 55_000, "val": 5_000, "test": 10_000}
  # LeCun's own counts of the ten digits.
  assert (counts["train"] + counts["val"]).tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
  assert counts["test"].tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
  assert pathlib.Path(REAL, "mnist", "mnist.npz").is_file()


@needs_real_data
@pytest.mark.parametrize(("class_split", "classes"), [("published", (1100, 100, 423)), ("alphabets", (964, 124, 535))])
def test_real_omniglot_in_both_splits(class_split, classes):
  for part, expected in zip(locate.SPLITS, classes, strict=True):
    assert len(DATASETS["omniglot"].load(REAL, part, class_split).names) == expected
