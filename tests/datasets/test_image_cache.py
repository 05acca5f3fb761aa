"""The cache of decoded images: whatever happens to it is noticed, said, and mended from the files."""

import json
import os
import pathlib
import shutil

import numpy as np
import pytest
from PIL import Image

from maml_tf import checksums
from maml_tf.datasets import image_bank, image_folder, locate
from maml_tf.errors import UserError

SIZES = {"train": (3, 5, 4), "val": (5, 4, 3), "test": (2, 2, 2)}  # images of each class: as many in train and val


@pytest.fixture
def folder(tmp_path):
  rng = np.random.default_rng(0)
  for split, sizes in SIZES.items():
    for c, size in enumerate(sizes):
      inside = tmp_path / "data" / split / f"{split}_{c}"
      inside.mkdir(parents=True)
      for i in range(size):
        Image.fromarray(rng.integers(0, 256, [40, 40, 3]).astype(np.uint8)).save(inside / f"{i}.png")
  return tmp_path / "data"


@pytest.fixture
def load(folder, tmp_path):
  return lambda split="train", size=(40, 40): image_folder.load(folder, tmp_path / "cache", split, size, 3)


def cache_of(tmp_path, split="train"):
  (found,) = (tmp_path / "cache").glob(f"data-{split}-*")
  return found


def edit_index(cache, change):
  index = json.loads((cache / "index.json").read_text())
  change(index)
  (cache / "index.json").write_text(json.dumps(index))


def flip_a_bit(cache):
  content = bytearray((cache / "images.npy").read_bytes())
  content[30_000] ^= 4
  (cache / "images.npy").write_bytes(content)


def zero_a_page(cache):
  with open(cache / "images.npy", "r+b") as file:
    file.seek(8192)
    file.write(bytes(4096))


def replace_by_another_splits(cache):
  shutil.rmtree(cache)
  shutil.copytree(cache_of(cache.parent.parent, "val"), cache)


def replace_images_by_another_splits(cache):
  shutil.copyfile(cache_of(cache.parent.parent, "val") / "images.npy", cache / "images.npy")


def permute_offsets(cache):
  edit_index(cache, lambda index: index.update(offsets=[0, *np.cumsum((5, 3, 4)).tolist()]))


def permute_names(cache):
  edit_index(cache, lambda index: index["names"].reverse())


def save_images(cache, change):
  np.save(cache / "images.npy", change(np.load(cache / "images.npy")))


DAMAGE = {
  "flipped bit": (flip_a_bit, "images.npy is not what was written"),
  "page of zeros": (zero_a_page, "images.npy is not what was written"),
  "another split": (replace_by_another_splits, "it is the cache of other images"),
  "another split's images": (replace_images_by_another_splits, "images.npy is not what was written"),
  "permuted offsets": (permute_offsets, "index.json is not what was written"),
  "permuted names": (permute_names, "index.json is not what was written"),
  "fewer rows": (lambda cache: save_images(cache, lambda x: x[:-1]), "images.npy is not what was written"),
  "no rows": (lambda cache: save_images(cache, lambda x: x[:0]), "images.npy is not what was written"),
  "truncated": (lambda cache: os.truncate(cache / "images.npy", 20_000), "images.npy is not what was written"),
  "emptied": (lambda cache: (cache / "images.npy").write_bytes(b""), "images.npy is not what was written"),
  "no images": (lambda cache: (cache / "images.npy").unlink(), "images.npy cannot be read (No such file or directory)"),
  "no index": (lambda cache: (cache / "index.json").unlink(), "index.json cannot be read (No such file or directory)"),
  "no checksums": (lambda cache: (cache / checksums.NAME).unlink(), "checksums.json cannot be read (No such file"),
  "damaged checksums": (lambda cache: (cache / checksums.NAME).write_text("{"), "checksums.json cannot be read ("),
}


def pipe_instead(cache):
  (cache / "images.npy").unlink()
  os.mkfifo(cache / "images.npy")


DAMAGE["pipe"] = (pipe_instead, "images.npy cannot be read (not a regular file)")


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_cache_is_named_and_decoded_anew(load, tmp_path, capfd, kind):
  damage, message = DAMAGE[kind]
  images = load().images.copy()
  load("val")
  cache = cache_of(tmp_path)
  capfd.readouterr()
  damage(cache)
  bank = load()
  np.testing.assert_array_equal(bank.images, images)
  assert bank.sizes.tolist() == list(SIZES["train"])
  (line,) = capfd.readouterr().err.splitlines()
  assert line.startswith(f"{cache}: this cache is damaged: {message}") and line.endswith("; decoding the images anew")
  load()  # it is mended
  assert capfd.readouterr().err == "" and sorted(os.listdir(tmp_path / "cache")) == sorted(
    path.name for path in (cache, cache_of(tmp_path, "val"))
  )


# Files whose checksums are right, and which are wrong all the same: a fault of a program, not of a disk.
WELL_WRITTEN = {
  "fewer rows": (lambda c: save_images(c, lambda x: x[:-1]), "images.npy holds uint8 [11, 40, 40, 3], uint8 [12, 40,"),
  "no rows": (lambda c: save_images(c, lambda x: x[:0]), "images.npy holds uint8 [0, 40, 40, 3]"),
  "another type": (lambda c: save_images(c, lambda x: x.astype(np.int8)), "images.npy holds int8"),
  "another shape": (lambda c: save_images(c, lambda x: x.reshape(12, 20, 80, 3)), "images.npy holds uint8 [12, 20, 80"),
  "pickled": (lambda c: save_images(c, lambda x: np.array([None])), "it cannot be read ("),
  "permuted offsets": (permute_offsets, "index.json has other classes than the files"),
  "permuted names": (permute_names, "index.json does not divide the images into classes"),
  "one class less": (lambda c: edit_index(c, lambda i: i["names"].pop()), "index.json does not divide the images"),
  "offset too far": (
    lambda c: edit_index(c, lambda i: i.update(offsets=[0, 3, 8, 13])),
    "index.json does not divide the images",
  ),
  "falling offsets": (
    lambda c: edit_index(c, lambda i: i.update(offsets=[0, 8, 3, 12])),
    "index.json does not divide the images",
  ),
  "names no texts": (lambda c: edit_index(c, lambda i: i.update(names=[1, "a", []])), "index.json does not divide"),
  "offsets no numbers": (lambda c: edit_index(c, lambda i: i.update(offsets=["a"])), "it cannot be read ("),
  "no key": (lambda c: edit_index(c, lambda i: i.pop("key")), "it cannot be read ("),
  "endless number": (lambda c: edit_index(c, lambda i: i.update(offsets=[10**30])), "it cannot be read ("),
  "a list": (lambda c: (c / "index.json").write_text("[]"), "it cannot be read ("),
}


@pytest.mark.parametrize("kind", WELL_WRITTEN)
def test_shape_type_and_counts_are_checked_beside_the_checksums(load, tmp_path, capfd, kind):
  change, message = WELL_WRITTEN[kind]
  images = load().images.copy()
  change(cache_of(tmp_path))
  checksums.write(cache_of(tmp_path))
  capfd.readouterr()
  np.testing.assert_array_equal(load().images, images)
  assert f"this cache is damaged: {message}" in capfd.readouterr().err


def test_a_cache_of_another_size_is_not_taken_for_it(load, tmp_path, capfd):
  small = load(size=(20, 20))
  (cache,) = (tmp_path / "cache").iterdir()
  load()
  (other,) = set((tmp_path / "cache").iterdir()) - {cache}
  shutil.rmtree(other)
  shutil.copytree(cache, other)
  assert load().images.shape == (12, 40, 40, 3) and small.images.shape == (12, 20, 20, 3)
  assert "it is the cache of other images" in capfd.readouterr().err


def test_who_has_a_damaged_cache_open_keeps_it(load, tmp_path):
  bank = load()
  images = bank.images.copy()
  permute_offsets(cache_of(tmp_path))
  load()
  np.testing.assert_array_equal(bank.images, images)


def test_a_damaged_image_still_is_an_error_when_a_cache_is_mended(folder, load, tmp_path):
  load()
  flip_a_bit(cache_of(tmp_path))
  path = folder / "train" / "train_1" / "2.png"
  status = path.stat()
  path.write_bytes(bytes(status.st_size))
  os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
  with pytest.raises(UserError, match=r"train_1/2\.png: not a readable image"):
    load()


def test_a_disk_that_writes_something_else_is_named(load, tmp_path, monkeypatch):
  write = checksums.write

  def write_and_lose(cache):
    write(cache)
    zero_a_page(pathlib.Path(cache))

  monkeypatch.setattr(image_bank.checksums, "write", write_and_lose)
  with pytest.raises(
    UserError, match=r"what was written just now is damaged: images\.npy is not what was written; look"
  ):
    load()


def test_locate_names_the_three_splits():
  assert tuple(SIZES) == locate.SPLITS
