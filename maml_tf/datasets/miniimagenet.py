"""miniImageNet (Vinyals et al. 2016) in the split of Ravi and Larochelle (2017): 64/16/20 classes of 600 images."""

import csv
import pathlib

from maml_tf.datasets import image_bank, locate
from maml_tf.errors import UserError

SIZE = (84, 84)
NUM_CLASSES = {"train": 64, "val": 16, "test": 20}
PER_CLASS = 600


def load(data_dir, cache_dir, split, list_dir=None):
  """The bank of one split.

  Args:
    data_dir: looked through as `locate.miniimagenet` says.
    cache_dir: where the decoded images are kept.
    split: "train", "val" or "test".
    list_dir: folder of the Ravi and Larochelle lists, `{train,val,test}.csv`, for the layouts without split folders;
      None: `data_dir`/miniimagenet.

  Returns:
    `ImageBank`, uint8 [classes * 600, 84, 84, 3].

  Raises:
    UserError: not found, or not all of that split.
  """
  found = locate.miniimagenet(data_dir)
  if found is None:
    raise UserError(locate.missing_miniimagenet(data_dir))
  kind, folder = found
  list_dir = pathlib.Path(list_dir or pathlib.Path(data_dir) / "miniimagenet")
  if kind == "folders":
    files = [(name, path) for name, paths in locate.class_folders(folder / split) for path in paths]
  else:
    files = _listed_files(folder, list_dir / f"{split}.csv", by_class=kind == "imagenet")
  source = image_bank.files_source(f"miniimagenet-{split}", files)
  bank = image_bank.load(source, cache_dir, SIZE, channels=3, expected_size=PER_CLASS)
  if len(bank.names) != NUM_CLASSES[split]:
    raise UserError(f"{folder}: {len(bank.names)} {split} classes, miniImageNet has {NUM_CLASSES[split]}")
  return bank


def _listed_files(folder, list_file, by_class):
  """(class, path) for each row `filename,label` of a list."""
  try:
    with open(list_file, newline="", encoding="utf-8") as file:
      rows = [(row["label"], row["filename"]) for row in csv.DictReader(file)]
  except (OSError, KeyError) as error:
    raise UserError(f"{list_file}: cannot read the class list, columns filename and label ({error})") from error
  files = []
  for label, name in rows:
    # The lists number an image <wnid><8 digits>.jpg; ImageNet calls the same image <wnid>_<number>.JPEG.
    path = folder / label / f"{label}_{int(name[len(label) : -4])}.JPEG" if by_class else folder / name
    if not path.is_file():
      raise UserError(f"{path}: this image of {list_file.name} is missing")
    files.append((label, path))
  return files
