"""Where data sets lie. This module imports neither TensorFlow nor NumPy: what is missing is said within a second."""

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
