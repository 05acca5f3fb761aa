"""Linear algebra on dicts of tensors: sums, inner products, and conjugate gradients, of one system or one a task."""

import tensorflow as tf


def dot(left, right):
  """Inner product of two dicts of tensors, a scalar."""
  return tf.add_n([tf.reduce_sum(left[name] * right[name]) for name in left])


def add(left, right, factor):
  """left + factor * right, of dicts of tensors."""
  return {name: left[name] + factor * right[name] for name in left}


def conjugate_gradient(product, target, iterations=10, tolerance=1e-10):
  """Solves A x = b approximately, for a symmetric positive definite A.

  Args:
    product: x -> A x, on dicts of tensors.
    target: b, a dict of tensors.
    iterations: at most so many products.
    tolerance: it ends when the squared residual is below.

  Returns:
    (x, residual b - A x, number of products).
  """

  def body(count, x, residual, direction, squared):
    curved = product(direction)
    step = squared / dot(direction, curved)
    x = add(x, direction, step)
    residual = add(residual, curved, -step)
    new = dot(residual, residual)
    return count + 1, x, residual, add(residual, direction, new / squared), new

  zero = tf.nest.map_structure(tf.zeros_like, target)
  count, x, residual, _, _ = tf.while_loop(
    lambda count, x, residual, direction, squared: (count < iterations) & (squared > tolerance),
    body,
    (0, zero, target, target, dot(target, target)),
    parallel_iterations=1,
  )
  return x, residual, count


def dot_per_task(left, right):
  """Inner products [T] of two dicts of tensors [T, ...]."""
  products = [left[name] * right[name] for name in left]
  return tf.add_n([tf.reduce_sum(tf.reshape(p, [tf.shape(p)[0], -1]), axis=1) for p in products])


def add_per_task(left, right, factors):
  """left + factors * right, of dicts of tensors [T, ...] and factors [T]."""
  return {name: left[name] + _along(factors, right[name]) * right[name] for name in left}


def conjugate_gradient_per_task(product, target, iterations=10):
  """`conjugate_gradient` of T systems at once, each with step sizes of its own.

  A system is left as it is where it is solved, or where the next direction has no positive curvature: there its matrix
  is not positive definite.

  Args:
    product: x -> A x, on dicts of tensors [T, ...]: of every task its own A.
    target: b, a dict of tensors [T, ...].
    iterations: products.

  Returns:
    x, like `target`.
  """

  def body(count, x, residual, direction, squared):
    curved = product(direction)
    curvature = dot_per_task(direction, curved)
    goes_on = curvature > 0
    step = tf.where(goes_on, tf.math.divide_no_nan(squared, curvature), tf.zeros_like(squared))
    x = add_per_task(x, direction, step)
    residual = add_per_task(residual, curved, -step)
    new = dot_per_task(residual, residual)
    direction = add_per_task(residual, direction, tf.math.divide_no_nan(new, squared))
    direction = {n: tf.where(_along(goes_on, d), d, tf.zeros_like(d)) for n, d in direction.items()}
    return count + 1, x, residual, direction, new

  zero = tf.nest.map_structure(tf.zeros_like, target)
  return tf.while_loop(
    lambda count, *_: count < iterations,
    body,
    (0, zero, target, target, dot_per_task(target, target)),
    parallel_iterations=1,
  )[1]


def _along(values, tensor):
  """Values [T] with axes of one behind, to go with a tensor [T, ...]."""
  return tf.reshape(values, [-1] + [1] * (tensor.shape.rank - 1))
