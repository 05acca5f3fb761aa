"""N-way K-shot tasks from arrays of a user's own: images, series, rows of a table, sequences of ids."""

import numbers
from collections.abc import Iterable

import keras
import numpy as np
import numpy.typing as npt

from maml_tf.errors import UserError
from maml_tf.tasks.episodes import Episodes, LabelledImages
from maml_tf.tasks.index_table import IndexTable


class ArrayTasks(Episodes):
  """What `from_arrays` returns: `Episodes` of anything.

  Attributes:
    classes: labels of the classes, sorted.
  """

  said = ("from_arrays", "examples")

  def __init__(self, arrays, ways, shots, queries):
    super().__init__(arrays, ways, shots, queries)
    self.classes = arrays.table.names

  def _prepare(self, seed, num_tasks, chosen):
    return chosen


def from_arrays(
  x: npt.ArrayLike, y: npt.ArrayLike, ways: int, shots: int, queries: int, classes: Iterable | None = None
) -> ArrayTasks:
  """Tasks of `ways` classes drawn from labelled examples, relabelled 0 to ways - 1 in random order.

  Support and query set of a task share no example. The values are as they are given: pixels of 0 to 255 are best
  divided by 255 before. Floats become the floats that Keras computes with (`keras.config.floatx()`).

  Args:
    x: examples, an array or tensor of numbers [M, ...].
    y: labels [M] of any type that NumPy sorts: integers, strings, dates, booleans.
    ways: N, classes of a task.
    shots: K, support examples of a class.
    queries: query examples of a class.
    classes: labels of the classes to draw from, so that others remain for validation and test; None: all.

  Returns:
    A `TaskDistribution`, sampled in the graph: x [T, N * K, ...], y int32 [T, N * K].

  Raises:
    UserError: the arrays do not belong together or are no numbers; too few classes; a class with too few examples.
  """
  for name, value in (("ways", ways), ("shots", shots), ("queries", queries)):
    if not isinstance(value, numbers.Integral):
      raise UserError(f"from_arrays({name}={value!r}): expected a whole number")
  x, labels = _examples(x), _labels(y)
  if len(labels) != x.shape[0]:
    raise UserError(f"from_arrays: x has {x.shape[0]} examples and y has {len(labels)} labels; they must be as many")
  return ArrayTasks(LabelledImages(x, _table(labels, classes)), ways, shots, queries)


def _examples(x):
  """An array [M, ...]; floats in Keras' own width."""
  try:
    x = np.asarray(x)
  except ValueError as error:  # rows of different lengths
    raise UserError("from_arrays: x is no array: its examples differ in shape; pad them to one shape") from error
  if x.dtype.kind not in "biuf":
    raise UserError(
      f"from_arrays: x holds {'objects' if x.dtype.kind == 'O' else x.dtype}, expected numbers [M, ...]; turn texts "
      "into ids first (keras.layers.TextVectorization), and pad examples that differ in shape"
    )
  if x.ndim == 0 or len(x) == 0:
    raise UserError(f"from_arrays: x has shape {x.shape}, expected examples [M, ...]")
  if x.dtype.kind != "f":
    return x
  finite = np.isfinite(x.reshape(len(x), -1)).all(axis=1)
  if not finite.all():
    raise UserError(f"from_arrays: x[{finite.argmin()}] is infinite or NaN; remove or replace it")
  return x.astype(keras.config.floatx(), copy=False)


def _labels(y):
  labels = np.asarray(y)
  if labels.ndim == 2 and labels.shape[1] == 1:  # as Keras' data sets have them
    labels = labels[:, 0]
  if labels.ndim != 1:
    raise UserError(
      f"from_arrays: y has shape {labels.shape}, expected one label for each example, [M] (of one-hot rows, "
      "y.argmax(1))"
    )
  if labels.dtype.kind == "f" and not np.isfinite(labels).all():
    raise UserError(f"from_arrays: y[{int(np.argmin(np.isfinite(labels)))}] is no label but infinite or NaN")
  return labels


def _table(labels, classes):
  """The `IndexTable` of these classes."""
  try:
    names, numbers_of = np.unique(labels, return_inverse=True)
    wanted = names if classes is None else np.unique(np.asarray(list(classes)))
  except TypeError as error:  # objects of several types
    raise UserError(f"from_arrays: the labels cannot be sorted ({error}); give all of them one type") from error
  absent = [name for name in wanted.tolist() if name not in set(names.tolist())]
  if absent or len(wanted) == 0:
    found = f"no example has the label {absent[0]!r}" if absent else "it is empty"
    raise UserError(f"from_arrays(classes=...): {found}; there are {_listed(names.tolist())}")
  numbers_of = np.where(np.isin(labels, wanted), numbers_of, -1)
  members = np.argsort(numbers_of, kind="stable")[np.count_nonzero(numbers_of < 0) :]
  sizes = [np.count_nonzero(numbers_of == number) for number in np.flatnonzero(np.isin(names, wanted))]
  return IndexTable(members, np.cumsum([0, *sizes]), names=tuple(wanted.tolist()))


def _listed(names, most=5):
  shown = ", ".join(map(repr, names[:most]))
  return shown if len(names) <= most else f"{shown}, ... ({len(names)} classes)"
