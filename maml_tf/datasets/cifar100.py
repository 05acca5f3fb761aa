"""CIFAR-100 (Krizhevsky 2009): 100 classes of 500 images for training and 100 for the test, 32 x 32.

Every part has all classes, from disjoint images: the last 50 training images of a class are those for validation.
"""

import pickle
import sys
import tarfile

import numpy as np

from maml_tf.datasets import image_bank, locate
from maml_tf.errors import UserError

CLASSES, TRAIN_PER_CLASS, TEST_PER_CLASS, VALIDATION_PER_CLASS = 100, 500, 100, 50
SIZE = (32, 32)
FOLDER = "cifar-100-python"


def load_part(data_dir, part, class_split, size):
  """The bank of one part.

  Args:
    data_dir: where `cifar-100-python.tar.gz` is looked for, the data set's own archive, here or in `cifar100/`; then
      comes what Keras has downloaded before, or downloads now.
    part: "train", "val" or "test".
    class_split: "published".
    size: (height, width) to resize to, with Lanczos filtering.

  Returns:
    `ImageBank`, uint8 [M, height, width, 3]; within a class the images are in the order of the archive.

  Raises:
    UserError: no archive, or it cannot be read.
  """
  del class_split
  source = locate.cifar100(data_dir) or _download(data_dir)
  images, labels = _read(source, "test" if part == "test" else "train")
  by_class = images[np.argsort(labels, kind="stable")].reshape(CLASSES, -1, *SIZE, 3)
  if part != "test":
    by_class = by_class[:, :-VALIDATION_PER_CLASS] if part == "train" else by_class[:, -VALIDATION_PER_CLASS:]
  names = _names(source)
  offsets = by_class.shape[1] * np.arange(CLASSES + 1)
  return image_bank.ImageBank(image_bank.resize(by_class.reshape(-1, *SIZE, 3), size), names, offsets)


def _read(source, name):
  """(uint8 [M, 32, 32, 3], labels [M]) of "train" or "test"."""
  count = CLASSES * (TEST_PER_CLASS if name == "test" else TRAIN_PER_CLASS)
  content = _unpickled(source, name)
  try:
    pixels, labels = np.asarray(content[b"data"]), np.asarray(content[b"fine_labels"])
  except (KeyError, TypeError, ValueError) as error:
    raise UserError(f"{source}: {FOLDER}/{name} has no images and labels ({error!r}); fetch it anew") from error
  if pixels.shape != (count, 3 * SIZE[0] * SIZE[1]) or pixels.dtype != np.uint8 or labels.shape != (count,):
    found = f"{pixels.dtype} {list(pixels.shape)} and {list(labels.shape)}"
    raise UserError(f"{source}: {FOLDER}/{name} holds {found}, expected {count:,} images and labels; fetch it anew")
  if (np.bincount(labels, minlength=CLASSES) != count // CLASSES).any():
    raise UserError(f"{source}: {FOLDER}/{name} has not {count // CLASSES} images of each class; fetch it anew")
  return pixels.reshape(-1, 3, *SIZE).transpose(0, 2, 3, 1), labels


def _names(source):
  names = _unpickled(source, "meta").get(b"fine_label_names", ())
  if len(names) != CLASSES:
    raise UserError(f"{source}: {FOLDER}/meta names {len(names)} classes, expected {CLASSES}; fetch it anew")
  return tuple(name.decode() if isinstance(name, bytes) else name for name in names)


class _Arrays(pickle.Unpickler):
  """Reads pickles of Python 2 with NumPy arrays in them, and nothing else: a pickle can run any program."""

  allowed = ("_reconstruct", "ndarray", "dtype")

  def find_class(self, module, name):
    if module.partition(".")[0] == "numpy" and name in self.allowed:
      if name == "_reconstruct":
        return np.ndarray.__reduce__(np.zeros(0))[0]
      return getattr(np, name)
    raise pickle.UnpicklingError(f"it asks for {module}.{name}")


def _unpickled(source, name):
  """The dict in a file of the archive, or of the folder that Keras unpacked it to."""
  try:
    if source.is_dir():
      with open(source / name, "rb") as file:
        return _Arrays(file, encoding="bytes").load()
    with tarfile.open(source) as archive, archive.extractfile(f"{FOLDER}/{name}") as file:
      return _Arrays(file, encoding="bytes").load()
  except Exception as error:  # of the archive, of gzip, of a pickle: each has its own
    raise UserError(f"{source}: cannot be read as CIFAR-100's archive ({error}); fetch it anew") from error


def _download(data_dir):
  import keras

  print("Downloading CIFAR-100 (169 MB), once", file=sys.stderr, flush=True)
  try:
    keras.datasets.cifar100.load_data()
  except Exception as error:  # of the network, of the disk, of Keras: each has its own
    if locate.cifar100(data_dir) is None:
      message = f"downloading CIFAR-100 failed ({type(error).__name__}: {error})"
      raise UserError(f"data_dir={data_dir}: {message}; try again, or put {FOLDER}.tar.gz there") from error
  return locate.cifar100(data_dir)
