"""A head for each task: what one model of all classes is where tasks share none (Finn et al. 2019, section 5.2)."""

import functools

import tensorflow as tf


def own_head(classes, labels, outputs):
  """Labels and logits within the head that a label belongs to.

  Args:
    classes: of a head.
    labels: integers [..., n], head * classes + class.
    outputs: logits [..., n, heads * classes].

  Returns:
    (labels [..., n] in [0, classes), logits [..., n, classes]).
  """
  by_head = tf.reshape(outputs, tf.concat([tf.shape(outputs)[:-1], [-1, classes]], 0))
  by_head = tf.ensure_shape(by_head, [*outputs.shape[:-1], outputs.shape[-1] // classes, classes])
  chosen = tf.one_hot(labels // classes, outputs.shape[-1] // classes, dtype=outputs.dtype)
  return labels % classes, tf.reduce_sum(by_head * chosen[..., tf.newaxis], axis=-2)


@functools.lru_cache(maxsize=64)
def loss_of_own_head(loss, classes):
  """The loss (labels, outputs) of each example's own head."""

  def of_own_head(labels, outputs):
    return loss(*own_head(classes, labels, outputs))

  return of_own_head
