"""All images of a data set as one array of bytes, sorted by class, decoded once into a memory-mapped cache."""

import collections
import concurrent.futures
import contextlib
import dataclasses
import fcntl
import hashlib
import io
import itertools
import json
import os
import pathlib
import secrets
import shutil
import sys

import numpy as np

from maml_tf import progress
from maml_tf.errors import UserError

CACHE_FORMAT_VERSION = 1


@dataclasses.dataclass(frozen=True)
class ImageBank:
  """Images of every class.

  Attributes:
    images: uint8 [M, H, W, C], the images of a class side by side.
    names: names of the classes.
    offsets: int64 [classes + 1]; class c owns images[offsets[c] : offsets[c + 1]].
    passed_over: dict of suffix to number of files that lay beside the images and are none by their names.
  """

  images: np.ndarray
  names: tuple
  offsets: np.ndarray
  passed_over: dict = dataclasses.field(default_factory=dict)

  @property
  def sizes(self):
    """Number of images of every class, int64 [classes]."""
    return np.diff(self.offsets)

  def summary(self):
    """One line for the user: the counts, and what was passed over."""
    counts = f"{len(self.names):,} classes, {int(self.offsets[-1]):,} images"
    if not self.passed_over:
      return counts
    number = sum(self.passed_over.values())
    suffixes = ", ".join(f"{count:,} {suffix}" for suffix, count in self.passed_over.items())
    return f"{counts}; passed over {number:,} {'file' if number == 1 else 'files'} of other kinds: {suffixes}"

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
    where: the folder of the data, for messages.
    fingerprint: text that changes whenever the files do.
    num_images: how many `images()` yields.
    images: function that yields (class name, encoded bytes, name for error messages), in any order.
    sizes: dict of class name to number of images, or None where that is not known before decoding.
  """

  name: str
  where: pathlib.Path
  fingerprint: str
  num_images: int
  images: object
  sizes: dict = None


def files_source(name, where, files):
  """A source of image files: `files` is a list of (class name, path)."""
  stats = [(class_name, str(path), _readable(path, path.stat)) for class_name, path in files]
  text = json.dumps([(c, p, s.st_size, s.st_mtime_ns) for c, p, s in sorted(stats, key=lambda entry: entry[:2])])

  def images():
    for class_name, path in sorted(files):
      yield class_name, _readable(path, path.read_bytes), str(path)

  return Source(name, where, text, len(files), images, collections.Counter(class_name for class_name, _ in files))


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
  _check_sizes(source, source.sizes, expected_size)  # before minutes of decoding, where it is known
  key = json.dumps([CACHE_FORMAT_VERSION, source.fingerprint, list(size), channels])
  folder = pathlib.Path(cache_dir) / f"{source.name}-{hashlib.sha256(key.encode()).hexdigest()[:16]}"
  if not folder.is_dir():
    _build(source, folder, size, channels)
  bank = _open(folder)
  _check_sizes(source, dict(zip(bank.names, bank.sizes, strict=True)), expected_size)
  return bank


def _readable(path, read):
  try:
    return read()
  except OSError as error:
    raise UserError(f"{path}: cannot be read ({error.strerror}); make it readable, or replace it") from error


def _check_sizes(source, sizes, expected):
  for name, count in sorted((sizes or {}).items()):
    if expected is not None and count != expected:
      advice = "complete the folder, or unpack the data set anew"
      raise UserError(f"{source.where}: class {name} has {count} images, expected {expected}; {advice}")


def _open(folder):
  try:
    index = json.loads((folder / "index.json").read_text(encoding="utf-8"))
    images = np.load(folder / "images.npy", mmap_mode="r")
    return ImageBank(images, tuple(index["names"]), np.array(index["offsets"]))
  except (OSError, ValueError, KeyError) as error:
    raise UserError(f"{folder}: this cache of images cannot be read ({error}); remove the folder") from error


def _build(source, folder, size, channels):
  """Decodes everything into `folder`, which appears whole or not at all."""
  try:
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _building(folder.parent):
      if not folder.is_dir():  # else another process has made it in the meantime
        _decode_into(folder, source, size, channels)
  except OSError as error:
    megabytes = source.num_images * size[0] * size[1] * channels / 1e6
    raise UserError(
      f"{folder.parent}: cannot write the image cache ({error.strerror}); it needs {megabytes:.0f} MB in a folder that "
      "can be written: make room, or change the permissions"
    ) from error


@contextlib.contextmanager
def _building(cache):
  """Lets one process at a time build in a folder of caches; what another, killed one left half-made is removed.

  The lock is on the folder itself, so it leaves no file; the kernel lets go of it when a process dies.
  """
  descriptor = os.open(cache, os.O_RDONLY)
  try:
    with contextlib.suppress(OSError):  # a file system without locks: then both build, and the first one counts
      _wait_for_lock(descriptor, cache)
      for path in cache.glob(f".*-{'?' * 16}.*.half"):
        shutil.rmtree(path, ignore_errors=True)
    yield
  finally:
    os.close(descriptor)


def _wait_for_lock(descriptor, cache):
  try:
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
  except BlockingIOError:
    if sys.stderr.isatty():
      print(f"another process is decoding images into {cache}; waiting for it", file=sys.stderr, flush=True)
    fcntl.flock(descriptor, fcntl.LOCK_EX)


def _decode_into(folder, source, size, channels):
  temporary = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.half")
  temporary.mkdir()
  try:
    by_class = _decode_all(source, size, channels)
    names = sorted(by_class)
    offsets = np.cumsum([0, *(len(by_class[name]) for name in names)])
    _write_images(temporary / "images.npy", (by_class.pop(name) for name in names), (int(offsets[-1]), *size, channels))
    _write(temporary / "index.json", [json.dumps({"names": names, "offsets": offsets.tolist()}).encode()])
    try:
      os.rename(temporary, folder)
    except OSError:
      if not folder.is_dir():  # else another process was first
        raise
  finally:
    shutil.rmtree(temporary, ignore_errors=True)


def _write_images(path, classes, shape):
  """Writes an uncompressed .npy file of bytes.

  By write calls, not through a memory map: there, a full disk is not an error but the death of the process.
  """
  header = io.BytesIO()
  np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": shape})
  # Sorted by content: the same images give the same bank, whichever archive they came from.
  images = (content for images in classes for content in sorted(image.tobytes() for image in images))
  _write(path, itertools.chain([header.getvalue()], images))


def _write(path, chunks):
  """Writes a file that survives a crash of the machine once this returns."""
  with open(path, "wb") as file:
    for chunk in chunks:
      file.write(chunk)
    file.flush()
    os.fsync(file.fileno())


def _decode_all(source, size, channels):
  """Dict of class name -> list of uint8 [H, W, C]."""
  by_class = {}
  with concurrent.futures.ThreadPoolExecutor() as pool:  # Pillow decodes outside of the interpreter's lock
    decoded = _decode_ahead(pool, source, size, channels)
    for class_name, image in progress.bar(decoded, desc=source.name, total=source.num_images, unit=" images"):
      by_class.setdefault(class_name, []).append(image)
  return by_class


def _decode_ahead(pool, source, size, channels, ahead=64):
  """Yields (class name, image) while a few more are being decoded.

  `Executor.map` would read all files at once, gigabytes where they are ImageNet's own.
  """
  pending = collections.deque()
  for class_name, data, where in source.images():
    pending.append((class_name, pool.submit(decode, data, size, channels, where)))
    if len(pending) > ahead:
      class_name, image = pending.popleft()
      yield class_name, image.result()
  for class_name, image in pending:
    yield class_name, image.result()


def resize(images, size):
  """uint8 [M, H, W, C] with C = 1 or 3, resized to (height, width) as `decode` does."""
  from PIL import Image

  if images.shape[1:3] == tuple(size):
    return images
  resized = np.empty((len(images), *size, images.shape[-1]), np.uint8)
  for image, target in zip(images, resized, strict=True):
    squeezed = image[..., 0] if image.shape[-1] == 1 else image
    target[:] = _resized(Image.fromarray(squeezed), size).reshape(target.shape)
  return resized


def _resized(image, size):
  """A Pillow image as an array of (height, width)."""
  from PIL import Image

  if image.size != (size[1], size[0]):
    image = image.resize((size[1], size[0]), Image.Resampling.LANCZOS)
  return np.asarray(image, np.uint8)


def decode(data, size, channels, where):
  """One image file's bytes as uint8 [H, W, C], resized with Lanczos filtering (as cbfinn/maml's data scripts do)."""
  from PIL import Image, UnidentifiedImageError

  try:
    with Image.open(io.BytesIO(data)) as image:
      if image.mode[0] in "IF":  # Pillow would cut their values off at 255, not scale them
        raise ValueError("more than 8 bits per channel")
      image = image.convert("L" if channels == 1 else "RGB")
      return _resized(image, size).reshape(*size, channels)
  except Exception as error:  # Pillow's decoders have many for a damaged file
    reason = "of no known format" if isinstance(error, UnidentifiedImageError) else error
    raise UserError(f"{where}: not a readable image ({reason}); replace or remove the file") from error
