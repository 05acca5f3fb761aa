"""Which images belong to which class, apart from the images: so one array of images carries many labellings."""

import dataclasses

import numpy as np

from maml_tf.errors import UserError


@dataclasses.dataclass(frozen=True, eq=False)
class IndexTable:
  """One or several labellings of the same images.

  The class folders of a data set are one labelling; partitions of unlabelled images into clusters are many (Hsu, Levine
  and Finn 2019, algorithm 1). The classes of all labellings are numbered through; a class is a list of rows.

  Attributes:
    members: int [sum of sizes], rows of the images; class c owns members[offsets[c] : offsets[c + 1]].
    offsets: int [classes + 1].
    labellings: int [P + 1]; labelling p owns the classes labellings[p] to labellings[p + 1] - 1. None: one labelling.
    names: names of the classes, for messages; None: their numbers.

  Raises:
    ValueError: what is given is no such table.
  """

  members: np.ndarray
  offsets: np.ndarray
  labellings: np.ndarray | None = None
  names: tuple | None = None

  def __post_init__(self):
    members, offsets = _integers("members", self.members), _integers("offsets", self.offsets)
    num_classes = len(offsets) - 1
    labellings = np.array([0, num_classes]) if self.labellings is None else _integers("labellings", self.labellings)
    _check_ascending("offsets", offsets, len(members), "members")
    _check_ascending("labellings", labellings, num_classes, "classes")
    if len(members) and members.min() < 0:
      raise ValueError(f"IndexTable: members holds {members.min()}, expected rows of the images, 0 or more")
    for number, (begin, end) in enumerate(zip(offsets[labellings[:-1]], offsets[labellings[1:]], strict=True)):
      if len(np.unique(members[begin:end])) != end - begin:
        raise ValueError(f"IndexTable: an image is in two places of labelling {number}; it can be in one class only")
    names = tuple(range(num_classes)) if self.names is None else tuple(self.names)
    if len(names) != num_classes:
      raise ValueError(f"IndexTable: {len(names)} names for {num_classes} classes")
    for field, value in (("members", members), ("offsets", offsets), ("labellings", labellings), ("names", names)):
      object.__setattr__(self, field, value)

  @classmethod
  def from_labels(cls, labels, smallest=1):
    """A table from labels of the images.

    Args:
      labels: integers [M], or [P, M] for P labellings: the class of each image, of any numbering; an image with a
        negative label is in no class.
      smallest: a class with fewer images is left out (shots + queries, for episodes).

    Returns:
      `IndexTable`; `names` are (labelling, label).

    Raises:
      UserError: a labelling has no class left.
      ValueError: the labels are no integers [M] or [P, M].
    """
    labels = np.asarray(labels)
    if labels.ndim not in (1, 2) or not np.issubdtype(labels.dtype, np.integer):
      raise ValueError(f"labels: expected integers [M] or [P, M], got {labels.dtype} {list(labels.shape)}")
    members, sizes, labellings, names = [], [], [0], []
    for number, row in enumerate(np.atleast_2d(labels)):
      values, counts = np.unique(row[row >= 0], return_counts=True)
      kept = values[counts >= smallest]
      if len(kept) == 0:
        raise UserError(f"labels: no class of labelling {number} has {smallest} images; use larger classes")
      order = np.argsort(row, kind="stable")
      members.append(order[np.isin(row[order], kept)])
      sizes.extend(counts[counts >= smallest])
      labellings.append(len(sizes))
      names.extend((number, int(label)) for label in kept)
    return cls(np.concatenate(members), np.cumsum([0, *sizes]), np.array(labellings), tuple(names))

  @property
  def sizes(self):
    """Number of images of every class, int [classes]."""
    return np.diff(self.offsets)

  @property
  def num_classes(self):
    """Number of classes of every labelling, int [P]."""
    return np.diff(self.labellings)


def _integers(name, values):
  values = np.asarray(values)
  if values.ndim != 1 or not np.issubdtype(values.dtype, np.integer):
    raise ValueError(f"IndexTable: {name} is {values.dtype} {list(values.shape)}, expected integers [n]")
  return values.astype(np.int64)


def _check_ascending(name, bounds, last, what):
  """Refuses what does not divide `last` things into parts, none of them empty."""
  if len(bounds) < 2 or bounds[0] != 0 or bounds[-1] != last or (np.diff(bounds) < 1).any():
    raise ValueError(f"IndexTable: {name} must rise from 0 to the number of {what}, {last}")
