"""Per-example losses, and their reductions to one loss per task."""

import functools

import numpy as np
import tensorflow as tf

from maml_tf import tracing
from maml_tf.errors import UserError


class LabelError(UserError, ValueError):
  """A label that is no class."""


def mse(labels, outputs):
  """Squared error, averaged over the output dimensions: labels, outputs [..., n, d] -> [..., n]."""
  labels = tf.cast(labels, outputs.dtype)
  labels = _same_shape(
    labels, outputs, "mse: labels have shape {}, outputs {}; they must be equal "
    "(regression targets carry the output dimension, [..., n, d])",
  )  # fmt: skip
  return tf.reduce_mean(tf.math.squared_difference(outputs, labels), axis=-1)


def crossentropy(labels, outputs):
  """Softmax cross-entropy: logits [..., n, classes] -> [..., n].

  Labels are integers of any width, [..., n] or [..., n, 1], or class probabilities, [..., n, classes]. The loss of a
  label that is no class is NaN, which stops a run; a gather or a one-hot vector would make it 0. It is written with
  `log_softmax` because that has derivatives of every order.
  """
  labels = class_labels(labels, outputs)
  log_probabilities = tf.nn.log_softmax(outputs)
  if labels.shape.rank == outputs.shape.rank:
    return -tf.reduce_sum(tf.cast(labels, outputs.dtype) * log_probabilities, axis=-1)
  labels, classes = tf.cast(labels, tf.int32), tf.shape(outputs)[-1]
  loss = -tf.reduce_sum(tf.one_hot(labels, classes, dtype=outputs.dtype) * log_probabilities, axis=-1)
  return tf.where((labels >= 0) & (labels < classes), loss, tf.constant(float("nan"), outputs.dtype))


@functools.lru_cache(maxsize=64)
def smoothed_crossentropy(smoothing):
  """The cross-entropy with a share of every label spread over all classes: `loss(labels, outputs)`, integer labels."""

  def loss(labels, outputs):
    classes = outputs.shape[-1]
    spread = tf.one_hot(class_labels(labels, outputs), classes, dtype=outputs.dtype)
    return crossentropy(spread * (1 - smoothing) + smoothing / classes, outputs)

  return loss


def class_labels(labels, outputs):
  """Labels [..., n], or class probabilities like the outputs, without an axis of one that Keras would take away too.

  Raises:
    ValueError: there is one logit, or the shapes do not belong together.
  """
  if outputs.shape[-1] == 1:
    raise ValueError(
      f"crossentropy: outputs have shape {outputs.shape}, one logit, whose softmax is 1 whatever it is; "
      "give the model one output for each class (two for yes and no)"
    )
  rank, message = outputs.shape.rank, (
    "crossentropy: labels have shape {}, outputs {}; expected integers [..., n] or [..., n, 1], or probabilities like "
    "the outputs"
  )  # fmt: skip
  if labels.shape.rank == rank and labels.shape[-1] == 1:
    labels = tf.squeeze(labels, -1)
  if labels.shape.rank == rank:
    return _same_shape(labels, outputs, message)
  if labels.shape.rank != rank - 1:
    raise ValueError(message.format(labels.shape, outputs.shape))
  return _same_shape(labels, outputs[..., 0], message, outputs)


def check_labels(labels, num_classes, mask=None, name="labels", because="the model has {} outputs"):
  """An error that names the first label outside of [0, num_classes), and where it is.

  Args:
    labels: concrete, [T, n] or [T, n, 1] integers (or floats that are); class probabilities are not looked at.
    num_classes: N.
    mask: [T, n], or None; what it leaves out may be anything.
    name: of the labels, in the error.
    because: what makes it so many classes, in the error.

  Raises:
    LabelError: there is one.
  """
  labels = np.asarray(labels)
  if labels.ndim == 3 and labels.shape[-1] == 1:
    labels = labels[..., 0]
  if labels.ndim != 2 or labels.dtype.kind not in "iuf":
    return
  wrong = ~((labels >= 0) & (labels < num_classes) & (labels == np.floor(labels)))
  if mask is not None:
    wrong &= np.asarray(mask, bool)
  if wrong.any():
    task, example = np.argwhere(wrong)[0]
    raise LabelError(
      f"{name}: label {labels[task, example]} (task {task}, example {example}) is no class: "
      f"{because.format(num_classes)}, so labels are 0 to {num_classes - 1}; number the classes from 0, or have more"
    )


def accuracy(labels, outputs, mask=None):
  """Fraction of examples [T, n] whose largest logit is the label's class, per task: [T]."""
  labels = class_labels(labels, outputs)
  if labels.shape.rank == outputs.shape.rank:
    labels = tf.argmax(labels, axis=-1, output_type=tf.int32)
  hits = tf.equal(tf.argmax(outputs, axis=-1, output_type=tf.int32), tf.cast(labels, tf.int32))
  return per_task(tf.cast(hits, outputs.dtype), mask)


def _same_shape(labels, outputs, message, shown=None):
  """The labels, if their shape is that of the outputs; what is not known when tracing is checked when it runs."""
  shown = outputs if shown is None else shown
  if not labels.shape.is_compatible_with(outputs.shape):
    raise ValueError(message.format(labels.shape, shown.shape))
  if labels.shape.is_fully_defined() and outputs.shape.is_fully_defined():
    return labels
  text = message.format(labels.shape, shown.shape)
  with tf.control_dependencies([tf.debugging.assert_equal(tf.shape(labels), tf.shape(outputs), text)]):
    return tf.identity(labels)


LOSSES = {"mse": mse, "crossentropy": crossentropy}


def get(loss):
  """The per-example loss of that name, or the callable itself; a dict, list or tuple has one for each output."""
  if isinstance(loss, dict):
    return {name: get(part) for name, part in loss.items()}
  if isinstance(loss, list | tuple):
    return tuple(get(part) for part in loss)
  if callable(loss):
    return loss
  if loss in LOSSES:
    return LOSSES[loss]
  raise ValueError(f"loss: expected one of {sorted(LOSSES)} or a callable, got {loss!r}")


def parts(loss, labels, outputs):
  """[(name, loss, labels, outputs)] for every output; one without a name where there is one loss.

  Raises:
    ValueError: losses, labels and outputs are not nested alike.
  """
  if not isinstance(loss, dict | tuple):
    if isinstance(outputs, dict | list | tuple):
      raise ValueError(f"loss: the model has several outputs, {_names(outputs)}; give a loss for each, nested likewise")
    return [("", loss, labels, outputs)]
  keys = list(loss) if isinstance(loss, dict) else list(range(len(loss)))
  for what, nest in (("labels", labels), ("outputs", outputs)):
    alike = isinstance(nest, dict) == isinstance(loss, dict) and isinstance(nest, dict | list | tuple)
    if not alike or set(_names(nest)) != set(keys):
      found = _names(nest) if isinstance(nest, dict | list | tuple) else f"one array of shape {nest.shape}"
      raise ValueError(f"loss: there is one for each of {keys}, but the {what} are {found}")
  return [(str(key), loss[key], labels[key], outputs[key]) for key in keys]


def _names(nest):
  return list(nest) if isinstance(nest, dict) else list(range(len(nest)))


def of_tasks(loss, labels, outputs, mask=None, shots=None):
  """The loss of every task, [T], summed over the outputs.

  Args:
    loss: as `get` returns it.
    labels: [T, n, ...], nested as the losses.
    outputs: [T, n, ...], nested likewise.
    mask: [T, n], or None.
    shots: function of the outputs that a loss is for -> `shots` of `per_task`; None: means over the examples.

  Raises:
    ValueError: shapes or nests that do not belong together; eagerly also a label that is no class.
  """
  totals = []
  for name, part, y, values in parts(loss, labels, outputs):
    if part is crossentropy and tf.executing_eagerly():
      check_labels(y, values.shape[-1], mask, f"labels of output {name}" if name else "labels")
    totals.append(per_task(per_example(part, y, values), mask, shots and shots(values)))
  return totals[0] if len(totals) == 1 else tf.add_n(totals)


def accuracies(loss, labels, outputs, mask=None):
  """{"accuracy": [T]} for the cross-entropy; for several outputs {"accuracy/<output>": [T]} for each that has it."""
  found = [(n, accuracy(y, out, mask)) for n, part, y, out in parts(loss, labels, outputs) if part is crossentropy]
  return {_accuracy_name(name): value for name, value in found}


def accuracy_names(loss):
  """The names in `accuracies`, in its order."""
  named = [("", loss)]
  if isinstance(loss, dict | tuple):
    named = loss.items() if isinstance(loss, dict) else enumerate(loss)
  return [_accuracy_name(str(name)) for name, part in named if part is crossentropy]


def _accuracy_name(output):
  return f"accuracy/{output}" if output else "accuracy"


def per_example(loss, labels, outputs):
  """The per-example losses [T, n], or with trailing axes, of labels [T, n, ...] and outputs [T, n, ...].

  Raises:
    ValueError: labels and outputs are not of the same examples, or what the loss returns is not.
  """
  name, message = getattr(loss, "__name__", "loss"), "loss {}: labels have shape {{}}, outputs {{}}; {}"
  for axis in (0, 1):
    sizes = labels.shape[axis : axis + 1], outputs.shape[axis : axis + 1]
    if labels.shape.rank < 2 or outputs.shape.rank < 2 or not sizes[0].is_compatible_with(sizes[1]):
      text = message.format(name, "both must begin with the same [T, n], tasks and examples")
      raise ValueError(text.format(labels.shape, outputs.shape))
  if loss not in LOSSES.values() and labels.shape.rank != outputs.shape.rank:
    _check_broadcast(loss, labels, outputs, message.format(name, "it broadcasts them against each other"))
  values = loss(labels, outputs)
  if values.shape.rank is None or values.shape.rank < 2:
    return values  # `per_task` says what is wrong with it
  trailing = values.shape[2:]
  belongs = any(trailing.is_compatible_with(of.shape[2 : 2 + trailing.rank]) for of in (labels, outputs))
  if not values.shape[:2].is_compatible_with(outputs.shape[:2]) or not belongs:
    text = message.format(name, f"it returns shape {values.shape}, expected a loss for each example, [T, n]")
    raise ValueError(text.format(labels.shape, outputs.shape))
  return values


def _check_broadcast(loss, labels, outputs, message):
  """An error where a loss of the user's works for equal numbers of tasks and examples only: it broadcasts."""
  specs = [tf.TensorSpec([7, 11, *tensor.shape[2:]], tensor.dtype) for tensor in (labels, outputs)]
  if not _traces(loss, *specs):
    raise ValueError(message.format(labels.shape, outputs.shape))


@functools.lru_cache(maxsize=64)
def _traces(loss, *specs):
  try:
    tracing.function(loss).get_concrete_function(*specs)
  except ValueError:
    return False
  return True


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
    mask = _same_shape(
      tf.convert_to_tensor(mask), per_example, "mask: it has shape {}, the losses {}; expected one for each, [T, n]"
    )
    # `where`, not a product: the loss of a padded example may be NaN (its label is no class, say).
    per_example = tf.where(tf.cast(mask, tf.bool), per_example, tf.zeros_like(per_example))
  if shots is not None:
    return tf.reduce_sum(per_example, axis=1) / tf.cast(shots, per_example.dtype)
  if mask is None:
    return tf.reduce_mean(per_example, axis=1)
  count = tf.reduce_sum(tf.cast(mask, per_example.dtype), axis=1)
  return tf.math.divide_no_nan(tf.reduce_sum(per_example, axis=1), count)
