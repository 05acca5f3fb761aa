"""The data sets, each described once. Imports neither TensorFlow nor NumPy: what is missing is said within seconds."""

import dataclasses
import importlib
import pathlib
from collections.abc import Callable

from maml_tf.datasets import locate
from maml_tf.errors import UserError


@dataclasses.dataclass(frozen=True)
class DataSet:
  """A data set of images by class, divided into "train", "val" and "test".

  Attributes:
    name: what a user calls it.
    image_shape: (H, W, C) of the images, where no other size is asked for.
    rotations: whether `tasks.Episodes` turns the images of a class by random quarter turns.
    invert: whether `tasks.Episodes` inverts pixels.
    loader: "module:function", imported on first use: (data_dir, part, class_split, (height, width)) -> `ImageBank`.
    layout: function of a `pathlib.Path` that raises where the folder does not hold the data set.
    class_splits: the ways to divide the classes, the usual one first.
    training_folder: where the files that training uses lie below `data_dir`, if the name does not say which they are.
  """

  name: str
  image_shape: tuple
  rotations: bool
  invert: bool
  loader: str
  layout: Callable
  class_splits: tuple = ("published",)
  training_folder: str | None = None

  def shape(self, image_size=None):
    """(H, W, C) of the images.

    Args:
      image_size: height and width to resize to; None: those of the data set.

    Raises:
      UserError: no size of an image.
    """
    if image_size is None:
      return self.image_shape
    if not isinstance(image_size, int) or image_size < 1:
      raise UserError(f"image_size={image_size}: expected a whole number of pixels, 1 or more")
    return (image_size, image_size, self.image_shape[2])

  def check(self, data_dir):
    """Refuses a folder that does not hold the data set, with what to put where and how; within seconds.

    Omniglot, MNIST and CIFAR-100 may be missing where a network is there to fetch them.

    Raises:
      UserError: one line that begins with `data_dir=` or a path.
    """
    locate.check_folder(data_dir, self.layout)

  def load(self, data_dir, part, class_split="published", image_size=None):
    """The images of one part, and of no other.

    Args:
      data_dir: the folder of the data sets.
      part: "train", "val" or "test".
      class_split: one of `class_splits`.
      image_size: height and width to resize to; None: those of the data set.

    Returns:
      `ImageBank`, uint8 [M, H, W, C].

    Raises:
      UserError: the data is not there, or not as it should be.
    """
    if part not in locate.SPLITS:
      raise ValueError(f"part={part!r}: expected one of {', '.join(locate.SPLITS)}")
    if class_split not in self.class_splits:
      raise UserError(f"class_split={class_split}: {self.name} has {', '.join(self.class_splits)}")
    height, width, _ = self.shape(image_size)
    self.check(data_dir)
    module, function = self.loader.split(":")
    return getattr(importlib.import_module(module), function)(data_dir, part, class_split, (height, width))

  def fingerprint(self, data_dir):
    """A hash of the training images' names and sizes, or None where the data set's name says which they are."""
    if self.training_folder is None:
      return None
    return locate.contents_hash(pathlib.Path(data_dir) / self.training_folder)


DATASETS = {
  data_set.name: data_set
  for data_set in (
    # Turned and inverted: cbfinn/maml, data_generator.py; appendix A.1 of Finn et al. 2017 has the 28 x 28.
    DataSet(
      "omniglot", (28, 28, 1), rotations=True, invert=True, loader="maml_tf.datasets.omniglot:load_part",
      layout=locate.check_omniglot, class_splits=("published", "alphabets"),
    ),
    DataSet(
      "miniimagenet", (84, 84, 3), rotations=False, invert=False, loader="maml_tf.datasets.miniimagenet:load_part",
      layout=locate.check_miniimagenet,
    ),
    DataSet(
      "folder", (84, 84, 3), rotations=False, invert=False, loader="maml_tf.datasets.image_folder:load_part",
      layout=locate.check_split_folders, training_folder="train",
    ),
    DataSet(
      "mnist", (28, 28, 1), rotations=False, invert=False, loader="maml_tf.datasets.mnist:load_part",
      layout=locate.check_mnist,
    ),
    DataSet(
      "cifar100", (32, 32, 3), rotations=False, invert=False, loader="maml_tf.datasets.cifar100:load_part",
      layout=locate.check_cifar100,
    ),
  )
}  # fmt: skip
