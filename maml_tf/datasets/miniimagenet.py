"""miniImageNet (Vinyals et al. 2016) in the split of Ravi and Larochelle (2017): 64/16/20 classes of 600 images."""

import re

from maml_tf.datasets import image_bank, locate, splits
from maml_tf.errors import UserError

SIZE = (84, 84)


def load_part(data_dir, part, class_split, size):
  """The bank of one part; see `records.DataSet.load`."""
  del class_split
  return load(data_dir, locate.cache_folder(data_dir), part, size)


def load(data_dir, cache_dir, split, size=SIZE):
  """The bank of one split.

  Args:
    data_dir: looked through as `locate.miniimagenet` says. Where the images do not lie in split folders, the lists of
      Ravi and Larochelle, `{train,val,test}.csv` in `data_dir`/miniimagenet, say which ones are meant.
    cache_dir: where the decoded images are kept.
    split: "train", "val" or "test".
    size: (height, width) that images are resized to.

  Returns:
    `ImageBank`, uint8 [classes * 600, height, width, 3].

  Raises:
    UserError: not found, or not all of that split.
  """
  locate.check_folder(data_dir, locate.check_miniimagenet)
  kind, folder = locate.miniimagenet(data_dir)
  if kind == "folders":
    files = [(name, path) for name, paths in locate.class_folders(folder / split) for path in paths]
  else:
    listed = splits.miniimagenet(split, folder if kind == "imagenet" else folder.parent)
    files = {"flat": _flat_files, "imagenet": _imagenet_files}[kind](folder, listed)
  source = image_bank.files_source(f"miniimagenet-{split}", folder, files)
  return image_bank.load(source, cache_dir, size, channels=3, expected_size=splits.MINIIMAGENET_PER_CLASS)


def _flat_files(folder, listed):
  """(class, path) of each listed file, all in one folder."""
  there = {path.name for path in folder.iterdir()}
  for name in (name for names in listed.values() for name in names):
    if name not in there:
      raise UserError(f"{folder / name}: this image of the list is missing; copy it there")
  return [(label, folder / name) for label, names in listed.items() for name in names]


def _imagenet_files(folder, listed):
  """(class, path) of each listed file, among ImageNet's own.

  ImageNet calls an image <wnid>_<number>.JPEG, with gaps between the numbers. The lists call it <wnid><place>.jpg, the
  place counted from 1 in the order of ImageNet's numbers. The lists' authors never said so; it is how public code
  prepares the data: yaoyao-liu/mini-imagenet-tools, mini_imagenet_generator.py; wyharveychen/CloserLookFewShot,
  filelists/miniImagenet/write_miniImagenet_filelist.py; open-mmlab/mmfewshot, classification/datasets/mini_imagenet.py.
  """
  files = []
  for label, names in listed.items():
    ordered = _in_imagenets_order(folder / label, label)
    places = [_place(name, label) for name in names]
    if max(places) > len(ordered):
      raise UserError(
        f"{folder / label}: {len(ordered)} images, but the list counts up to the {max(places)}th; put all training "
        "images of this class there, as ILSVRC 2012 has them"
      )
    files += [(label, ordered[place - 1]) for place in places]
  return files


def _in_imagenets_order(folder, label):
  if not folder.is_dir():
    raise UserError(f"{folder}: this class folder of ImageNet is missing; put or link it there")
  numbered = {}
  for path in folder.iterdir():
    match = re.fullmatch(rf"{label}_(\d+)\.jpe?g", path.name, re.IGNORECASE)
    if match:
      numbered[int(match[1])] = path
  return [numbered[number] for number in sorted(numbered)]


def _place(name, label):
  match = re.fullmatch(rf"{label}(\d{{8}})\.jpg", name)
  if match is None or int(match[1]) == 0:
    raise UserError(f"{name}: not a name of the lists, expected {label}<8 digits>.jpg; correct the list")
  return int(match[1])
