"""Metrics after 0, 1, ..., S inner steps, over many tasks in blocks, with 95 % intervals."""

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from maml_tf import memory, over_tasks, progress, randomness, tracing

# Tasks are drawn in blocks of this size, each from a seed of its own, whatever the number of tasks or the memory: so
# the first 600 of 6,000 test tasks are the 600 test tasks.
BLOCK = 20


def of_algorithm(algorithm, weights, num_updates):
  """What `evaluate_blocks` takes as `evaluate_batch`: an algorithm of `algorithms.base` with these weights."""
  return lambda batch, seed: algorithm.evaluate(weights, batch, num_updates, seed)


def evaluate_blocks(evaluate_batch, tasks, seed, num_tasks, task_chunk=None):
  """Evaluates on `num_tasks` tasks, holding one block of them in memory at a time.

  Args:
    evaluate_batch: (`TaskBatch`, seed for noise) -> dict of name -> [S + 1, T].
    tasks: `TaskDistribution`.
    seed: int32 tensor [2].
    num_tasks: Python integer or scalar tensor.
    task_chunk: tasks that are computed at a time, at most; None: a block, or as many of it as `memory` finds to fit.
      The tasks are the same ones.

  Returns:
    Dict of name -> [S + 1, num_tasks].
  """
  block = _block_function(evaluate_batch, tasks, seed, task_chunk)
  results = _one_after_another(block, tf.range((num_tasks + BLOCK - 1) // BLOCK))
  return {name: values[:, :num_tasks] for name, values in results.items()}


def evaluate_with_progress(evaluate_batch, tasks, seed, num_tasks, task_chunk=None, label=None):
  """As `evaluate_blocks`, of a Python integer `num_tasks`, with a progress bar where the output is a terminal.

  Returns:
    Dict of name -> NumPy array [S + 1, num_tasks].
  """
  block = tracing.function(_block_function(evaluate_batch, tasks, seed, task_chunk))
  parts = []
  with progress.bar(total=num_tasks, unit="task", desc=label) as bar:
    for first in range(0, num_tasks, BLOCK):
      parts.append({n: v.numpy() for n, v in block(tf.constant(first // BLOCK)).items()})
      bar.update(min(BLOCK, num_tasks - first))
  return {name: np.concatenate([part[name] for part in parts], axis=1)[:, :num_tasks] for name in parts[0]}


def evaluate_block(evaluate_batch, tasks, seed, index, task_chunk=None):
  """`evaluate_blocks` of one block, by its index, an integer or scalar tensor: dict of name -> [S + 1, BLOCK]."""
  return _block_function(evaluate_batch, tasks, seed, task_chunk)(index)


def _block_function(evaluate_batch, tasks, seed, task_chunk):
  """A function of a block's index -> dict of name -> [S + 1, BLOCK]."""
  evaluate_batch = _in_chunks(evaluate_batch, task_chunk)

  def block(index):
    block_seed = randomness.fold(seed, index)
    return evaluate_batch(tasks.sample(block_seed, BLOCK), randomness.fold(block_seed, "algorithm"))

  return block


def _in_chunks(evaluate_batch, task_chunk):
  """`evaluate_batch` on a block, the largest divisor of the block up to `task_chunk` at a time, in a loop."""

  def evaluate(batch, seed):
    if task_chunk is None:
      results, size = memory.all_or_fewer(lambda: evaluate_batch(batch, seed), BLOCK, memory.EVALUATION)
      if results is not None:
        return results
    else:
      size = memory.largest_divisor(BLOCK, task_chunk)

    def chunk(first):
      return evaluate_batch(over_tasks.tasks_of(batch, first, size), over_tasks.seed_from(seed, first))

    return _one_after_another(chunk, tf.range(0, BLOCK, size))

  return evaluate if task_chunk is None or task_chunk < BLOCK else evaluate_batch


def _one_after_another(function, indices):
  """A function, index -> dict of name -> [S + 1, n], of all indices in a loop: dict of name -> [S + 1, indices * n]."""
  traced = tracing.function(function).get_concrete_function(tf.TensorSpec([], tf.int32))
  signature = tf.nest.map_structure(lambda t: tf.TensorSpec(t.shape, t.dtype), traced.structured_outputs)
  parts = tf.map_fn(traced, indices, fn_output_signature=signature, parallel_iterations=1)

  def join(values):  # [indices, S + 1, n]
    values = tf.transpose(values, [1, 0, 2])
    return tf.reshape(values, [tf.shape(values)[0], -1])

  return {name: join(values) for name, values in parts.items()}


def summarise(values: npt.ArrayLike) -> dict[str, np.ndarray]:
  """Mean and 95 % interval over tasks.

  Args:
    values: [S + 1, tasks].

  Returns:
    {"mean": [S + 1], "ci95": [S + 1]}, NumPy float64; the interval is mean +- ci95, with 1.96 standard errors of the
    population deviation (ddof 0), as in the published code. One task has no interval: NaN.
  """
  values = np.asarray(values, np.float64)
  return {
    "mean": values.mean(axis=1),
    "ci95": np.where(values.shape[1] > 1, 1.96 * values.std(axis=1) / np.sqrt(values.shape[1]), np.nan),
  }
