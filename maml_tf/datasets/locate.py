"""Where data sets lie. This module imports neither TensorFlow nor NumPy: what is missing is said within a second."""

import hashlib
import os
import pathlib

from maml_tf.errors import UserError

SPLITS = ("train", "val", "test")
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff")


def omniglot(data_dir):
  """("tfds" or "png", folder) of Omniglot under `data_dir`, or None.

  Looked for: `tensorflow_datasets/omniglot/<version>/dataset_info.json` (as TFDS prepares it), and Lake's layout,
  `omniglot/images_background/<alphabet>/<character>/*.png` with `images_evaluation` beside it.
  """
  data_dir = pathlib.Path(data_dir)
  prepared = data_dir / "tensorflow_datasets"
  if any(prepared.glob("omniglot/*/dataset_info.json")):
    return "tfds", prepared
  images = data_dir / "omniglot"
  if all((images / part).is_dir() for part in ("images_background", "images_evaluation")):
    return "png", images
  return None


def miniimagenet(data_dir):
  """("folders", "flat" or "imagenet", folder) of miniImageNet under `data_dir`/miniimagenet, or None.

  Looked for: `{train,val,test}/<wnid>/*`; one folder `images/` with the files that the Ravi and Larochelle lists name;
  `<wnid>/*` folders of ImageNet itself.
  """
  folder = pathlib.Path(data_dir) / "miniimagenet"
  if all((folder / split).is_dir() for split in SPLITS):
    return "folders", folder
  if (folder / "images").is_dir():
    return "flat", folder / "images"
  if any(folder.glob("n[0-9]*/")):
    return "imagenet", folder
  return None


def class_folders(folder):
  """Sorted (class name, [image paths]) of `<folder>/<class>/<image>`.

  Raises:
    UserError: no class folder, or one without images.
  """
  classes = []
  for path in sorted(pathlib.Path(folder).iterdir()):
    if path.is_dir() and not path.name.startswith("."):
      images = sorted(file for file in path.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES)
      if not images:
        raise UserError(f"{path}: no image in this class folder (looked for {', '.join(IMAGE_SUFFIXES)})")
      classes.append((path.name, images))
  if not classes:
    raise UserError(f"{folder}: no class folder here; expected <class>/<image>")
  return classes


def check(datasource, data_dir):
  """Refuses a folder that does not hold the data set, with what to put where and how.

  Args:
    datasource: "omniglot", "miniimagenet" or "folder".
    data_dir: the folder.

  Raises:
    UserError: one line that begins with the flag.
  """
  path = pathlib.Path(data_dir)
  if not data_dir:
    raise UserError("--data_dir=: expected the name of a folder")
  if path.exists() and not path.is_dir():
    raise UserError(f"--data_dir={data_dir}: this is a file, a folder was expected; name the folder of the data sets")
  if path.is_dir() and not os.access(path, os.R_OK | os.X_OK):
    raise UserError(f"--data_dir={data_dir}: permission denied; make the folder readable, or name another")
  if datasource == "folder":
    _check_split_folders(path)
  elif {"omniglot": omniglot, "miniimagenet": miniimagenet}[datasource](path) is None:
    raise UserError({"omniglot": missing_omniglot, "miniimagenet": missing_miniimagenet}[datasource](data_dir))


def missing_omniglot(data_dir):
  """What to say where Omniglot is not found."""
  prepared = str(pathlib.Path(data_dir) / "tensorflow_datasets")
  code = f"import tensorflow_datasets as tfds; tfds.load('omniglot', data_dir='{prepared}')"
  return (
    f"--data_dir={data_dir}: {_absence(data_dir, 'Omniglot')} (looked for {prepared}/omniglot, as TensorFlow Datasets "
    "prepares it, and for omniglot/images_background with images_evaluation beside it, as in Lake's archives); put one "
    f'of the two there, name another folder, or, with a network, fetch it with: python -c "{code}"'
  )


def missing_miniimagenet(data_dir):
  """What to say where miniImageNet is not found."""
  folder, absence = pathlib.Path(data_dir) / "miniimagenet", _absence(data_dir, "miniImageNet")
  return (
    f"--data_dir={data_dir}: {absence} (looked in {folder} for {{train,val,test}}/<class>/*.jpg, for images/*.jpg with "
    "the lists {train,val,test}.csv beside it, and for ImageNet's own class folders with these lists); its images are "
    "ImageNet's and cannot be downloaded for you: put one of the three there, or name another folder; with ImageNet at "
    "hand, copy the lists of github.com/twitter-research/meta-learning-lstm (data/miniImagenet/*.csv) there and link "
    f"its class folders: ln -s /path/to/ILSVRC2012/train/n* {folder}/"
  )


def _check_split_folders(path):
  if not path.exists():
    raise UserError(f"--data_dir={path}: no such folder; expected {{train,val,test}}/<class>/<image> in it")
  absent = [part for part in SPLITS if not (path / part).is_dir()]
  if absent:
    raise UserError(f"--data_dir={path}: no folder {absent[0]}/ here; expected {{train,val,test}}/<class>/<image>")


def _absence(data_dir, name):
  path = pathlib.Path(data_dir)
  if not path.exists():
    return "no such folder"
  if any((path / inside).exists() for inside in ("images_background", *SPLITS)):
    return f"no {name} here, though this looks like a data set's own folder: name the folder that holds it"
  return f"no {name} here"


def class_names_hash(folder):
  """A short hash of the names of the class folders in `folder`, from a listing alone."""
  names = sorted(path.name for path in pathlib.Path(folder).iterdir() if path.is_dir() and path.name[0] != ".")
  return hashlib.sha256("\n".join(names).encode()).hexdigest()[:16]


def cache_folder(data_dir):
  """Where decoded images are kept: in `data_dir` where that can be written, else in the user's own cache."""
  data_dir = pathlib.Path(data_dir)
  there = data_dir / "maml_tf_cache"
  if os.access(there if there.is_dir() else data_dir, os.W_OK | os.X_OK):
    return there
  return pathlib.Path.home() / ".cache" / "maml_tf" / "banks"
