"""A function of one task, applied to all: vectorised where TensorFlow can, in a loop where not."""

import logging

import tensorflow as tf

from maml_tf import tracing


class TaskMap:
  """Applies a function of one task to all of them: vectorised where TensorFlow can, in a loop where not.

  Eagerly it is always a loop: to vectorise is to trace, which would happen anew at every call and take longer.

  Args:
    unrolls: whether the loop is unrolled where the number of tasks is known. TensorFlow cannot differentiate a loop
      twice that looks something up in a table.
    loops: whether it is a loop whatever TensorFlow can, one task after the other: to vectorise many operations takes
      minutes, and the memory of all tasks.
  """

  def __init__(self, unrolls=False, loops=False):
    self._unrolls, self._loops = unrolls, loops
    self._loop_signatures = {}

  def __call__(self, function, elements, **settings):
    """`function` over the first axis of the nested `elements`; `settings` is what else its operations depend on."""
    if self._unrolls and (num_tasks := tf.nest.flatten(elements)[0].shape[0]) is not None:
      results = [function(tf.nest.map_structure(lambda e, t=task: e[t], elements)) for task in range(num_tasks)]
      return tf.nest.map_structure(lambda *values: tf.stack(values), *results)
    if self._loops and not tf.executing_eagerly():
      return _looped(function, elements)
    key = self._key(elements, settings)
    if key not in self._loop_signatures:
      vectorises = not tf.executing_eagerly() and _can_vectorise(function, elements)
      self._loop_signatures[key] = None if vectorises else _output_signature(function, elements)
    if self._loop_signatures[key] is None:
      return tf.vectorized_map(function, elements, fallback_to_while_loop=False)
    return tf.map_fn(tracing.as_it_stands(function), elements, fn_output_signature=self._loop_signatures[key])

  @staticmethod
  def _key(elements, settings):
    # Which weights have a task axis decides too: a convolution vectorises with shared filters only.
    names = tuple(tuple(sorted(part)) for part in elements if isinstance(part, dict))
    specs = tuple((e.dtype, *e.shape[1:]) for e in tf.nest.flatten(elements))
    return tf.executing_eagerly(), names, specs, tuple(settings.items())


def _looped(function, elements):
  """One task after the other, traced once; without a loop where there is one task."""
  if tf.nest.flatten(elements)[0].shape[0] == 1:
    only = function(tf.nest.map_structure(lambda e: e[0], elements))
    return tf.nest.map_structure(lambda value: value[tf.newaxis], only)
  of_one = tf.nest.map_structure(lambda e: tf.TensorSpec(e.shape[1:], e.dtype), elements)
  traced = tracing.function(function).get_concrete_function(of_one)
  signature = tf.nest.map_structure(lambda o: tf.TensorSpec(o.shape, o.dtype), traced.structured_outputs)
  return tf.map_fn(traced, elements, fn_output_signature=signature, parallel_iterations=1)


def _can_vectorise(function, elements):
  """Whether `tf.vectorized_map` converts every operation of `function`; traced in a graph that is thrown away."""
  specs = tf.nest.map_structure(lambda e: tf.TensorSpec(e.shape, e.dtype), elements)

  def vectorised(elements):
    # Under two tapes, as in a meta-gradient: there TensorFlow traces control flow into functions of another kind.
    with tf.GradientTape() as outer, tf.GradientTape() as inner:
      for tape in (outer, inner):
        tape.watch([e for e in tf.nest.flatten(elements) if e.dtype.is_floating])
      return tf.vectorized_map(function, elements, fallback_to_while_loop=False)

  probe = tracing.function(vectorised)
  level = tf.get_logger().level
  tf.get_logger().setLevel(logging.CRITICAL + 1)  # a failure is an answer here, not an error
  try:
    probe.get_concrete_function(specs)
  except Exception:  # the converters raise whatever they like: ValueError, NotImplementedError, AttributeError ...
    return False
  finally:
    tf.get_logger().setLevel(level)
  return True


def _output_signature(function, elements):
  """What `function` returns for one element, as nested `tf.TensorSpec`."""
  one = tf.nest.map_structure(lambda e: tf.TensorSpec(e.shape[1:], e.dtype), elements)
  outputs = tracing.function(function).get_concrete_function(one).structured_outputs
  return tf.nest.map_structure(lambda o: tf.TensorSpec(o.shape, o.dtype), outputs)
