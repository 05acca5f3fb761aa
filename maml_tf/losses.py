"""Per-example losses, and their reductions to one loss per task."""

import tensorflow as tf


def mse(labels, outputs):
  """Squared error, averaged over the output dimensions: labels, outputs [..., n, d] -> [..., n]."""
  labels = tf.cast(labels, outputs.dtype)
  if not labels.shape.is_compatible_with(outputs.shape):
    raise ValueError(
      f"mse: labels have shape {labels.shape}, outputs {outputs.shape}; they must be equal "
      "(regression targets carry the output dimension, [..., n, d])"
    )
  return tf.reduce_mean(tf.math.squared_difference(outputs, labels), axis=-1)


def crossentropy(labels, outputs):
  """Softmax cross-entropy: logits [..., n, classes] -> [..., n].

  Labels are integers of any width, [..., n], or class probabilities, [..., n, classes]. The loss of a label that is no
  class is NaN, which stops a run; a gather or a one-hot vector would make it 0. It is written with `log_softmax`
  because that has derivatives of every order.
  """
  log_probabilities = tf.nn.log_softmax(outputs)
  if labels.shape.rank == outputs.shape.rank:
    return -tf.reduce_sum(tf.cast(labels, outputs.dtype) * log_probabilities, axis=-1)
  labels, classes = tf.cast(labels, tf.int32), tf.shape(outputs)[-1]
  loss = -tf.reduce_sum(tf.one_hot(labels, classes, dtype=outputs.dtype) * log_probabilities, axis=-1)
  return tf.where((labels >= 0) & (labels < classes), loss, tf.constant(float("nan"), outputs.dtype))


def accuracy(labels, outputs, mask=None):
  """Fraction of examples [T, n] whose largest logit is the label's class, per task: [T]."""
  if labels.shape.rank == outputs.shape.rank:
    labels = tf.argmax(labels, axis=-1, output_type=tf.int32)
  hits = tf.equal(tf.argmax(outputs, axis=-1, output_type=tf.int32), tf.cast(labels, tf.int32))
  return per_task(tf.cast(hits, outputs.dtype), mask)


LOSSES = {"mse": mse, "crossentropy": crossentropy}


def get(loss):
  """The per-example loss of that name, or the callable itself."""
  if callable(loss):
    return loss
  if loss in LOSSES:
    return LOSSES[loss]
  raise ValueError(f"loss: expected one of {sorted(LOSSES)} or a callable, got {loss!r}")


def per_task(per_example, mask=None, shots=None):
  """Reduces per-example losses [T, n] to one per task [T].

  Args:
    per_example: [T, n], or with trailing axes, which are averaged.
    mask: [T, n], true where the example counts; None: all do.
    shots: None gives the mean over the examples. A number (or a tensor [T]) gives their sum divided by it: with
      the number of support examples per class this is the published code's inner loss (cbfinn/maml, `xent` in
      utils.py and the unreduced vector in maml.py), N times the mean on N classes.
  """
  rank = per_example.shape.rank
  if rank is not None and rank < 2:
    raise ValueError(
      f"loss: expected one loss per example, shape [T, n], got shape {per_example.shape}; "
      "return per-example losses (for a keras.losses class, pass reduction=None)"
    )
  if rank is not None and rank > 2:
    per_example = tf.reduce_mean(per_example, axis=list(range(2, rank)))
  if mask is not None:
    # `where`, not a product: the loss of a padded example may be NaN (its label is no class, say).
    per_example = tf.where(tf.cast(mask, tf.bool), per_example, tf.zeros_like(per_example))
  if shots is not None:
    return tf.reduce_sum(per_example, axis=1) / tf.cast(shots, per_example.dtype)
  if mask is None:
    return tf.reduce_mean(per_example, axis=1)
  count = tf.reduce_sum(tf.cast(mask, per_example.dtype), axis=1)
  return tf.math.divide_no_nan(tf.reduce_sum(per_example, axis=1), count)
