"""Data sets: from files to a bank, through the cache, with the mistakes of real folders."""

import hashlib
import io
import json
import pathlib

import numpy as np
import pytest
from PIL import Image
from real_data import REAL, needs_real_data

from maml_tf.datasets import image_bank, image_folder, locate, miniimagenet, omniglot
from maml_tf.errors import UserError

DATA = pathlib.Path(__file__).parents[1] / "data"


def write_image(path, size=(12, 10), mode="RGB", seed=0):
  path.parent.mkdir(parents=True, exist_ok=True)
  shape = (size[1], size[0], 3) if mode == "RGB" else (size[1], size[0])
  Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8), mode=mode).save(path)


def make_folder(root, classes=("ant", "bee"), per_class=3):
  for split_number, split in enumerate(locate.SPLITS):
    for c, name in enumerate(classes):
      for i in range(per_class):
        write_image(root / split / f"{name}_{split}" / f"{i}.png", seed=100 * split_number + 10 * c + i)
  return root


def test_folder_becomes_a_bank_resized_with_lanczos(tmp_path):
  folder = make_folder(tmp_path / "insects")
  bank = image_folder.load(folder, tmp_path / "cache", "train", (6, 5), 3)
  assert bank.images.shape == (6, 6, 5, 3) and bank.names == ("ant_train", "bee_train")
  expected = []
  for i in range(3):
    with Image.open(folder / "train" / "bee_train" / f"{i}.png") as image:
      expected.append(np.asarray(image.resize((5, 6), Image.Resampling.LANCZOS)))
  got = bank.images[bank.offsets[1] : bank.offsets[2]]
  assert sorted(e.tobytes() for e in expected) == [g.tobytes() for g in got]
  grey = image_folder.load(folder, tmp_path / "cache", "train", (6, 5), 1)
  assert grey.images.shape == (6, 6, 5, 1)


def test_cache_is_used_until_a_file_changes(tmp_path, monkeypatch):
  folder, cache = make_folder(tmp_path / "insects"), tmp_path / "cache"
  first = image_folder.load(folder, cache, "train", (6, 6), 3)
  calls = []
  original = image_bank.decode
  monkeypatch.setattr(image_bank, "decode", lambda *arguments: calls.append(1) or original(*arguments))
  again = image_folder.load(folder, cache, "train", (6, 6), 3)
  assert not calls and np.array_equal(first.images, again.images)
  write_image(folder / "train" / "ant_train" / "0.png", seed=999)
  changed = image_folder.load(folder, cache, "train", (6, 6), 3)
  assert len(calls) == 6 and not np.array_equal(first.images, changed.images)
  assert not [entry for entry in cache.iterdir() if entry.name.startswith(".")]


def test_unreadable_images_are_named(tmp_path):
  folder = make_folder(tmp_path / "insects")
  path = folder / "train" / "bee_train" / "1.png"
  path.write_bytes(path.read_bytes()[:60])
  with pytest.raises(UserError, match=r"bee_train/1\.png: not a readable image"):
    image_folder.load(folder, tmp_path / "cache", "train", (6, 6), 3)
  assert not list((tmp_path / "cache").iterdir())  # no half-made cache
  path.write_text("not an image")
  with pytest.raises(UserError, match=r"bee_train/1\.png: not a readable image"):
    image_folder.load(folder, tmp_path / "cache", "train", (6, 6), 3)


def test_wrong_folders_are_named(tmp_path):
  with pytest.raises(UserError, match=r"no folder train/ here"):
    image_folder.load(tmp_path, tmp_path / "cache", "train", (6, 6), 3)
  folder = make_folder(tmp_path / "insects")
  (folder / "train" / "empty").mkdir()
  with pytest.raises(UserError, match="empty: no image in this class folder"):
    image_folder.load(folder, tmp_path / "cache", "train", (6, 6), 3)
  write_image(folder / "test" / "ant_train" / "0.png")
  (folder / "train" / "empty").rmdir()
  with pytest.raises(UserError, match="class ant_train is in both train/ and test/"):
    image_folder.check_disjoint(folder)
  (tmp_path / "file").write_text("")
  with pytest.raises(UserError, match="cannot write the image cache"):
    image_folder.load(folder, tmp_path / "file" / "cache", "train", (6, 6), 3)
  with pytest.raises(UserError, match=r"--data_dir=.*no Omniglot here"):
    omniglot.load(tmp_path, tmp_path / "cache")
  with pytest.raises(UserError, match=r"--data_dir=.*no miniImageNet here"):
    miniimagenet.load(tmp_path, tmp_path / "cache", "train")


def test_wrong_counts_are_named(tmp_path):
  for number in range(19):
    write_image(tmp_path / "omniglot/images_background/Greek/character01" / f"{number}.png", mode="L", seed=number)
  (tmp_path / "omniglot/images_evaluation").mkdir()
  with pytest.raises(UserError, match="class Greek/character01 has 19 images, expected 20"):
    omniglot.load(tmp_path, tmp_path / "cache")
  write_image(tmp_path / "omniglot/images_background/Greek/character01/19.png", mode="L", seed=19)
  with pytest.raises(UserError, match="1 characters, Omniglot has 1623"):
    omniglot.load(tmp_path, tmp_path / "cache")


def test_miniimagenet_from_one_flat_folder_with_lists(tmp_path, monkeypatch):
  monkeypatch.setattr(miniimagenet, "PER_CLASS", 2)
  monkeypatch.setattr(miniimagenet, "NUM_CLASSES", {"val": 2})
  root = tmp_path / "miniimagenet"
  rows = [("n01", f"n0100000{i}.jpg") for i in range(2)] + [("n02", f"n0200000{i}.jpg") for i in range(2)]
  for seed, (_, name) in enumerate(rows):
    write_image(root / "images" / name, size=(90, 84), seed=seed)
  lines = ["filename,label", *(f"{name},{label}" for label, name in rows)]
  (root / "val.csv").write_text("\n".join(lines) + "\n")
  bank = miniimagenet.load(tmp_path, tmp_path / "cache", "val")
  assert bank.images.shape == (4, 84, 84, 3) and bank.names == ("n01", "n02")
  (root / "images" / "n02000001.jpg").unlink()
  with pytest.raises(UserError, match=r"n02000001\.jpg: this image of val\.csv is missing"):
    miniimagenet.load(tmp_path, tmp_path / "cache", "val")


def test_select_keeps_the_order_asked_for_and_names_what_is_missing(tmp_path):
  bank = image_folder.load(make_folder(tmp_path / "f", ("a", "b", "c")), tmp_path / "cache", "val", (6, 6), 3)
  chosen = bank.select(["c_val", "a_val"])
  assert chosen.names == ("c_val", "a_val")
  np.testing.assert_array_equal(chosen.images[:3], bank.images[6:])
  with pytest.raises(UserError, match="1 of 2 classes are not in the data set, the first is z"):
    bank.select(["a_val", "z"])


def test_committed_omniglot_split_is_disjoint_complete_and_unchanged():
  split = json.loads((DATA / "omniglot_split.json").read_text())
  parts = [split[name] for name in locate.SPLITS]
  assert [len(part) for part in parts] == [1100, 100, 423]
  assert len({name for part in parts for name in part}) == 1623
  assert len(split["evaluation_alphabets"]) == 20
  golden = hashlib.sha256("\n".join(name for part in parts for name in part).encode()).hexdigest()
  assert golden == "d16d64de795d4a26020c97794c837deee84c43ce96829fbd09cd2566513167b6"


@needs_real_data
def test_real_omniglot_is_the_same_from_tfds_and_from_folders(tmp_path):
  from_tfds = omniglot.load(REAL, tmp_path / "one")
  linked = tmp_path / "linked"
  linked.mkdir()
  (linked / "omniglot").symlink_to(pathlib.Path(REAL) / "omniglot")
  from_folders = omniglot.load(linked, tmp_path / "two")
  assert from_tfds.images.shape == (32460, 28, 28, 1) and from_tfds.names == from_folders.names
  np.testing.assert_array_equal(from_tfds.images, from_folders.images)
  published = omniglot.split(from_tfds, "published", DATA / "omniglot_split.json")
  alphabets = omniglot.split(from_tfds, "alphabets", DATA / "omniglot_split.json")
  assert [len(part) for part in published] == [1100, 100, 423]
  assert len(alphabets[0]) == 964 and len(alphabets[1]) + len(alphabets[2]) == 659  # Lake et al.: 964 and 659
  for parts in (published, alphabets):
    assert sorted(name for part in parts for name in part) == sorted(from_tfds.names)
  # One drawing against Pillow alone, from the archive's own file.
  path = pathlib.Path(REAL) / "omniglot/images_background/Greek/character01"
  drawings = set()
  for file in path.glob("*.png"):
    with Image.open(io.BytesIO(file.read_bytes())) as image:
      drawings.add(image.convert("L").resize((28, 28), Image.Resampling.LANCZOS).tobytes())
  bank = from_tfds.select(["Greek/character01"])
  assert {image.tobytes() for image in bank.images} == drawings


@needs_real_data
def test_real_miniimagenet_has_the_listed_classes(tmp_path):
  import csv

  bank = miniimagenet.load(REAL, tmp_path, "val")
  with open(pathlib.Path(REAL) / "miniimagenet" / "val.csv", newline="") as file:
    labels = {row["label"] for row in csv.DictReader(file)}
  assert bank.images.shape == (9600, 84, 84, 3) and set(bank.names) == labels
