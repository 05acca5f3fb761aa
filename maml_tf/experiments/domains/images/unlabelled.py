"""Settings of training tasks that come without labels, as published. Imports neither TensorFlow nor NumPy."""

import pathlib

from maml_tf.errors import UserError
from maml_tf.unsupervised.records import EMBEDDINGS, is_array

WITHOUT_LABELS = ("cactus", "umtra", "random")
# "oracle": the data set's own classes, with all that the others are trained with.
TASKS = ("given", *WITHOUT_LABELS, "oracle")
SETTINGS = (
  "tasks", "train_num_classes", "train_queries", "embedding", "embedding_size", "embedding_width", "embedding_epochs",
  "embedding_seed", "partitioning", "partitions", "clusters", "hyperplane_margin", "shift",
)  # fmt: skip

# Hsu et al. 2019, tables 5 and 6.
_MAML = dict(
  meta_batch_size=8, update_batch_size=1, train_queries=5, update_lr=0.05, num_updates=5, eval_updates=50,
  num_filters=32,
)  # fmt: skip
_PROTONETS = dict(meta_batch_size=1, update_batch_size=1, train_queries=15, num_filters=64)
# Their evaluation: 1,000 tasks of 5 queries per class. A validation of 50 steps takes as long as many iterations.
_EVALUATION = dict(eval_tasks=1000, eval_queries=5, validation_tasks=100)
_OF_DATA_SET = {
  "omniglot": dict(metatrain_iterations=30000, partitions=100),
  "mnist": dict(metatrain_iterations=30000, partitions=100, clusters=10, num_classes=10),
  "miniimagenet": dict(metatrain_iterations=60000, partitions=50),
  "folder": dict(metatrain_iterations=60000, partitions=50),
}
_TRAINING_WAYS = {"omniglot": 20}  # elsewhere those of the evaluation
_MANY_PARTITIONS = 2400  # of hyperplanes and random assignments


def defaults(datasource, method, given):
  """What these tasks have in place of the data set's recipe."""
  changed = _OF_DATA_SET[datasource] | (_MAML if "num_updates" in method.settings else _PROTONETS) | _EVALUATION
  ways = _TRAINING_WAYS.get(datasource, -1)
  changed["train_num_classes"] = ways if given.get("num_classes", 5) <= ways else -1
  if given["tasks"] == "random" or given.get("partitioning") == "hyperplanes":
    changed["partitions"] = _MANY_PARTITIONS
  record = EMBEDDINGS.get(given.get("embedding", "pca"))
  if record is not None:
    changed |= dict(embedding_size=record.size, embedding_width=record.width, embedding_epochs=record.epochs)
  return changed


def check(config, require):
  require("tasks", config.tasks in TASKS, f"one of {', '.join(TASKS)}, with this --datasource")
  if config.tasks == "given":
    return
  meta_learns = config.description.meta_learns or not config.description.trains
  require("tasks", meta_learns, "given with this --baseline, which learns the labels of all classes")
  known = config.embedding in EMBEDDINGS or is_array(config.embedding)
  require("embedding", known, f"one of {', '.join(EMBEDDINGS)}, or a file that ends in .npy or .npz")
  enough = config.train_num_classes == -1 or config.train_num_classes >= config.num_classes
  require("train_num_classes", enough, f"-1, or at least --num_classes={config.num_classes}")
  if config.tasks == "random" or (config.tasks == "cactus" and config.partitioning == "kmeans"):
    require("clusters", config.clusters >= config.training_ways, f"at least the {config.training_ways} classes of a "
            "training task")  # fmt: skip


def check_paths(config):
  if config.tasks == "cactus" and is_array(config.embedding) and not pathlib.Path(config.embedding).is_file():
    others = ", ".join(EMBEDDINGS)
    raise UserError(f"--embedding={config.embedding}: no such file; expected a .npy or .npz file, or one of {others}")
