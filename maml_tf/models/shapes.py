"""Shapes of one example: a tuple of sizes, or tuples nested as a model takes its inputs."""

import tensorflow as tf


def is_shape(value):
  return isinstance(value, (tuple, list, tf.TensorShape)) and all(
    size is None or isinstance(size, int) for size in value
  )


def map_shapes(function, shape):
  """`function` of every shape of a nest of dicts, lists and tuples."""
  if is_shape(shape):
    return function(shape)
  if isinstance(shape, dict):
    return {key: map_shapes(function, value) for key, value in shape.items()}
  return tuple(map_shapes(function, value) for value in shape)


def flatten(shape):
  """The shapes of a nest, in the order of `tf.nest.flatten`."""
  if is_shape(shape):
    return [tuple(shape)]
  parts = [shape[key] for key in sorted(shape)] if isinstance(shape, dict) else shape
  return [leaf for part in parts for leaf in flatten(part)]


def zeros_of_one(shape):
  """A batch of one example of zeros; unknown sizes are 1."""
  return tf.zeros([1, *(1 if size is None else size for size in shape)])


def task_axis(name, x, expected):
  """Whether inputs [T, n, ...] or [n, ...] have a task axis; an error with the received shapes where they fit neither.

  Args:
    name: of the model.
    x: a tensor, or a nest of them.
    expected: shape of one example, nested likewise.
  """
  wanted, found = flatten(expected), tf.nest.flatten(x)
  same_nest = isinstance(x, dict) == isinstance(expected, dict) and len(found) == len(wanted)
  extra = {tensor.shape.rank - len(shape) for tensor, shape in zip(found, wanted, strict=same_nest)}
  fits = all(t.shape[t.shape.rank - len(s) :].is_compatible_with(s) for t, s in zip(found, wanted, strict=False))
  if not same_nest or len(extra) != 1 or not extra <= {1, 2} or not fits:
    plain, with_tasks = (_described(map_shapes(lambda s, axes=axes: (*axes, *s), expected)) for axes in ("n", "Tn"))
    shapes = tuple(x.shape) if tf.is_tensor(x) else tf.nest.map_structure(lambda t: t.shape, x)
    raise ValueError(f"{name}: expected inputs {plain} or {with_tasks}, got shape {shapes}")
  return extra == {2}


def _described(shape):
  if isinstance(shape, dict):
    return "{" + ", ".join(f"{key}: {_described(value)}" for key, value in shape.items()) + "}"
  if isinstance(shape[0], str):
    return "[" + ", ".join("?" if size is None else str(size) for size in shape) + "]"
  return "(" + ", ".join(map(_described, shape)) + ")"
