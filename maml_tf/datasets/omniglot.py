"""Omniglot (Lake et al. 2015): 1,623 characters of 50 alphabets, 20 drawings each, at 28 x 28 as in the paper."""

import json
import pathlib

from maml_tf.datasets import image_bank, locate
from maml_tf.errors import UserError

SIZE = (28, 28)
NUM_CLASSES, PER_CLASS = 1623, 20
SPLITS = ("published", "alphabets")


def load(data_dir, cache_dir, download=False):
  """The bank of all characters; classes are named `<alphabet>/character<NN>`, as Lake's folders are.

  Args:
    data_dir: looked through as `locate.omniglot` says.
    cache_dir: where the decoded images are kept.
    download: fetch it through TFDS where it is not there.

  Returns:
    `ImageBank`, uint8 [32460, 28, 28, 1], ink is 0.

  Raises:
    UserError: not found, or not all of Omniglot.
  """
  found = locate.omniglot(data_dir)
  if found is None and not download:
    raise UserError(locate.missing_omniglot(data_dir))
  kind, folder = found or ("tfds", pathlib.Path(data_dir) / "tensorflow_datasets")
  source = _from_tfds(folder) if kind == "tfds" else _from_folders(folder)
  bank = image_bank.load(source, cache_dir, SIZE, channels=1, expected_size=PER_CLASS)
  if len(bank.names) != NUM_CLASSES:
    raise UserError(f"{folder}: {len(bank.names)} characters, Omniglot has {NUM_CLASSES}; unpack it anew")
  return bank


def split(bank, name, split_file):
  """(train, validation, test) class names.

  Args:
    bank: of all characters.
    name: "published": 1,100/100/423 characters at random, as in the paper, from the committed list (the published
      code shuffled the order of a folder listing, so its own list is not known); "alphabets": the background alphabets
      for training, the first five evaluation alphabets for validation and the others for the test.
    split_file: the committed list.
  """
  lists = json.loads(pathlib.Path(split_file).read_text(encoding="utf-8"))
  if name == "published":
    return tuple(lists[part] for part in locate.SPLITS)
  if name != "alphabets":
    raise UserError(f"--split={name}: expected one of {', '.join(SPLITS)}")
  evaluation = lists["evaluation_alphabets"]
  of = {part: [] for part in locate.SPLITS}
  for character in bank.names:
    alphabet = character.partition("/")[0]
    if alphabet not in evaluation:
      of["train"].append(character)
    else:
      of["val" if evaluation.index(alphabet) < 5 else "test"].append(character)
  return tuple(of[part] for part in locate.SPLITS)


def _from_folders(folder):
  files = [
    (f"{image.parent.parent.name}/{image.parent.name}", image)
    for part in ("images_background", "images_evaluation")
    for image in sorted((folder / part).glob("*/*/*.png"))
  ]
  return image_bank.files_source("omniglot", files)


def _from_tfds(folder):
  """The encoded PNGs of a data set that TFDS has prepared, or prepares now."""
  import tensorflow_datasets as tfds

  builder = tfds.builder("omniglot", data_dir=str(folder))
  builder.download_and_prepare()
  files = sorted(pathlib.Path(builder.data_dir).glob("omniglot-t*.tfrecord*"))
  fingerprint = json.dumps([(f.name, f.stat().st_size, f.stat().st_mtime_ns) for f in files])
  alphabets = builder.info.features["alphabet"].names

  def images():
    decoders = {"image": tfds.decode.SkipDecoding()}
    for i, example in enumerate(builder.as_dataset(split="train+test", decoders=decoders).as_numpy_iterator()):
      name = f"{alphabets[example['alphabet']]}/character{example['alphabet_char_id'] + 1:02d}"
      yield name, example["image"], f"{builder.data_dir}: example {i}"

  return image_bank.Source("omniglot", fingerprint, builder.info.splits["train+test"].num_examples, images)
