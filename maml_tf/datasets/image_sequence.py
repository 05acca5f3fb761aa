"""Classes of images that arrive five at a time (Finn et al. 2019, section 5.2: CIFAR-100 in 20 tasks).

The paper says neither how many images are held out nor how classes make tasks; both are drawn here from a seed.
"""

import numpy as np

from maml_tf.datasets.records import DATASETS
from maml_tf.datasets.sequence_sizes import HELD_OUT_PER_CLASS, PER_CLASS_IN_BATCH, WAYS
from maml_tf.errors import UserError

SIZE = 32
IMAGES_SEED = 0  # which images of a class arrive when, and which are held out: the same for every order of classes


def load(data_dir, name, seed, examples):
  """The tasks in an order of the classes.

  Args:
    data_dir: the folder of the data sets.
    name: "cifar100" or "miniimagenet".
    seed: Python integer, of the order of the 100 classes: each five that come one after another are a task.
    examples: images of a task that arrive, in batches with ten of each class.

  Returns:
    (images, uint8 [20, examples + 100, 32, 32, 3], the held-out ones at the end; labels, int32 [examples + 100], the
    same in every task; names of the tasks, those of their classes).

  Raises:
    UserError: the data set is not there, or has too few images.
  """
  classes, names = _by_class(data_dir, name)
  per_class = examples // WAYS
  if per_class + HELD_OUT_PER_CLASS > classes.shape[1]:
    most = WAYS * (classes.shape[1] - HELD_OUT_PER_CLASS)
    raise UserError(f"examples_per_task={examples}: expected at most {most}, which {name} has in five classes")
  rng = np.random.default_rng(IMAGES_SEED)
  # The last ones of a class are CIFAR-100's own test images.
  arriving = [rng.permutation(classes.shape[1] - HELD_OUT_PER_CLASS)[:per_class] for _ in names]
  order = np.random.default_rng(seed).permutation(len(names)).reshape(-1, WAYS)
  images = np.stack([_task([classes[c][arriving[c]] for c in task], classes[task]) for task in order])
  return images, _labels(per_class), [", ".join(names[c] for c in task) for task in order]


def _by_class(data_dir, name):
  """(uint8 [100, images, 32, 32, 3], names)."""
  banks = [DATASETS[name].load(data_dir, part, image_size=SIZE) for part in ("train", "val", "test")]
  if name == "cifar100":  # each part has all classes
    parts = [bank.images.reshape(len(bank.names), -1, SIZE, SIZE, 3) for bank in banks]
    return np.concatenate(parts, axis=1), banks[0].names
  names = tuple(name for bank in banks for name in bank.names)
  return np.concatenate([bank.images for bank in banks]).reshape(len(names), -1, SIZE, SIZE, 3), names


def _task(arriving, classes):
  """Images of a task: batches with ten of each of its classes, then the held-out ones, class by class."""
  rest = (SIZE, SIZE, 3)
  batches = np.stack(arriving).reshape(WAYS, -1, PER_CLASS_IN_BATCH, *rest).swapaxes(0, 1).reshape(-1, *rest)
  return np.concatenate([batches, classes[:, -HELD_OUT_PER_CLASS:].reshape(-1, *rest)])


def _labels(per_class):
  classes = np.arange(WAYS, dtype=np.int32)
  batch = np.repeat(classes, PER_CLASS_IN_BATCH)
  return np.concatenate([np.tile(batch, per_class // PER_CLASS_IN_BATCH), np.repeat(classes, HELD_OUT_PER_CLASS)])
