"""Where data sets lie. This module imports neither TensorFlow nor NumPy: what is missing is said within seconds."""

import collections
import contextlib
import hashlib
import os
import pathlib
import re
import shlex

from maml_tf.datasets import splits
from maml_tf.datasets.splits import SPLITS
from maml_tf.errors import UserError

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff")
LEFT_BEHIND = ("thumbs.db", "desktop.ini")
OMNIGLOT_FOLDERS = ("images_background", "images_evaluation")
# The smallest of the archives that TFDS fetches; following its redirection reaches the host of the files too.
OMNIGLOT_URL = "https://github.com/brendenlake/omniglot/raw/master/python/images_background_small1.zip"
# keras/src/datasets/mnist.py
MNIST_URL = "https://storage.googleapis.com/tensorflow/tf-keras-datasets/mnist.npz"
# keras/src/datasets/cifar100.py
CIFAR100_URL = "https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz"


def omniglot(data_dir):
  """("tfds" or "png", folder) of Omniglot under `data_dir`, or None.

  Looked for: `tensorflow_datasets/omniglot/<version>/dataset_info.json` (as TFDS prepares it; what it has not finished
  has another name), and Lake's layout, `omniglot/images_background/<alphabet>/<character>/*.png` with
  `images_evaluation` beside it.
  """
  data_dir = pathlib.Path(data_dir)
  prepared = (data_dir / "tensorflow_datasets" / "omniglot").glob("*/dataset_info.json")
  prepared = [file.parent for file in prepared if file.is_file() and re.fullmatch(r"\d+\.\d+\.\d+", file.parent.name)]
  if prepared:
    return "tfds", max(prepared, key=lambda folder: [int(number) for number in folder.name.split(".")])
  images = data_dir / "omniglot"
  if all((images / part).is_dir() for part in OMNIGLOT_FOLDERS):
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
  if any(path.is_dir() for path in folder.glob("n[0-9]*")):
    return "imagenet", folder
  return None


def mnist(data_dir):
  """The file of MNIST: `data_dir`/mnist/mnist.npz, else the one that Keras has downloaded before; or None."""
  candidates = (pathlib.Path(data_dir) / "mnist" / "mnist.npz", _fetched_by_keras() / "mnist.npz")
  return next((path for path in candidates if path.is_file()), None)


def cifar100(data_dir):
  """The archive of CIFAR-100, `data_dir`/[cifar100/]cifar-100-python.tar.gz; else the folder that Keras has unpacked.

  None where there is neither.
  """
  data_dir, name = pathlib.Path(data_dir), "cifar-100-python"
  archives = (data_dir / f"{name}.tar.gz", data_dir / "cifar100" / f"{name}.tar.gz")
  unpacked = (_fetched_by_keras() / "cifar-100-python-target" / name, _fetched_by_keras() / name)
  there = [path for path in archives if path.is_file()] + [path for path in unpacked if (path / "train").is_file()]
  return there[0] if there else None


def _fetched_by_keras():
  return pathlib.Path(os.environ.get("KERAS_HOME") or pathlib.Path.home() / ".keras") / "datasets"


def folders(folder):
  """Sorted paths of the folders in a folder; hidden ones do not count.

  Raises:
    UserError: the folder cannot be read, or a name in it is not UTF-8.
  """
  return [_named_in_utf8(path) for path in _entries(folder) if path.is_dir()]


def class_folders(folder):
  """Sorted (class name, [image paths]) of `<folder>/<class>/<image>`; hidden files and folders do not count.

  Raises:
    UserError: no class folder, or one without images or that cannot be read.
  """
  classes = [(path.name, _images(path)) for path in folders(folder)]
  for name, images in classes:
    if not images:
      suffixes = ", ".join(IMAGE_SUFFIXES)
      raise UserError(f"{folder}/{name}: no image in this class folder (looked for {suffixes}); fill or remove it")
  if not classes:
    raise UserError(f"{folder}: no class folder here; expected <class>/<image>")
  return classes


def check_folder(data_dir, layout):
  """Refuses a folder that does not hold a data set, with what to put where and how.

  Args:
    data_dir: the folder.
    layout: function of its path that raises where a data set is not in there.

  Raises:
    UserError: one line that begins with `data_dir=` or a path.
  """
  path = pathlib.Path(data_dir)
  if not data_dir:
    raise UserError("data_dir=: expected the name of a folder")
  if str(data_dir).startswith("~"):  # else Omniglot would be downloaded into a folder of that name
    raise UserError(f"data_dir={data_dir}: the shell left the ~ as it is; write $HOME instead")
  shown = printable(data_dir).replace("\0", "\\x00")
  if shown != str(data_dir):
    raise UserError(f"data_dir={shown}: expected the name of a folder in UTF-8, without a NUL; name another")
  try:
    if path.exists() and not path.is_dir():
      raise UserError(f"data_dir={data_dir}: this is a file, a folder was expected; name the folder of the data sets")
    if path.is_dir() and not os.access(path, os.R_OK | os.X_OK):
      raise UserError(f"data_dir={data_dir}: permission denied; make the folder readable, or name another")
    layout(path)
  except OSError as error:
    advice = "make it readable, or name another folder"
    raise UserError(f"data_dir={data_dir}: {error.filename}: {error.strerror}; {advice}") from error


def check_omniglot(path):
  """The `layout` of Omniglot; it may be missing where a network is there to fetch it, see `omniglot.prepare`."""
  if omniglot(path) is None:
    _refuse_half(path / "omniglot", OMNIGLOT_FOLDERS)
    if _looks_like_its_own_folder(path) or not reachable(OMNIGLOT_URL):
      raise UserError(missing_omniglot(path))


def check_miniimagenet(path):
  """The `layout` of miniImageNet."""
  found = miniimagenet(path)
  if found is None:
    _refuse_half(path / "miniimagenet", SPLITS)
    raise UserError(missing_miniimagenet(path))
  kind, folder = found
  if kind == "folders":
    names = {split: [path.name for path in folders(folder / split)] for split in SPLITS}
    splits.check_miniimagenet_folders(folder, names)
  else:
    splits.check_lists(path / "miniimagenet")


def check_split_folders(path):
  """The `layout` of `{train,val,test}/<class>/<image>`."""
  expected = "expected {train,val,test}/<class>/<image>; which classes go where is yours to choose"
  advice = (
    f"mkdir -p {shlex.quote(str(path))}/{{train,val,test}}, then move or link each class's folder into one of the three"
  )
  if not path.exists():
    raise UserError(f"data_dir={path}: no such folder; {expected}: {advice}")
  absent = [part for part in SPLITS if not (path / part).is_dir()]
  if absent:
    raise UserError(f"data_dir={path}: no folder {absent[0]}/ here; {expected}: {advice}")


def check_mnist(path):
  """The `layout` of MNIST; it may be missing where a network is there to fetch it."""
  if mnist(path) is None and not reachable(MNIST_URL):
    raise UserError(
      f"data_dir={path}: {_absence(path, 'MNIST')} (looked for mnist/mnist.npz, and for what Keras has fetched), and "
      f"storage.googleapis.com, to download it from, does not answer; put there what {MNIST_URL} is"
    )


def check_cifar100(path):
  """The `layout` of CIFAR-100; it may be missing where a network is there to fetch it."""
  if cifar100(path) is None and not reachable(CIFAR100_URL):
    raise UserError(
      f"data_dir={path}: {_absence(path, 'CIFAR-100')} (looked for cifar-100-python.tar.gz, here and in cifar100/, and "
      "for what Keras has fetched), and www.cs.toronto.edu, to download it from, does not answer; put there what "
      f"{CIFAR100_URL} is"
    )


def missing_omniglot(data_dir):
  """What to say where Omniglot is not found."""
  prepared = str(pathlib.Path(data_dir) / "tensorflow_datasets")
  code = f"import tensorflow_datasets as tfds; tfds.load('omniglot', data_dir='{prepared}')"
  asked = "" if _looks_like_its_own_folder(data_dir) else ", and github.com, to download it from, does not answer"
  return (
    f"data_dir={data_dir}: {_absence(data_dir, 'Omniglot')} (looked for {prepared}/omniglot, as TensorFlow Datasets "
    "prepares it, and for omniglot/images_background with images_evaluation beside it, as in Lake's archives)"
    f"{asked}; put one of the two there, name another folder, or fetch it where there is a network with: "
    f'python -c "{code}"'
  )


def missing_miniimagenet(data_dir):
  """What to say where miniImageNet is not found."""
  folder, absence = pathlib.Path(data_dir) / "miniimagenet", _absence(data_dir, "miniImageNet")
  return (
    f"data_dir={data_dir}: {absence} (looked in {folder} for {{train,val,test}}/<class>/*.jpg, for images/*.jpg as "
    "the lists of Ravi and Larochelle name them, and for ImageNet's own class folders); its images are ImageNet's and "
    "cannot be downloaded for you: put one of the three there, or name another folder; with ImageNet at hand, link "
    f"its class folders: mkdir -p {folder} && ln -s /path/to/ILSVRC2012/train/n* {folder}/, and put the three lists "
    f"there, from {splits.LISTS_URL}"
  )


def reachable(url, seconds=3.0):
  """Whether an address answers, through the proxy that the environment names, as TFDS' own downloads go."""
  import threading
  import urllib.request

  answered = []

  def ask():
    with contextlib.suppress(Exception):  # whatever it is, there is nothing to be had from there
      request = urllib.request.Request(url, method="HEAD")
      with urllib.request.urlopen(request, timeout=seconds):
        answered.append(True)

  # In a thread, since looking up a name can take much longer than `timeout`, which does not cover it.
  thread = threading.Thread(target=ask, daemon=True)
  thread.start()
  thread.join(seconds)
  return bool(answered)


def passed_over(folder):
  """How many files in the class folders of `folder` are no images by their names: dict of suffix to number.

  Hidden files and what Windows and macOS leave in folders do not count.
  """
  files = (path for inside in folders(folder) for path in _entries(inside) if path.is_file())
  others = (
    path for path in files if path.suffix.lower() not in IMAGE_SUFFIXES and path.name.lower() not in LEFT_BEHIND
  )
  return dict(sorted(collections.Counter(printable(path.suffix.lower() or path.name) for path in others).items()))


def contents_hash(folder):
  """A short hash of the images in the class folders of `folder`, names and sizes, from a listing alone.

  What is passed over (.DS_Store, Thumbs.db, a text) does not count: it would make another run of the same images.
  """
  files = (path for folder in folders(folder) for path in _images(folder) if path.is_file())
  lines = sorted(f"{path.parent.name}/{path.name} {path.stat().st_size}" for path in files)
  return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def printable(path):
  """A path as text that can be written anywhere: bytes that are not UTF-8 become escapes."""
  return os.fsencode(path).decode("utf-8", "backslashreplace")


def cache_folder(data_dir):
  """Where decoded images are kept: in `data_dir` where that can be written, else in the user's own cache."""
  data_dir = pathlib.Path(data_dir)
  there = data_dir / "maml_tf_cache"
  if os.access(there if there.is_dir() else data_dir, os.W_OK | os.X_OK):
    return there
  return pathlib.Path.home() / ".cache" / "maml_tf" / "banks"


def _refuse_half(folder, parts):
  """Refuses a folder that has some of its parts and not the others."""
  there = [part for part in parts if (folder / part).is_dir()]
  absent = [part for part in parts if part not in there]
  if there and absent:
    raise UserError(f"{folder}: {there[0]}/ is there, {absent[0]}/ is missing; put it beside the other")


def pictures(folder):
  """Sorted paths of the images that lie in a folder; hidden files do not count.

  Raises:
    UserError: the folder cannot be read, or a name in it is not UTF-8.
  """
  return [path for path in _images(folder) if not path.is_dir()]


def _images(folder):
  return [_named_in_utf8(path) for path in _entries(folder) if path.suffix.lower() in IMAGE_SUFFIXES]


def _named_in_utf8(path):
  """The path, unless its last part is bytes that are no text: then no file of a run could name it."""
  try:
    path.name.encode()
  except UnicodeEncodeError as error:
    raise UserError(f"{printable(path)}: this name is not UTF-8; rename it") from error
  return path


def _entries(folder):
  try:
    return sorted(path for path in pathlib.Path(folder).iterdir() if path.name[0] != ".")
  except OSError as error:
    raise UserError(f"{folder}: {error.strerror}; expected a folder that can be read") from error


def _absence(data_dir, name):
  if not pathlib.Path(data_dir).exists():
    return "no such folder"
  if _looks_like_its_own_folder(data_dir):
    return f"no {name} here, though this looks like a data set's own folder: name the folder that holds it"
  return f"no {name} here"


def _looks_like_its_own_folder(path):
  return any((pathlib.Path(path) / inside).exists() for inside in ("images_background", *SPLITS))
