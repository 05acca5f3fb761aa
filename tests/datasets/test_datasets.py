"""Data sets: from files to a bank, through the cache, with the mistakes of real folders."""

import hashlib
import io
import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from real_data import REAL, needs_real_data

from maml_tf.datasets import image_bank, image_folder, locate, miniimagenet, omniglot, splits
from maml_tf.datasets.records import DATASETS
from maml_tf.errors import UserError

DATA = pathlib.Path(__file__).parents[2] / "data"


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
  with pytest.raises(UserError, match=r"train/: class ant_train is in .*test/ too; leave it in one"):
    image_folder.check_disjoint(folder)
  (tmp_path / "file").write_text("")
  with pytest.raises(UserError, match="cannot write the image cache"):
    image_folder.load(folder, tmp_path / "file" / "cache", "train", (6, 6), 3)
  with pytest.raises(UserError, match=r"data_dir=.*no Omniglot here"):
    omniglot.load(tmp_path, tmp_path / "cache")
  with pytest.raises(UserError, match=r"data_dir=.*no miniImageNet here"):
    miniimagenet.load(tmp_path, tmp_path / "cache", "train")


def test_wrong_counts_are_named(tmp_path, monkeypatch):
  for number in range(19):
    write_image(tmp_path / "omniglot/images_background/Greek/character01" / f"{number}.png", mode="L", seed=number)
  (tmp_path / "omniglot/images_evaluation").mkdir()
  with pytest.raises(UserError, match="1 characters, Omniglot has 1623; unpack it anew"):
    omniglot.load(tmp_path, tmp_path / "cache")
  monkeypatch.setattr(omniglot, "NUM_CLASSES", 1)
  with pytest.raises(UserError, match="class Greek/character01 has 19 images, expected 20"):
    omniglot.load(tmp_path, tmp_path / "cache")


# miniImageNet and its lists ------------------------------------------------------------------------------------------

SMALL = {"train": ("n01000000", "n02000000"), "val": ("n03000000",), "test": ("n04000000",)}
PLACES = (1, 3, 4)  # of the images in ImageNet's own order


def write_list(root, split, places=PLACES):
  rows = [f"{wnid}{place:08d}.jpg,{wnid}" for wnid in SMALL[split] for place in places]
  (root / f"{split}.csv").write_text("\n".join(["filename,label", *rows]) + "\n")


@pytest.fixture
def small_lists(tmp_path, monkeypatch):
  """miniImageNet with few classes of few images, by lists of the user's own. Returns its folder."""
  monkeypatch.setattr(splits, "MINIIMAGENET_PER_CLASS", len(PLACES))
  monkeypatch.setattr(splits, "miniimagenet_classes", lambda: SMALL)
  root = tmp_path / "miniimagenet"
  root.mkdir()
  for split in SMALL:
    write_list(root, split)
  return root


def resized(path):
  with Image.open(path) as image:
    return np.asarray(image.resize((84, 84), Image.Resampling.LANCZOS)).tobytes()


def test_miniimagenet_from_one_flat_folder(tmp_path, small_lists):
  for wnid in SMALL["train"]:
    for place in PLACES:
      write_image(small_lists / "images" / f"{wnid}{place:08d}.jpg", size=(90, 84), seed=place)
  bank = miniimagenet.load(tmp_path, tmp_path / "cache", "train")
  assert bank.images.shape == (6, 84, 84, 3) and bank.names == SMALL["train"]
  (small_lists / "images" / "n0200000000000003.jpg").unlink()
  with pytest.raises(UserError, match=r"n0200000000000003\.jpg: this image of the list is missing; copy it there"):
    miniimagenet.load(tmp_path, tmp_path / "cache", "train")


def test_miniimagenet_from_imagenets_own_folders_counts_in_the_order_of_its_numbers(tmp_path, small_lists):
  numbers = (9, 1000, 57, 200, 31)  # as text 1000 would come first; in order: 9, 31, 57, 200, 1000
  for seed, number in enumerate(numbers):
    write_image(small_lists / "n03000000" / f"n03000000_{number}.JPEG", size=(100, 90), seed=seed)
  (small_lists / "n03000000" / "ReadMe.txt").write_text("not an image of ImageNet's")
  bank = miniimagenet.load(tmp_path, tmp_path / "cache", "val")
  chosen = [small_lists / "n03000000" / f"n03000000_{number}.JPEG" for number in (9, 57, 200)]  # 1st, 3rd, 4th
  assert [image.tobytes() for image in bank.images] == sorted(resized(path) for path in chosen)
  for path in chosen[:2]:
    path.unlink()
  with pytest.raises(UserError, match=r"n03000000: 3 images, but the list counts up to the 4th; put all training"):
    miniimagenet.load(tmp_path, tmp_path / "cache", "val")
  with pytest.raises(UserError, match=r"n04000000: this class folder of ImageNet is missing"):
    miniimagenet.load(tmp_path, tmp_path / "cache", "test")
  write_list(small_lists, "val", places=(0, 1, 2))
  with pytest.raises(UserError, match=r"n0300000000000000\.jpg: not a name of the lists"):
    miniimagenet.load(tmp_path, tmp_path / "cache", "val")


@pytest.mark.parametrize("layout", ["images", "n03000000"])
def test_without_lists_it_is_said_which_and_where_they_come_from(tmp_path, small_lists, layout):
  (small_lists / layout).mkdir()
  for damage in (lambda path: path.unlink(), lambda path: os.mkfifo(path)):
    damage(small_lists / "val.csv")
    with pytest.raises(
      UserError, match=r"miniimagenet/val\.csv: this list is missing: .* need train\.csv, val"
    ) as error:
      DATASETS["miniimagenet"].check(tmp_path)
    assert "Ravi and Larochelle" in str(error.value) and splits.LISTS_URL in str(error.value)


def test_split_folders_need_no_lists(tmp_path, small_lists):
  for split, classes in SMALL.items():
    (small_lists / f"{split}.csv").unlink()
    for number, wnid in enumerate(classes):
      for place in PLACES:
        write_image(small_lists / split / wnid / f"{place}.png", seed=10 * number + place)
  assert DATASETS["miniimagenet"].load(tmp_path, "train", image_size=8).images.shape == (6, 8, 8, 3)


@pytest.mark.parametrize(("content", "message"), [
  ("file,class\n1,2\n", "cannot be read as a list of images, with columns filename and label"),
  ("filename,label\n", "0 classes, miniImageNet has 1 here, the first missing one is n03000000; copy the list"),
  ("filename,label\na.jpg,n01000000\n", "class n01000000 is none of the 1 that miniImageNet has here"),
  ("filename,label\n" + 3 * "n0300000000000001.jpg,n03000000\n",
   "3 images of class n03000000, 1 of them different; 3 were expected"),
  ("filename,label\nn0300000000000001.jpg,n03000000\n", "1 images of class n03000000, 1 of them different; 3 were"),
  ("filename,label\nn0300000000000001.jpg,\n", "cannot be read as a list of images"),
  (b"filename,label\n\xff,n03000000\n", "cannot be read as a list of images"),
], ids=["columns", "empty", "other class", "repeated", "too few", "field", "UTF-8"])  # fmt: skip
def test_lists_that_are_not_ravi_and_larochelles_are_named(tmp_path, small_lists, content, message):
  (small_lists / "images").mkdir()
  (small_lists / "val.csv").write_bytes(content if isinstance(content, bytes) else content.encode())
  with pytest.raises(UserError, match=rf"val\.csv: {message}"):
    DATASETS["miniimagenet"].check(tmp_path)


def test_committed_miniimagenet_classes_are_disjoint_complete_and_unchanged():
  classes = splits.miniimagenet_classes()
  assert {split: len(names) for split, names in classes.items()} == {"train": 64, "val": 16, "test": 20}
  names = [name for split in locate.SPLITS for name in classes[split]]
  assert len(set(names)) == 100
  golden = "251f0efc95e7f9085a6a85043c24491fae150074ee821b19c89fd814d4f7e15f"
  assert hashlib.sha256("\n".join(names).encode()).hexdigest() == golden


@needs_real_data
def test_the_lists_of_ravi_and_larochelle_have_the_committed_classes():
  golden = {
    "train": "498519cd8e49ce97ed26a4a3638966698ae41ab35e9c68538319fc9b46ba7d2f",
    "val": "5658a59921ca027ee76af92949869c5d6f41d77592ff3b18db325a9d10c893b9",
    "test": "2b7cfa78342995761a572a8158e539bc4e0a80f9bbd7d00c1e17a460fbbb93fa",
  }
  folder = pathlib.Path(REAL) / "miniimagenet"
  for split, expected in golden.items():
    assert hashlib.sha256((folder / f"{split}.csv").read_bytes()).hexdigest() == expected
    listed = splits.miniimagenet(split, folder)
    assert list(listed) == splits.miniimagenet_classes()[split]
    assert all(name.startswith(wnid) for wnid, names in listed.items() for name in names)


@needs_real_data
def test_the_lists_find_the_real_images_in_one_flat_folder(tmp_path, monkeypatch):
  flat = tmp_path / "miniimagenet" / "images"
  flat.mkdir(parents=True)
  real = sorted((pathlib.Path(REAL) / "miniimagenet" / "val").glob("*/*.jpg"))
  for image in real:
    (flat / image.name).symlink_to(image)
  for split in locate.SPLITS:
    (flat.parent / f"{split}.csv").symlink_to(pathlib.Path(REAL) / "miniimagenet" / f"{split}.csv")
  sources = []
  monkeypatch.setattr(image_bank, "load", lambda source, *_, **__: sources.append(source))
  miniimagenet.load(tmp_path, tmp_path / "cache", "val")
  assert sources[0].sizes == dict.fromkeys(splits.miniimagenet_classes()["val"], 600)


def test_a_built_package_has_the_splits(tmp_path):
  pytest.importorskip("setuptools")
  build = [sys.executable, "setup.py", "-q", "build_py", "--build-lib", str(tmp_path)]
  subprocess.run(build, check=True, cwd=DATA.parent, capture_output=True, timeout=60)
  code = (
    "from maml_tf.datasets import splits\n"
    "print(splits.path('omniglot_split.json'), len(splits.miniimagenet_classes()['val']))"
  )
  environment = os.environ | {"PYTHONPATH": str(tmp_path)}
  done = subprocess.run(
    [sys.executable, "-c", code], check=True, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60
  )
  assert done.stdout == f"{tmp_path}/maml_tf/datasets/split_files/omniglot_split.json 16\n"


# Banks and Omniglot --------------------------------------------------------------------------------------------------


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


def test_split_by_alphabets_is_disjoint_complete_and_unchanged():
  published = json.loads((DATA / "omniglot_split.json").read_text())
  characters = sorted(name for part in locate.SPLITS for name in published[part])
  bank = image_bank.ImageBank(np.zeros([1623, 1, 1, 1], np.uint8), tuple(characters), np.arange(1624))
  parts = omniglot.split(bank, "alphabets")
  assert [len(part) for part in parts] == [964, 124, 535]
  assert sorted(name for part in parts for name in part) == characters
  alphabets = [{name.partition("/")[0] for name in part} for part in parts]
  assert [len(names) for names in alphabets] == [30, 5, 15] and len(set.union(*alphabets)) == 50
  golden = hashlib.sha256("\n".join(name for part in parts for name in part).encode()).hexdigest()
  assert golden == "fb697c7dbe6cc84333b7b3e2841332da1d35015a1cf446f482444b14647235c4"


@needs_real_data
def test_real_omniglot_is_the_same_from_tfds_and_from_folders(tmp_path):
  from_tfds = omniglot.load(REAL, tmp_path / "one")
  linked = tmp_path / "linked"
  linked.mkdir()
  (linked / "omniglot").symlink_to(pathlib.Path(REAL) / "omniglot")
  from_folders = omniglot.load(linked, tmp_path / "two")
  assert from_tfds.images.shape == (32460, 28, 28, 1) and from_tfds.names == from_folders.names
  np.testing.assert_array_equal(from_tfds.images, from_folders.images)
  published = omniglot.split(from_tfds, "published")
  alphabets = omniglot.split(from_tfds, "alphabets")
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
