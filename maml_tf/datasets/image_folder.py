"""Any few-shot data set laid out as `train/val/test/<class>/<image>`."""

import dataclasses
import pathlib

from maml_tf.datasets import image_bank, locate, splits

CHANNELS = 3


def load_part(data_dir, part, class_split, size):
  """The bank of one part; see `records.DataSet.load`."""
  del class_split
  check_disjoint(data_dir)
  return load(data_dir, locate.cache_folder(data_dir), part, size, CHANNELS)


def load(folder, cache_dir, split, size, channels):
  """The bank of one split of a folder, any number of images per class.

  Args:
    folder: holds train, val and test.
    cache_dir: where the decoded images are kept.
    split: "train", "val" or "test".
    size: (height, width) that images are resized to.
    channels: 1 or 3.
  """
  folder = pathlib.Path(folder)
  locate.check_folder(folder, locate.check_split_folders)
  files = [(name, path) for name, paths in locate.class_folders(folder / split) for path in paths]
  source = image_bank.files_source(f"{folder.name}-{split}", folder, files)
  bank = image_bank.load(source, cache_dir, size, channels)
  return dataclasses.replace(bank, passed_over=locate.passed_over(folder / split))


def check_disjoint(folder):
  """Raises where a class is in two splits."""
  folder = pathlib.Path(folder)
  of = {split: {name for name, _ in locate.class_folders(folder / split)} for split in locate.SPLITS}
  splits.check_disjoint(of, lambda split: f"{folder / split}/")
