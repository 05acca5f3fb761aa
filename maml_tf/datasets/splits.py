"""Which classes and images are in which split, by committed and by the user's lists. No NumPy and no TensorFlow."""

import csv
import json
import pathlib

from maml_tf.errors import UserError

SPLITS = ("train", "val", "test")
MINIIMAGENET_PER_CLASS = 600
# Ravi and Larochelle's own, who chose the classes and images of each split (2017).
LISTS_URL = "https://github.com/twitter-research/meta-learning-lstm/tree/master/data/miniImagenet"


def path(name):
  """Where a committed file of data/ lies: in the package where a wheel was installed, else in the checkout."""
  installed = pathlib.Path(__file__).with_name("split_files") / name
  return installed if installed.is_file() else pathlib.Path(__file__).parents[2] / "data" / name


def omniglot():
  """Dict of "train", "val" and "test" to names of characters, and "evaluation_alphabets" to names of alphabets."""
  return json.loads(path("omniglot_split.json").read_text(encoding="utf-8"))


def miniimagenet_classes():
  """Dict of "train", "val" and "test" to the names (WordNet ids) of miniImageNet's classes there."""
  return json.loads(path("miniimagenet_split.json").read_text(encoding="utf-8"))


def miniimagenet(split, folder):
  """The images of one split by class, in the order of the list of Ravi and Larochelle that the user has put there.

  Args:
    split: "train", "val" or "test".
    folder: holds the list, `<split>.csv`, with columns filename and label.

  Returns:
    Dict of class (WordNet id) to file names, `<wnid><8 digits>.jpg`.

  Raises:
    UserError: the list is missing, cannot be read, or is of other classes.
  """
  file = pathlib.Path(folder) / f"{split}.csv"
  if not file.is_file():
    raise UserError(
      f"{file}: this list is missing: ImageNet's own folders, or all images in one folder, need train.csv, val.csv and "
      f"test.csv there, the lists of Ravi and Larochelle, to say which images are miniImageNet's; copy them from "
      f"{LISTS_URL} ({{train,val,test}}/<class>/*.jpg need none)"
    )
  try:
    with open(file, encoding="utf-8-sig", newline="") as rows:
      listed = _by_class(rows)
  except (OSError, ValueError, KeyError, csv.Error) as error:  # UnicodeDecodeError is a ValueError
    reason = f"cannot be read as a list of images, with columns filename and label ({error})"
    raise UserError(f"{file}: {reason}; copy it anew from {LISTS_URL}") from error
  _check_listed(file, listed, miniimagenet_classes()[split])
  return listed


def _check_listed(file, listed, classes):
  strange = sorted(set(listed) - set(classes))
  if strange:
    raise UserError(
      f"{file}: class {strange[0]} is none of the {len(classes)} that miniImageNet has here; copy the list anew from "
      f"{LISTS_URL} (other classes are for the data set `folder`)"
    )
  missing = sorted(set(classes) - set(listed))
  if missing:
    raise UserError(
      f"{file}: {len(listed)} classes, miniImageNet has {len(classes)} here, the first missing one is {missing[0]}; "
      f"copy the list anew from {LISTS_URL}"
    )
  for name, files in listed.items():
    if len(files) != MINIIMAGENET_PER_CLASS or len(set(files)) != len(files):
      found = f"{len(files)} images of class {name}, {len(set(files))} of them different"
      raise UserError(f"{file}: {found}; {MINIIMAGENET_PER_CLASS} were expected; copy the list anew from {LISTS_URL}")


def check_lists(folder):
  """Refuses a folder without the lists of the three splits, or with others."""
  for split in SPLITS:
    miniimagenet(split, folder)


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
  """Refuses split folders whose classes are not those of miniImageNet.

  Args:
    folder: holds train, val and test.
    names: dict of split to the names of the class folders there.

  Raises:
    UserError: the message names a class folder.
  """
  of = miniimagenet_classes()
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


def _by_class(file):
  listed = {}
  for row in csv.DictReader(file):
    if not (row["label"] and row["filename"]):
      raise KeyError("an empty field")
    listed.setdefault(row["label"], []).append(row["filename"])
  return listed
