"""From a few labelled pictures to labels for others, by a trained classifier: its contract is docs/predicting.md."""

import csv
import dataclasses
import io
import os
import pathlib

import numpy as np
import tensorflow as tf

from maml_tf import loading, pixels
from maml_tf.contact_sheet import contact_sheet
from maml_tf.datasets import image_bank, own_pictures
from maml_tf.datasets.records import DATASETS
from maml_tf.errors import UserError
from maml_tf.training.checkpoints import write_atomically


@dataclasses.dataclass(frozen=True)
class Predictions:
  """What a classifier says of pictures.

  Attributes:
    classes: their names, sorted.
    files: names of the query pictures, sorted.
    probabilities: float32 [files, classes].
    pictures: the query pictures at the size that the network sees, uint8 [files, H, W, C].
    support: (class name, picture uint8 [H, W, C]) of each support picture.
  """

  classes: tuple[str, ...]
  files: tuple[str, ...]
  probabilities: np.ndarray
  pictures: np.ndarray
  support: tuple[tuple[str, np.ndarray], ...]

  @property
  def labels(self) -> tuple[str, ...]:
    """The likeliest class of each picture."""
    return tuple(self.classes[index] for index in self.probabilities.argmax(axis=1))

  def csv(self) -> str:
    """A table: file, label, probability (of that label), and `p(class)` for each class."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["file", "label", "probability", *(f"p({name})" for name in self.classes)])
    for file, label, row in zip(self.files, self.labels, self.probabilities, strict=True):
      writer.writerow([file, label, *(f"{value:.4f}" for value in (row.max(), *row))])
    return text.getvalue()

  def write(self, folder: str | os.PathLike) -> tuple[pathlib.Path, pathlib.Path]:
    """Writes labels.csv and contact_sheet.png into a folder, which is made; returns their paths.

    Raises:
      UserError: it cannot be written.
    """
    paths = pathlib.Path(folder) / "labels.csv", pathlib.Path(folder) / "contact_sheet.png"
    write_atomically(paths[0], self.csv())
    captions = [(label, f"{row.max():.0%}", file)
                for label, row, file in zip(self.labels, self.probabilities, self.files, strict=True)]  # fmt: skip
    write_atomically(paths[1], contact_sheet(self.support, self.pictures, captions))
    return paths


def predict_folder(
  model: str | os.PathLike,
  support: str | os.PathLike,
  query: str | os.PathLike,
  output: str | os.PathLike | None = None,
  num_updates: int | None = None,
) -> Predictions:
  """Adapts a trained classifier to labelled pictures, and labels others.

  Args:
    model: folder of a run on images or of its SavedModel, or of one by `MAML.save(path, pictures=...)`.
    support: folder with a folder for each class, in which its pictures are: at most as many classes as it was trained
      for.
    query: folder of the pictures to label.
    output: folder to write labels.csv and contact_sheet.png into; None: nothing is written.
    num_updates: gradient steps; None: as in training.

  Returns:
    `Predictions`.

  Raises:
    UserError: one line: a folder, a picture or a SavedModel that is not as it should be.
  """
  if num_updates is not None and num_updates < 0:
    raise UserError(f"num_updates={num_updates}: expected 0 or more")
  labelled, unlabelled = own_pictures.support_files(support), own_pictures.query_files(query)
  trained = loading.load(model)
  described = described_pictures(trained)
  classes = tuple(sorted({name for name, _ in labelled}))
  if trained.outputs is not None and len(classes) > trained.outputs:
    raise UserError(
      f"{support}: {len(classes)} classes, but {model} tells {trained.outputs} apart; take some out, or train one with "
      f"num_classes={len(classes)}"
    )
  support_pictures = _decoded(trained, support, labelled)
  query_pictures = _decoded(trained, query, [("", path) for path in unlabelled])
  labels = [classes.index(name) for name, _ in labelled]
  task = trained.adapt(inputs_of(support_pictures, described), labels, num_updates)
  # Outputs beyond the classes have no example; they are no answer.
  logits = trained.predict(task, inputs_of(query_pictures, described))[:, : len(classes)]
  found = Predictions(
    classes,
    tuple(path.name for path in unlabelled),
    tf.nn.softmax(logits).numpy(),
    query_pictures,
    tuple((name, picture) for (name, _), picture in zip(labelled, support_pictures, strict=True)),
  )
  if not np.isfinite(found.probabilities).all():
    raise UserError(f"{model}: adapting to {support} gave numbers that are not finite; use a smaller num_updates")
  if output is not None:
    found.write(output)
  return found


def described_pictures(trained: loading.Trained) -> dict:
  """How a SavedModel's inputs are made of pictures: {"range": [low, high], "inverted": bool}.

  Raises:
    UserError: it takes no pictures, or does not say how.
  """
  shape = trained.input_shape
  if not trained.classifies or len(shape) != 3 or shape[2] not in (1, 3) or None in shape:
    raise UserError(
      f"{trained.path}: no classifier of pictures: its inputs are {list(shape)} (height, width and 1 or 3 channels are "
      f"expected), its labels {'classes' if trained.classifies else 'numbers'}"
    )
  if "pictures" in trained.metadata:
    return trained.metadata["pictures"]
  data_set = DATASETS.get(trained.metadata.get("config", {}).get("datasource"))
  if data_set is None:
    raise UserError(
      f"{trained.path}: it does not say how its inputs are made of pictures; save it with "
      "maml.save(path, pictures={'range': (0, 1), 'inverted': False})"
    )
  return {"range": [0.0, 1.0], "inverted": data_set.invert}  # artefacts from before they said it themselves


def _decoded(trained, folder, files):
  """uint8 [n, H, W, C], as training decodes files."""
  height, width, channels = trained.input_shape
  source = image_bank.files_source("pictures", pathlib.Path(folder), files)
  images = {where: image_bank.decode(data, (height, width), channels, where) for _, data, where in source.images()}
  return np.stack([images[str(path)] for _, path in files])


def inputs_of(pictures: np.ndarray, described: dict) -> np.ndarray:
  """Inputs float32 [n, H, W, C] of pictures uint8 [n, H, W, C], as `described_pictures` says."""
  return pixels.to_range(np.float32(pictures) / np.float32(255.0), described["range"], described["inverted"])
