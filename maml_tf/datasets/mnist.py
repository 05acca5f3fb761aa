"""MNIST (LeCun et al. 1998): ten digits, 60,000 images for training and 10,000 for the test, 28 x 28; ink is 255.

Every part has the ten digits, from disjoint images: the last 5,000 of the training images are those for validation.
"""

import sys
import zipfile

import numpy as np

from maml_tf.datasets import image_bank, locate
from maml_tf.errors import UserError

NUM_TRAIN, NUM_TEST, NUM_VALIDATION = 60_000, 10_000, 5_000
SIZE = (28, 28)
DIGITS = tuple("0123456789")


def load_part(data_dir, part, class_split, size):
  """The bank of one part.

  Args:
    data_dir: where `mnist/mnist.npz` is looked for, in the layout of Keras' own file; then comes what Keras has
      downloaded before, or downloads now.
    part: "train", "val" or "test".
    class_split: "published".
    size: (height, width) to resize to, with Lanczos filtering.

  Returns:
    `ImageBank`, uint8 [M, height, width, 1]; within a digit the images are in the order of the file.

  Raises:
    UserError: no such file, or it cannot be read.
  """
  del class_split
  path = locate.mnist(data_dir) or _download(data_dir)
  images, labels = _read(path, "test" if part == "test" else "train")
  if part != "test":
    chosen = slice(None, -NUM_VALIDATION) if part == "train" else slice(-NUM_VALIDATION, None)
    images, labels = images[chosen], labels[chosen]
  images = images[np.argsort(labels, kind="stable")][..., np.newaxis]
  offsets = np.cumsum([0, *np.bincount(labels, minlength=len(DIGITS))])
  return image_bank.ImageBank(image_bank.resize(images, size), DIGITS, offsets)


def _read(path, name):
  """(uint8 [M, 28, 28], labels [M]) of "train" or "test"."""
  expected = (NUM_TEST if name == "test" else NUM_TRAIN, *SIZE)
  try:
    with np.load(path, allow_pickle=False) as file:
      images, labels = file[f"x_{name}"], file[f"y_{name}"]
  except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
    raise UserError(f"{path}: cannot be read as Keras' file of MNIST ({error}); fetch it anew") from error
  if images.shape != expected or images.dtype != np.uint8 or labels.shape != expected[:1]:
    found = f"x_{name} is {images.dtype} {list(images.shape)}, y_{name} {list(labels.shape)}"
    raise UserError(f"{path}: {found}; MNIST has uint8 {list(expected)} and {list(expected[:1])}; fetch it anew")
  if not np.array_equal(np.unique(labels), np.arange(len(DIGITS))):
    raise UserError(f"{path}: y_{name} holds other labels than the digits 0 to 9; fetch it anew")
  return images, labels


def _download(data_dir):
  import keras

  print("Downloading MNIST (11 MB), once", file=sys.stderr, flush=True)
  try:
    keras.datasets.mnist.load_data()
  except Exception as error:  # of the network, of the disk, of Keras: each has its own
    if locate.mnist(data_dir) is None:
      message = f"downloading MNIST failed ({type(error).__name__}: {error})"
      raise UserError(f"data_dir={data_dir}: {message}; try again, or put mnist/mnist.npz there") from error
  return locate.mnist(data_dir)
