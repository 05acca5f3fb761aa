"""What happens to a batch of tasks, whatever the algorithm: the mean meta-gradient, in chunks and over replicas."""

from typing import Any, NamedTuple

import tensorflow as tf

from maml_tf import memory, tracing
from maml_tf.tasks.base import as_tensors


class MetaGradients(NamedTuple):
  """What one look at a meta-batch gives, each a mean over its tasks.

  Attributes:
    loss: scalar.
    gradients: dict like the weights.
    metrics: dict of name -> scalar.
    updates: dict of name -> new value, of weights that no gradient moves.
  """

  loss: Any
  gradients: dict
  metrics: dict
  updates: dict


@tracing.as_it_stands
def meta_gradients(meta_loss, weights, batch, task_chunk=None, seed=None, limit=None):
  """`MetaGradients` of any `meta_loss(weights, batch, seed) -> (loss, metrics, updates)`.

  Args:
    meta_loss: of the contract in `algorithms.base`.
    weights: dict of name -> tensor.
    batch: `TaskBatch`.
    task_chunk: tasks at a time: memory is that of so many, and the result the same but for rounding. It divides the
      number of tasks. None: all at once, or as many as `limit` allows.
    seed: int32 tensor [2], for noise; None: the algorithm draws none.
    limit: bytes that all tasks at once may take, by the estimate of `memory`; None: whatever they take.
  """
  if task_chunk is None and limit is None:
    return _meta_gradients(meta_loss, weights, batch, seed)
  num_tasks = tf.nest.flatten(batch.support_x)[0].shape[0]
  if task_chunk is None:
    found, task_chunk = memory.all_or_fewer(lambda: _meta_gradients(meta_loss, weights, batch, seed), num_tasks, limit)
    if found is not None:
      return found
  if num_tasks is None or num_tasks % task_chunk:
    raise ValueError(f"task_chunk: expected a number that divides the number of tasks, {num_tasks}, got {task_chunk}")
  batch, count = as_tensors(batch), num_tasks // task_chunk

  def of_chunk(index):
    first = index * task_chunk
    chunk_seed = None if seed is None else seed_from(seed, first)
    return _meta_gradients(meta_loss, weights, tasks_of(batch, first, task_chunk), chunk_seed)

  of_chunk = tracing.function(of_chunk).get_concrete_function(tf.TensorSpec([], tf.int32))
  zeros = tf.nest.map_structure(lambda t: tf.zeros(t.shape, t.dtype), of_chunk.structured_outputs)

  def body(index, means):
    return index + 1, tf.nest.map_structure(lambda mean, new: mean + new / count, means, of_chunk(index))

  return tf.while_loop(lambda index, _: index < count, body, (0, zeros), parallel_iterations=1)[1]


def chunk_of(batch, task_chunk):
  """`task_chunk` where chunks can be computed: in a graph, of a known number of tasks that it divides; else None."""
  if task_chunk is None or tf.executing_eagerly():
    return None
  num_tasks = tf.nest.flatten(batch.support_x)[0].shape[0]
  return task_chunk if num_tasks is not None and num_tasks % task_chunk == 0 else None


def seed_from(seed, first):
  """The seed of the tasks from the `first` on: `randomness.per_task` of it goes on where that of `seed` would be."""
  return seed + tf.stack([0, tf.cast(first, tf.int32)])


def tasks_of(batch, first, count):
  """`count` tasks of a `TaskBatch`, from the tensor `first` on."""

  def slice_of(field):
    if field is None:
      return None
    # Not `field[first : first + count]`: XLA does not know the size of that.
    rest = field.shape.rank - 1
    part = tf.slice(field, [first] + [0] * rest, [count] + [-1] * rest)
    return tf.ensure_shape(part, [count, *field.shape[1:]])

  return tf.nest.map_structure(slice_of, batch)


def _meta_gradients(meta_loss, weights, batch, seed):
  with tf.GradientTape(watch_accessed_variables=False) as tape:
    tape.watch(weights)
    loss, metrics, updates = meta_loss(weights, batch, seed)
  return MetaGradients(loss, gradients(tape, loss, weights), metrics, updates)


def gradients(tape, target, weights):
  """Gradients, zero for a weight that the target does not use; an error where it uses none of them."""
  found = tape.gradient(target, weights)
  if all(gradient is None for gradient in found.values()):
    raise ValueError(
      f"the loss does not depend on any of the weights {', '.join(weights)}: "
      "it must be computed from model.apply(weights, ...) with differentiable operations"
    )
  # That of an embedding comes as rows and their indices, which cannot be summed over chunks.
  return {n: tf.zeros_like(weights[n]) if g is None else tf.convert_to_tensor(g) for n, g in found.items()}


def num_tasks_of(x):
  """T of data [T, ...], or a nest of such: a Python integer where it is known, else a tensor."""
  x = tf.nest.flatten(x)[0]
  static = x.shape[0]
  return tf.shape(x)[0] if static is None else static


def for_each_task(weights, data):
  """Plain weights once for each task of `data` [T, ...]: dict of name -> tensor [T, ...]."""
  return {name: repeat(weight, num_tasks_of(data)) for name, weight in weights.items()}


def repeat(weight, num_tasks):
  """A plain weight, once for each task: [...] -> [T, ...]."""
  return tf.broadcast_to(weight, tf.concat([[num_tasks], tf.shape(weight)], 0))
