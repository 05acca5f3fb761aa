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
import stat
import sys

import numpy as np

from maml_tf import checksums, progress
from maml_tf.errors import UserError

CACHE_FORMAT_VERSION = 2  # 2: checksums, and photographs turned as their EXIF data say


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
  for _, path, status in stats:
    if not stat.S_ISREG(status.st_mode):  # reading from a pipe would wait for ever
      raise UserError(f"{path}: not a regular file; replace or remove it")
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
  cache = _Cache(source, pathlib.Path(cache_dir), hashlib.sha256(key.encode()).hexdigest()[:16], tuple(size), channels)
  bank = cache.open_or_build()
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


class _DamagedError(Exception):
  """A cache is not what was written, or not the one that is asked for; the message says in what."""


@dataclasses.dataclass(frozen=True)
class _Cache:
  """Where one source's decoded images are kept: `<folder>/<name>-<key>/{images.npy,index.json,checksums.json}`."""

  source: Source
  parent: pathlib.Path
  key: str
  size: tuple
  channels: int

  @property
  def folder(self):
    return self.parent / f"{self.source.name}-{self.key}"

  def open_or_build(self):
    """The bank: as it is in the cache where that is there and sound, else decoded (anew)."""
    damage = None
    if self.folder.is_dir():
      try:
        return self._open()
      except _DamagedError as error:
        damage = error
    return self._build(damage)

  def _open(self):
    """The bank in the folder, if each file is what was written and together they are what the key says.

    Raises:
      _DamagedError: they are not.
    """
    damage = checksums.problem(self.folder)
    if damage is not None:
      raise _DamagedError(damage)
    try:
      index = json.loads((self.folder / "index.json").read_text(encoding="utf-8"))
      images = np.load(self.folder / "images.npy", mmap_mode="r", allow_pickle=False)
      names, offsets, key = tuple(index["names"]), np.array(index["offsets"], np.int64), index["key"]
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
      raise _DamagedError(f"it cannot be read ({error})") from error
    if key != self.key:
      raise _DamagedError("it is the cache of other images")
    self._check_contents(images, names, offsets)
    return ImageBank(images, names, offsets)

  def _check_contents(self, images, names, offsets):
    """Refuses what no writing of this module would have left."""
    expected = (self.source.num_images, *self.size, self.channels)
    if images.dtype != np.uint8 or images.shape != expected:
      found = f"{images.dtype} {list(images.shape)}"
      raise _DamagedError(f"images.npy holds {found}, uint8 {list(expected)} was expected")
    ends = offsets.shape == (len(names) + 1,) and offsets[0] == 0 and offsets[-1] == len(images)
    texts = all(isinstance(name, str) for name in names)
    if not (ends and texts and (np.diff(offsets) > 0).all() and list(names) == sorted(set(names))):
      raise _DamagedError("index.json does not divide the images into classes")
    sizes = dict(zip(names, np.diff(offsets).tolist(), strict=True))
    if self.source.sizes is not None and sizes != dict(self.source.sizes):
      raise _DamagedError("index.json has other classes than the files")

  def _build(self, damage):
    """Decodes everything into the folder, which appears whole or not at all, and opens it."""
    if damage is not None:
      print(f"{self.folder}: this cache is damaged: {damage}; decoding the images anew", file=sys.stderr, flush=True)
    try:
      self.parent.mkdir(parents=True, exist_ok=True)
      with building(self.parent):
        with contextlib.suppress(_DamagedError):
          if self.folder.is_dir():  # another process may have made it, or mended it, in the meantime
            return self._open()
        self._decode()
    except OSError as error:
      megabytes = self.source.num_images * self.size[0] * self.size[1] * self.channels / 1e6
      raise UserError(
        f"{self.parent}: cannot write the image cache ({error.strerror}); it needs {megabytes:.0f} MB in a folder that "
        "can be written: make room, or change the permissions"
      ) from error
    try:
      return self._open()
    except _DamagedError as error:
      advice = "look after the disk, or have the cache elsewhere"
      raise UserError(f"{self.folder}: what was written just now is damaged: {error}; {advice}") from error

  def _decode(self):
    temporary, old = (self._half_made() for _ in range(2))
    temporary.mkdir()
    try:
      by_class = _decode_all(self.source, self.size, self.channels)
      names = sorted(by_class)
      offsets = np.cumsum([0, *(len(by_class[name]) for name in names)])
      shape = (int(offsets[-1]), *self.size, self.channels)
      _write_images(temporary / "images.npy", (by_class.pop(name) for name in names), shape)
      index = {"key": self.key, "names": names, "offsets": offsets.tolist()}
      _write(temporary / "index.json", [json.dumps(index).encode()])
      checksums.write(temporary)
      with contextlib.suppress(FileNotFoundError):
        os.rename(self.folder, old)  # a damaged one; who has it open keeps it
      try:
        os.rename(temporary, self.folder)
      except OSError:
        if not self.folder.is_dir():  # else another process was first
          raise
    finally:
      for path in (temporary, old):
        shutil.rmtree(path, ignore_errors=True)

  def _half_made(self):
    return self.parent / f".{self.folder.name}.{secrets.token_hex(4)}.half"


@contextlib.contextmanager
def building(cache):
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
  """One image file's bytes as uint8 [H, W, C], resized with Lanczos filtering (as cbfinn/maml's data scripts do).

  A photograph is turned as its EXIF data say; of an animation or of several pages the first counts; transparency is
  left out.
  """
  from PIL import Image, ImageOps, UnidentifiedImageError

  try:
    with Image.open(io.BytesIO(data)) as image:
      if image.mode[0] in "IF":  # Pillow would cut their values off at 255, not scale them
        raise ValueError("more than 8 bits per channel")
      image = ImageOps.exif_transpose(image).convert("L" if channels == 1 else "RGB")
      return _resized(image, size).reshape(*size, channels)
  except Exception as error:  # Pillow's decoders have many for a damaged file
    reason = "of no known format" if isinstance(error, UnidentifiedImageError) else error
    raise UserError(f"{where}: not a readable image ({reason}); replace or remove the file") from error
