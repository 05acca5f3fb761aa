"""Omniglot (Lake et al. 2015): 1,623 characters of 50 alphabets, 20 drawings each, at 28 x 28 as in the paper."""

import contextlib
import io
import json
import logging
import pathlib
import sys

from maml_tf.datasets import image_bank, locate, splits
from maml_tf.errors import UserError

SIZE = (28, 28)
NUM_CLASSES, PER_CLASS = 1623, 20
SPLITS = ("published", "alphabets")


def prepare(data_dir):
  """Downloads Omniglot into `data_dir`/tensorflow_datasets, through TFDS, where it is not in `data_dir` yet.

  TFDS prepares it under another name first, so that what is interrupted is not taken for data.

  Raises:
    UserError: there is no network, or the download failed.
  """
  locate.check_folder(data_dir, locate.check_omniglot)
  if locate.omniglot(data_dir) is not None:
    return
  folder = pathlib.Path(data_dir) / "tensorflow_datasets"
  print(f"Downloading Omniglot (18 MB) to {folder}; this takes some minutes, once", file=sys.stderr, flush=True)
  try:
    folder.mkdir(parents=True, exist_ok=True)
    with _quiet_tfds() as tfds:
      tfds.builder("omniglot", data_dir=str(folder)).download_and_prepare()
  except Exception as error:  # of the network, of the disk, of TFDS or TensorFlow: each has its own
    if locate.omniglot(data_dir) is None:  # else another process was first
      raise UserError(
        f"data_dir={data_dir}: downloading Omniglot to {folder} failed ({type(error).__name__}: {error}); try again, "
        "or name a folder that has it"
      ) from error


def load_part(data_dir, part, class_split, size):
  """The bank of one part, fetched where it is missing; see `records.DataSet.load`."""
  prepare(data_dir)  # may make the folder that the cache lies in
  bank = load(data_dir, locate.cache_folder(data_dir), size)
  names = dict(zip(locate.SPLITS, split(bank, class_split), strict=True))
  return bank.select(names[part])


def load(data_dir, cache_dir, size=SIZE):
  """The bank of all characters; classes are named `<alphabet>/character<NN>`, as Lake's folders are.

  Args:
    data_dir: looked through as `locate.omniglot` says.
    cache_dir: where the decoded images are kept.
    size: (height, width) that images are resized to.

  Returns:
    `ImageBank`, uint8 [32460, height, width, 1], ink is 0.

  Raises:
    UserError: not found, or not all of Omniglot.
  """
  found = locate.omniglot(data_dir)
  if found is None:
    raise UserError(locate.missing_omniglot(data_dir))
  kind, folder = found
  source = _from_tfds(folder) if kind == "tfds" else _from_folders(folder)
  if source.sizes is not None:  # before any is decoded, where it is known
    _check_number(folder, source.sizes)
  bank = image_bank.load(source, cache_dir, size, channels=1, expected_size=PER_CLASS)
  _check_number(folder, bank.names)
  return bank


def split(bank, name):
  """(train, validation, test) class names.

  Args:
    bank: of all characters.
    name: "published": 1,100/100/423 characters at random, as in the paper, from the committed list (the published
      code shuffled the order of a folder listing, so its own list is not known); "alphabets": the background alphabets
      for training, the first five evaluation alphabets for validation and the others for the test.
  """
  lists = splits.omniglot()
  if name == "published":
    return tuple(lists[part] for part in locate.SPLITS)
  if name != "alphabets":
    raise UserError(f"class_split={name}: expected one of {', '.join(SPLITS)}")
  evaluation = lists["evaluation_alphabets"]
  of = {part: [] for part in locate.SPLITS}
  for character in bank.names:
    alphabet = character.partition("/")[0]
    if alphabet not in evaluation:
      of["train"].append(character)
    else:
      of["val" if evaluation.index(alphabet) < 5 else "test"].append(character)
  return tuple(of[part] for part in locate.SPLITS)


def _check_number(folder, characters):
  if len(characters) != NUM_CLASSES:
    raise UserError(f"{folder}: {len(characters)} characters, Omniglot has {NUM_CLASSES}; unpack it anew")


def _from_folders(folder):
  files = [
    (f"{alphabet.name}/{character}", image)
    for part in ("images_background", "images_evaluation")
    for alphabet in locate.folders(folder / part)
    for character, images in locate.class_folders(alphabet)
    for image in images
  ]
  return image_bank.files_source("omniglot", folder, files)


def _from_tfds(folder):
  """The encoded PNGs of a data set that TFDS has prepared in `folder`."""
  import tensorflow as tf

  for path in sorted(folder.iterdir()):
    if not (path.is_file() or path.is_dir()):  # reading from a pipe would wait for ever
      raise UserError(f"{path}: not a regular file; remove the folder and prepare it anew")
  try:
    with _quiet_tfds() as tfds:
      builder = tfds.builder_from_directory(str(folder))
    alphabets = builder.info.features["alphabet"].names
    num_images = builder.info.splits["train+test"].num_examples
  except Exception as error:  # TFDS has many for a folder that is not as it should be
    raise _damaged(folder, error) from error
  files = sorted(folder.glob("omniglot-t*.tfrecord*"))
  fingerprint = json.dumps([(f.name, f.stat().st_size, f.stat().st_mtime_ns) for f in files])

  def images():
    decoders = {"image": tfds.decode.SkipDecoding()}
    try:
      for i, example in enumerate(builder.as_dataset(split="train+test", decoders=decoders).as_numpy_iterator()):
        name = f"{alphabets[example['alphabet']]}/character{example['alphabet_char_id'] + 1:02d}"
        yield name, example["image"], f"{folder}: example {i}"
    except (tf.errors.OpError, OSError) as error:
      raise _damaged(folder, error) from error

  return image_bank.Source("omniglot", folder, fingerprint, num_images, images)


def _damaged(folder, error):
  reason = f"{type(error).__name__}: {str(error)[:200]}"
  return UserError(f"{folder}: TensorFlow Datasets cannot read this ({reason}); remove it and prepare it anew")


@contextlib.contextmanager
def _quiet_tfds():
  """TFDS without its progress bars, its bold lines on stdout, and a warning for each attempt to connect."""
  import tensorflow_datasets as tfds

  disabled = logging.root.manager.disable
  logging.disable(logging.WARNING)
  tfds.disable_progress_bar()
  try:
    with contextlib.redirect_stdout(io.StringIO()):
      yield tfds
  finally:
    tfds.enable_progress_bar()
    logging.disable(disabled)
