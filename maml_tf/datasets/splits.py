"""The committed lists of classes and images, and what they say about folders. No NumPy and no TensorFlow here."""

import csv
import functools
import gzip
import json
import pathlib

from maml_tf.errors import UserError

SPLITS = ("train", "val", "test")
MINIIMAGENET_CLASSES = {"train": 64, "val": 16, "test": 20}
MINIIMAGENET_PER_CLASS = 600


def path(name):
  """Where a committed file of data/ lies: in the package where a wheel was installed, else in the checkout."""
  installed = pathlib.Path(__file__).with_name("split_files") / name
  return installed if installed.is_file() else pathlib.Path(__file__).parents[2] / "data" / name


def omniglot():
  """Dict of "train", "val" and "test" to names of characters, and "evaluation_alphabets" to names of alphabets."""
  return json.loads(path("omniglot_split.json").read_text(encoding="utf-8"))


def miniimagenet(split, folder=None):
  """The images of one split by class, in the order of the list.

  Args:
    split: "train", "val" or "test".
    folder: where a list of the user's own, `<split>.csv`, wins over the committed one; None: the committed one.

  Returns:
    Dict of class (WordNet id) to file names, `<wnid><8 digits>.jpg`.

  Raises:
    UserError: the user's own list cannot be read.
  """
  own = pathlib.Path(folder) / f"{split}.csv" if folder is not None else None
  if own is None or not own.is_file():
    return _committed(split)
  try:
    with open(own, encoding="utf-8-sig", newline="") as file:
      listed = _by_class(file)
  except (OSError, KeyError, UnicodeDecodeError, csv.Error) as error:
    raise UserError(f"{own}: cannot be read as a list of images, with columns filename and label ({error})") from error
  if len(listed) != MINIIMAGENET_CLASSES[split]:
    expected = f"expected {MINIIMAGENET_CLASSES[split]}, as miniImageNet has"
    raise UserError(f"{own}: {len(listed)} classes, {expected}; without this file the package's own list is used")
  return listed


def check_lists(folder):
  """Refuses lists, the user's own or with them, that have a class in two splits."""
  of = {split: miniimagenet(split, folder) for split in SPLITS}
  check_disjoint(of, lambda split: pathlib.Path(folder) / f"{split}.csv")


def check_disjoint(of, name_of):
  """Refuses a class that is in two splits.

  Args:
    of: dict of split to its class names.
    name_of: function from a split to what a message calls it.
  """
  for one, other in (("train", "val"), ("train", "test"), ("val", "test")):
    shared = set(of[one]) & set(of[other])
    if shared:
      raise UserError(f"{name_of(one)}: class {min(shared)} is in {name_of(other)} too; leave it in one of the two")


def check_miniimagenet_folders(folder, names):
  """Refuses split folders whose classes are not those of the lists.

  Args:
    folder: holds train, val and test.
    names: dict of split to the names of the class folders there.

  Raises:
    UserError: the message names a class folder.
  """
  of = {split: miniimagenet(split, folder) for split in SPLITS}
  for split in SPLITS:
    for name in sorted(set(names[split]) - set(of[split])):
      right = [other for other in SPLITS if name in of[other]]
      what = f"this class belongs to {right[0]}/; move it there" if right else "no class of miniImageNet; remove it"
      raise UserError(f"{folder / split / name}: {what} (other classes are for the data set `folder`)")
  for split in SPLITS:
    missing = sorted(set(of[split]) - set(names[split]))
    if missing:
      raise UserError(
        f"{folder / split}: {len(of[split]) - len(missing)} classes, miniImageNet has {len(of[split])} here; copy the "
        f"missing ones there, the first is {missing[0]}"
      )


@functools.cache
def _committed(split):
  with gzip.open(path(f"miniimagenet_{split}.csv.gz"), "rt", encoding="utf-8", newline="") as file:
    return _by_class(file)


def _by_class(file):
  listed = {}
  for row in csv.DictReader(file):
    if not (row["label"] and row["filename"]):
      raise KeyError("an empty field")
    listed.setdefault(row["label"], []).append(row["filename"])
  return listed
