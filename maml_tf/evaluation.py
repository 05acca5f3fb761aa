"""Metrics after 0, 1, ..., S inner steps, over many tasks in blocks, with 95 % intervals."""

import numpy as np
import tensorflow as tf

from maml_tf import randomness

# Tasks are drawn in blocks of this size, each from a seed of its own, whatever the number of tasks or the memory: so
# the first 600 of 6,000 test tasks are the 600 test tasks.
BLOCK = 20


def evaluate_blocks(evaluate_batch, tasks, seed, num_tasks):
  """Evaluates on `num_tasks` tasks, holding one block of them in memory at a time.

  Args:
    evaluate_batch: `TaskBatch` -> dict of name -> [S + 1, T].
    tasks: `TaskDistribution`.
    seed: int32 tensor [2].
    num_tasks: Python integer or scalar tensor.

  Returns:
    Dict of name -> [S + 1, num_tasks].
  """

  def block(index):
    return evaluate_batch(tasks.sample(randomness.fold(seed, index), BLOCK))

  traced = tf.function(block).get_concrete_function(tf.TensorSpec([], tf.int32))
  signature = tf.nest.map_structure(lambda t: tf.TensorSpec(t.shape, t.dtype), traced.structured_outputs)
  blocks = tf.map_fn(
    traced,
    tf.range((num_tasks + BLOCK - 1) // BLOCK),
    fn_output_signature=signature,
    parallel_iterations=1,
  )

  def join(values):  # [blocks, S + 1, BLOCK] -> [S + 1, num_tasks]
    values = tf.transpose(values, [1, 0, 2])
    return tf.reshape(values, [tf.shape(values)[0], -1])[:, :num_tasks]

  return {name: join(values) for name, values in blocks.items()}


def summarise(values):
  """Mean and 95 % interval over tasks.

  Args:
    values: [S + 1, tasks].

  Returns:
    {"mean": [S + 1], "ci95": [S + 1]}, NumPy float64; the interval is mean +- ci95, with 1.96 standard errors of the
    population deviation (ddof 0), as in the published code.
  """
  values = np.asarray(values, np.float64)
  return {
    "mean": values.mean(axis=1),
    "ci95": 1.96 * values.std(axis=1) / np.sqrt(values.shape[1]),
  }
