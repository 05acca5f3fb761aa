"""Distributions of tasks, sampled inside the graph."""

from maml_tf.tasks.base import TaskBatch, TaskDistribution, check_batch, from_generator
from maml_tf.tasks.episodes import Episodes
from maml_tf.tasks.sinusoid import Sinusoid

__all__ = ["Episodes", "Sinusoid", "TaskBatch", "TaskDistribution", "check_batch", "from_generator"]
