"""What is checked before training, and the way back into Keras."""

import tensorflow as tf

from maml_tf import losses, over_tasks, tasks
from maml_tf.models import derivatives


def check_batch(maml, batch, weights=None):
  """An error where a batch does not fit the model or itself: sizes, shapes, labels that are no class.

  For concrete batches, before training: inside a graph a label that is no class only gives NaN.

  Args:
    maml: `MAML`.
    batch: `TaskBatch` of concrete arrays.
    weights: plain weights, of any values; None: the model's.

  Raises:
    ValueError: with the name of the field, what was found and what is expected.
  """
  tasks.check_batch(batch)
  batch = over_tasks.as_tensors(batch)
  weights = maml.model.initial_weights(None) if weights is None else weights
  for which in ("support", "query"):
    x, y, mask = (getattr(batch, f"{which}_{field}") for field in ["x", "y", "mask"])
    few = tf.nest.map_structure(lambda field: field[:1, :2], x)  # of one task
    outputs, _, _ = maml.outputs_of(weights, few)
    for output, loss, labels, values in losses.parts(maml.loss, y, outputs):
      if loss is losses.crossentropy:
        name = f"{which}_y" + (f"[{output}]" if output else "")
        losses.check_labels(labels, values.shape[-1], mask, name)
      losses.per_example(loss, labels[:1, :2], values)


def refuse_dropped_derivatives(maml, weights, rates, batch):
  """An error where TensorFlow would drop a second derivative of the inner loss; looked for once for each shape.

  Args:
    maml: `MAML`.
    weights: the model's, dict of name -> plain tensor.
    rates: dict of the step sizes by weight, or a list of such dicts: what they name is adapted.
    batch: `TaskBatch` of tensors.

  Raises:
    NotTwiceDifferentiableError: names the layer.
  """
  model = maml.model
  if model.twice_differentiable and maml.loss in losses.LOSSES.values():
    return
  x, y = tf.nest.map_structure(_spec_of_one_task, (batch.support_x, batch.support_y))
  key = tuple((spec.dtype, spec.shape.rank, *(spec.shape or ())) for spec in tf.nest.flatten((x, y)))
  if key in maml.found_twice_differentiable:
    return
  names = set().union(*(rates if isinstance(rates, list) else [rates]))
  specs = {name: tf.TensorSpec(weight.shape, weight.dtype) for name, weight in weights.items()}
  adapted = {name: spec for name, spec in specs.items() if name in names}
  fixed = {name: spec for name, spec in specs.items() if name not in names}

  def gradient(adapted, fixed, x, y):
    with tf.GradientTape(watch_accessed_variables=False) as tape:
      tape.watch(adapted)
      outputs, _, penalty = maml.outputs_of(fixed | adapted, x)  # of one task: no loop over tasks hides the layers
      x, y, outputs = tf.nest.map_structure(lambda tensor: tensor[tf.newaxis], (x, y, outputs))
      loss = maml.task_losses(y, outputs, None, (x, None), penalty)
    return over_tasks.gradients(tape, loss, adapted)

  name, allow_stops = model.name.removeprefix("explicit_"), model.stopped_gradients == "keep"
  derivatives.refuse_dropped(gradient, (adapted, fixed, x, y), model.layer_kinds, name, allow_stops)
  maml.found_twice_differentiable.add(key)


def _spec_of_one_task(field):
  return tf.TensorSpec(field.shape[1:], field.dtype)


def to_keras(model, weights, statistics):
  """Puts weights into a model that a user brought.

  Args:
    model: `ExplicitModel`.
    weights: plain weights, or one task's as `MAML.adapt` returns them.
    statistics: dict of what normalises the queries (`bn_mode` "support" or "running"), for the moving statistics of
      batch normalisation; empty where there are none.

  Returns:
    The Keras model.

  Raises:
    ValueError: the weights are of several tasks.
  """
  plain = {n: _of_one_task(n, weights[n], len(shape)) for n, shape in model.weight_shapes.items()}
  return model.to_keras(plain, {n: _of_one_task(n, s, 1) for n, s in statistics.items()})


def _of_one_task(name, weight, rank):
  weight = tf.convert_to_tensor(weight)
  if weight.shape.rank == rank + 1 and weight.shape[0] == 1:
    return weight[0]
  if weight.shape.rank != rank:
    raise ValueError(
      f"to_keras: weight {name} has shape {tuple(weight.shape)}, a set for each task; pick one task's: "
      "{name: weight[task] for name, weight in weights.items()}"
    )
  return weight
