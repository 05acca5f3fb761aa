"""Rainbow MNIST (Finn et al. 2019, section 5.1): digits on coloured grounds, in two sizes, turned by quarter turns.

A task is a colour, a scale and a rotation: 7 x 2 x 4 = 56 tasks of 900 images. The paper has no RGB values and no code
that makes the images; the recipe is that of the MLTI code (a grey digit is coloured, turned; at half the scale it is
resized to 14 and padded with the ground). Images are made from MNIST's, without anything random.
"""

import itertools

import numpy as np

from maml_tf.datasets import image_bank
from maml_tf.datasets.rainbow import BATCH_PER_CLASS, CLASSES, HELD_OUT, PER_CLASS
from maml_tf.datasets.records import DATASETS

SIZE, HALF = 28, 14
SCALES = ("full", "half")
TURNS = (0, 1, 2, 3)


def load(data_dir, colors):
  """The tasks, in the order of colours, scales and rotations.

  Args:
    data_dir: the folder of the data sets, with MNIST in it (`datasets.mnist`).
    colors: list of RGB triples, as `rainbow.parse_colors` gives them.

  Returns:
    (images, uint8 [tasks, 1000, 28, 28, 3]: 45 batches of 20 with two of each digit, then 100 to be held out; labels,
    int32 [1000], the same in every task; names of the tasks). No digit is in two tasks.

  Raises:
    UserError: MNIST is missing or damaged.
  """
  kinds = list(itertools.product(colors, SCALES, TURNS))
  digits = _digits(data_dir, len(kinds))
  images = np.stack([_rendered(digits[:, task], *kind) for task, kind in enumerate(kinds)])
  names = ["{:02x}{:02x}{:02x}_{}_{}".format(*color, scale, 90 * turns) for color, scale, turns in kinds]
  return images, _labels(), names


def _digits(data_dir, num_tasks):
  """Grey images uint8 [10, tasks, 100, 28, 28], of all of MNIST: neighbours in its files are in different tasks."""
  banks = [DATASETS["mnist"].load(data_dir, part) for part in ("train", "val", "test")]
  needed = PER_CLASS + HELD_OUT
  chosen = []
  for digit in range(CLASSES):
    there = np.concatenate([bank.images[bank.offsets[digit] : bank.offsets[digit + 1], ..., 0] for bank in banks])
    there = there[: needed * num_tasks].reshape(needed, num_tasks, SIZE, SIZE)
    chosen.append(there.swapaxes(0, 1))
  return np.stack(chosen)


def _rendered(digits, color, scale, turns):
  """A task's images [1000, 28, 28, 3], of its digits [10, 100, 28, 28]."""
  grey = np.concatenate([_in_batches(digits[:, :PER_CLASS]), digits[:, PER_CLASS:].reshape(-1, SIZE, SIZE)])
  if scale == "half":
    edge = (SIZE - HALF) // 2
    small = image_bank.resize(grey[..., np.newaxis], (HALF, HALF))[..., 0]
    grey = np.pad(small, ((0, 0), (edge, edge), (edge, edge)))
  ink = np.rot90(grey, turns, axes=(1, 2))[..., np.newaxis].astype(np.float32) / 255
  ground = np.asarray(color, np.float32)
  return np.rint(ground + (255 - ground) * ink).astype(np.uint8)


def _in_batches(by_class):
  """[10, 90, ...] as 45 batches with two of each digit, one after the other: [900, ...]."""
  rest = by_class.shape[2:]
  batches = by_class.reshape(CLASSES, -1, BATCH_PER_CLASS, *rest).swapaxes(0, 1)
  return batches.reshape(-1, *rest)


def _labels():
  digits = np.arange(CLASSES, dtype=np.int32)
  batch = np.repeat(digits, BATCH_PER_CLASS)
  return np.concatenate([np.tile(batch, PER_CLASS // BATCH_PER_CLASS), np.repeat(digits, HELD_OUT)])
