"""Embeddings of images: functions from images to vectors, fitted to images without labels."""

import dataclasses
import zipfile
from collections.abc import Callable

import numpy as np

from maml_tf.errors import UserError
from maml_tf.unsupervised import extras, kept
from maml_tf.unsupervised.records import EMBEDDINGS, is_array

DENSE_PIXELS = 2048  # up to so many numbers an image, their covariance matrix is small enough


@dataclasses.dataclass(frozen=True)
class Embedded:
  """A fitted embedding.

  Attributes:
    values: float32 [M, D], of the images that it was fitted to, in their order.
    fingerprint: of the values.
    transform: function of uint8 [n, H, W, C] -> float32 [n, D]; None for an array of the user's.
    parts: dict of "val" and "test" to the user's arrays of those images, where there are any.
  """

  values: np.ndarray
  fingerprint: str
  transform: Callable | None
  parts: dict = dataclasses.field(default_factory=dict)


def embed(embedding, images, cache_dir, size=None, seed=0, width=None, epochs=None):
  """Fits an embedding to images, or finds it in the cache.

  Args:
    embedding: a name of `records.EMBEDDINGS`, or the path of an array, see `from_file`.
    images: uint8 [M, H, W, C].
    cache_dir: where embeddings are kept.
    size: of the vectors; None: the embedding's own default.
    seed: Python integer, for embeddings that are trained.
    width: filters or units of the first layer of those; None: their own.
    epochs: of their training; None: their own.

  Returns:
    `Embedded`.

  Raises:
    UserError: an unknown name; a size that cannot be; an array that does not fit the images.
  """
  if is_array(embedding):
    return from_file(embedding, len(images))
  record = EMBEDDINGS.get(embedding)
  if record is None:
    raise UserError(f"embedding={embedding}: expected one of {', '.join(EMBEDDINGS)}, or a .npy or .npz file")
  settings = record.settings(size=size, seed=seed, width=width, epochs=epochs)
  model = record.load()(images.shape[1:], **settings)
  made_from = [embedding, settings, kept.fingerprint(images)]

  def make(folder):
    state = model.fit(images, folder)
    return {**state, "values": checked(model.transform(state, images), len(images), f"embedding={embedding}")}

  state = kept.arrays(cache_dir, f"embedding-{embedding}", made_from, make)
  values = state["values"]
  return Embedded(values, kept.fingerprint(values), lambda others: model.transform(state, others))


def from_file(path, num_images):
  """A user's own embedding.

  Args:
    path: a .npy file with an array [M, D], a row for each training image in the order of
      `datasets.records.DataSet.load_unlabelled`; or a .npz file with such an array as "train",
      and those of validation and test images, for the comparisons, as "val" and "test".
    num_images: M.

  Raises:
    UserError: it cannot be read, has another number of rows, or holds NaN.
  """
  where = f"embedding={path}"
  try:
    found = np.load(path, allow_pickle=False)
    parts = {"train": found} if isinstance(found, np.ndarray) else {name: found[name] for name in found.files}
  except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
    reason = getattr(error, "strerror", None) or error
    raise UserError(f"{where}: cannot be read ({reason}); expected numbers that numpy.save or savez wrote") from error
  if "train" not in parts:
    raise UserError(f"{where}: it holds {', '.join(parts) or 'nothing'}; expected an array named train")
  values = checked(parts["train"], num_images, where)
  others = {part: checked(parts[part], None, where) for part in ("val", "test") if part in parts}
  for part, array in others.items():
    if array.shape[1] != values.shape[1]:
      raise UserError(
        f"{where}: {part} has {array.shape[1]} columns, train has {values.shape[1]}; they must be as many"
      )
  return Embedded(values, kept.fingerprint(values), None, others)


def checked(values, num_images, where):
  """float32 [M, D], refused where it is no embedding of so many images (None: of any number).

  Raises:
    UserError: the message begins with `where`.
  """
  if values.ndim != 2 or values.dtype.kind not in "biuf" or values.shape[1] == 0:
    found = f"{values.dtype} {list(values.shape)}"
    raise UserError(f"{where}: it is {found}; expected numbers [M, D], a row for each image (of maps, reshape(M, -1))")
  if num_images is not None and len(values) != num_images:
    raise UserError(f"{where}: {len(values)} rows for {num_images} training images; give each its row, in their order")
  finite = np.isfinite(values).all(axis=1)
  if not finite.all():
    raise UserError(f"{where}: row {int(finite.argmin())} holds NaN or an infinite number; embed that image anew")
  return np.ascontiguousarray(values, np.float32)


def flat_pixels(images):
  """float32 [M, H * W * C] in [0, 1]."""
  return images.reshape(len(images), -1).astype(np.float32) / 255


class Pixels:
  """The pixels themselves, in [0, 1]."""

  def __init__(self, image_shape):
    del image_shape

  def fit(self, images, folder):
    del images, folder
    return {}

  def transform(self, state, images):
    del state
    return flat_pixels(images)


class ZCA:
  """Pixels of even contrast, whitened: what Hsu et al. 2019 divide into clusters in place of an embedding.

  Each image less its mean, over its deviation (the variance plus 10, of pixels from 0 to 255); then ZCA.
  """

  VARIANCE, EPSILON = 10.0, 1e-5

  def __init__(self, image_shape):
    if np.prod(image_shape) > DENSE_PIXELS:
      shape = " x ".join(map(str, image_shape))
      raise UserError(f"embedding=zca: images of {shape} are too large to whiten; make them smaller (image_size=24)")

  def fit(self, images, folder):
    del folder
    x = self._even(images)
    mean = x.mean(axis=0)
    values, vectors = np.linalg.eigh(np.cov(x - mean, rowvar=False))
    whiten = (vectors / np.sqrt(np.maximum(values, 0) + self.EPSILON)) @ vectors.T
    return {"mean": mean, "whiten": whiten.astype(np.float32)}

  def transform(self, state, images):
    return (self._even(images) - state["mean"]) @ state["whiten"]

  def _even(self, images):
    x = images.reshape(len(images), -1).astype(np.float32)
    return (x - x.mean(axis=1, keepdims=True)) / np.sqrt(x.var(axis=1, keepdims=True) + self.VARIANCE)


class PCA:
  """The first principal components of the pixels, not whitened (whitened, nearest neighbours are far worse)."""

  def __init__(self, image_shape, size):
    self.size = size
    most = int(np.prod(image_shape))
    if size > most:
      raise UserError(f"embedding_size={size}: expected at most {most}, the numbers of an image")

  def fit(self, images, folder):
    del folder
    if self.size > len(images):
      raise UserError(f"embedding_size={self.size}: expected at most {len(images)}, the number of images")
    x = flat_pixels(images)
    solver = "covariance_eigh" if x.shape[1] <= DENSE_PIXELS else "randomized"
    with extras.one_thread():
      found = extras.scikit_learn("decomposition").PCA(self.size, svd_solver=solver, random_state=0).fit(x)
    return {"mean": found.mean_.astype(np.float32), "components": found.components_.astype(np.float32)}

  def transform(self, state, images):
    return (flat_pixels(images) - state["mean"]) @ state["components"].T
