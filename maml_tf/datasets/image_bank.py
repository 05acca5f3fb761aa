"""All images of a data set as one array of bytes, sorted by class, decoded once into a memory-mapped cache."""

import concurrent.futures
import dataclasses
import hashlib
import io
import json
import os
import pathlib
import shutil
import tempfile

import numpy as np
from tqdm import tqdm

from maml_tf.errors import UserError

CACHE_FORMAT_VERSION = 1


@dataclasses.dataclass(frozen=True)
class ImageBank:
  """Images of every class.

  Attributes:
    images: uint8 [M, H, W, C], the images of a class side by side.
    names: names of the classes.
    offsets: int64 [classes + 1]; class c owns images[offsets[c] : offsets[c + 1]].
  """

  images: np.ndarray
  names: tuple
  offsets: np.ndarray

  @property
  def sizes(self):
    """Number of images of every class, int64 [classes]."""
    return np.diff(self.offsets)

  def select(self, names):
    """The bank of these classes, in this order.

    Raises:
      UserError: a class is not there.
    """
    index = {name: i for i, name in enumerate(self.names)}
    missing = [name for name in names if name not in index]
    if missing:
      raise UserError(f"{len(missing)} of {len(names)} classes are not in the data set, the first is {missing[0]}")
    chosen = [index[name] for name in names]
    images = np.concatenate([self.images[self.offsets[c] : self.offsets[c + 1]] for c in chosen])
    return ImageBank(images, tuple(names), np.concatenate([[0], np.cumsum(self.sizes[chosen])]))


@dataclasses.dataclass(frozen=True)
class Source:
  """Where images come from, before any of them is decoded.

  Attributes:
    name: readable name for the cache.
    fingerprint: text that changes whenever the files do.
    num_images: how many `images()` yields.
    images: function that yields (class name, encoded bytes, name for error messages), in any order.
  """

  name: str
  fingerprint: str
  num_images: int
  images: object


def files_source(name, files):
  """A source of image files: `files` is a list of (class name, path)."""
  stats = [(class_name, str(path), path.stat()) for class_name, path in files]
  text = json.dumps([(c, p, s.st_size, s.st_mtime_ns) for c, p, s in sorted(stats, key=lambda entry: entry[:2])])

  def images():
    for class_name, path in sorted(files):
      yield class_name, path.read_bytes(), str(path)

  return Source(name, text, len(files), images)


def load(source, cache_dir, size, channels, expected_size=None):
  """The bank of a source, from the cache where it is there.

  Args:
    source: `Source`.
    cache_dir: folder of the caches; made where it is missing.
    size: (height, width) to resize to, with Lanczos filtering where an image has another size.
    channels: 1 (grey) or 3 (colour).
    expected_size: None, or how many images each class has to have.

  Returns:
    `ImageBank` with memory-mapped images.

  Raises:
    UserError: an image cannot be read, a class has the wrong number of images, the cache cannot be written.
  """
  key = json.dumps([CACHE_FORMAT_VERSION, source.fingerprint, list(size), channels])
  folder = pathlib.Path(cache_dir) / f"{source.name}-{hashlib.sha256(key.encode()).hexdigest()[:16]}"
  if not folder.is_dir():
    _build(source, folder, size, channels)
  index = json.loads((folder / "index.json").read_text(encoding="utf-8"))
  bank = ImageBank(np.load(folder / "images.npy", mmap_mode="r"), tuple(index["names"]), np.array(index["offsets"]))
  for name, count in zip(bank.names, bank.sizes, strict=True):
    if expected_size is not None and count != expected_size:
      raise UserError(f"{source.name}: class {name} has {count} images, expected {expected_size}")
  return bank


def _build(source, folder, size, channels):
  """Decodes everything into `folder`, which appears whole or not at all."""
  try:
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = pathlib.Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
  except OSError as error:
    raise UserError(f"{folder.parent}: cannot write the image cache: {error.strerror}") from error
  try:
    by_class = _decode_all(source, size, channels)
    names = sorted(by_class)
    counts = [len(by_class[name]) for name in names]
    images = np.lib.format.open_memmap(
      temporary / "images.npy", mode="w+", dtype=np.uint8, shape=(sum(counts), *size, channels)
    )
    offsets = np.concatenate([[0], np.cumsum(counts)])
    for i, name in enumerate(names):
      # Sorted by content: the same images give the same bank, whichever archive they came from.
      images[offsets[i] : offsets[i + 1]] = np.stack(sorted(by_class.pop(name), key=lambda image: image.tobytes()))
    images.flush()
    (temporary / "index.json").write_text(json.dumps({"names": names, "offsets": offsets.tolist()}))
    try:
      os.rename(temporary, folder)
    except OSError:
      if not folder.is_dir():  # else another process was first
        raise
  finally:
    shutil.rmtree(temporary, ignore_errors=True)


def _decode_all(source, size, channels):
  """Dict of class name -> list of uint8 [H, W, C]."""
  by_class = {}

  def decode_one(entry):
    class_name, data, where = entry
    return class_name, decode(data, size, channels, where)

  with concurrent.futures.ThreadPoolExecutor() as pool:  # Pillow decodes outside of the interpreter's lock
    decoded = pool.map(decode_one, source.images())
    for class_name, image in tqdm(decoded, source.name, source.num_images, unit=" images", disable=None):
      by_class.setdefault(class_name, []).append(image)
  return by_class


def decode(data, size, channels, where):
  """One image file's bytes as uint8 [H, W, C], resized with Lanczos filtering (as cbfinn/maml's data scripts do)."""
  from PIL import Image

  try:
    with Image.open(io.BytesIO(data)) as image:
      image = image.convert("L" if channels == 1 else "RGB")
      if image.size != (size[1], size[0]):
        image = image.resize((size[1], size[0]), Image.Resampling.LANCZOS)
      return np.asarray(image, np.uint8).reshape(*size, channels)
  except (OSError, SyntaxError, ValueError) as error:
    raise UserError(f"{where}: not a readable image ({error}); replace or remove the file") from error
