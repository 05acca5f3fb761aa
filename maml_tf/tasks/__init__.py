"""Distributions of tasks, sampled inside the graph; and sequences of them."""

from maml_tf.tasks.arrays import from_arrays
from maml_tf.tasks.base import TaskBatch, TaskDistribution, check_batch, from_generator
from maml_tf.tasks.episodes import Episodes
from maml_tf.tasks.index_table import IndexTable
from maml_tf.tasks.pooled import Pooled
from maml_tf.tasks.sequences import TaskSequence
from maml_tf.tasks.sinusoid import Sinusoid

__all__ = [
  "Episodes",
  "IndexTable",
  "Pooled",
  "Sinusoid",
  "TaskBatch",
  "TaskDistribution",
  "TaskSequence",
  "check_batch",
  "from_arrays",
  "from_generator",
]
