"""Model-agnostic meta-learning (Finn et al. 2017): the inner loop, and the gradient through it.

Weights are dicts of tensors with a leading task axis T, so that one inner step adapts all tasks at once. This is the
only module of the package with an inner loop.
"""

import dataclasses

import tensorflow as tf

from maml_tf import over_tasks


def inner_update(loss_fn, weights, inner_lr, first_order=False):
  """One gradient step on every task: theta_i' = theta_i - alpha * grad L_i(theta_i)   (Finn et al. 2017, eq. 1).

  Args:
    loss_fn: maps weights to per-task losses, shape [T].
    weights: dict of name -> tensor [T, ...].
    inner_lr: float or scalar tensor, or dict of name -> float or tensor; a name that is absent is not adapted.
    first_order: if True, treat the gradient as a constant (section 5.2, "first order approx.").

  Returns:
    Dict like `weights`, one step further.
  """
  return _inner_step(loss_fn, weights, inner_lr, first_order)[0]


def losses_and_gradients(loss_fn, weights, names):
  """(losses [T], their gradients: dict of name -> [T, ...]), for the weights of those names: arguments as above."""
  adapted = {name: weights[name] for name in names}
  with tf.GradientTape(watch_accessed_variables=False) as tape:
    tape.watch(adapted)
    task_losses = loss_fn(weights | adapted)
  # Tasks share no weights, so the gradient of the summed losses is each task's own gradient.
  return task_losses, over_tasks.gradients(tape, task_losses, adapted)


def _inner_step(loss_fn, weights, inner_lr, first_order):
  """`inner_update`, and the losses [T] that it descends from."""
  rates = inner_lr if isinstance(inner_lr, dict) else dict.fromkeys(weights, inner_lr)
  adapted = {name: weights[name] for name in weights if name in rates}
  if not adapted:
    return weights, loss_fn(weights)
  task_losses, gradients = losses_and_gradients(loss_fn, weights, adapted)
  if first_order:
    gradients = tf.nest.map_structure(tf.stop_gradient, gradients)
  stepped = {n: adapted[n] - as_rate(rates[n], adapted[n].dtype) * gradients[n] for n in adapted}
  return weights | stepped, task_losses


def adapt(loss_fn, weights, inner_lr, num_updates, first_order=False):
  """The inner loop: the weights after 0, 1, ..., num_updates steps, a list.

  Args:
    loss_fn: as in `inner_update`; or a sequence with one such function per step (fresh data at each).
    weights: dict of name -> tensor [T, ...].
    inner_lr: as in `inner_update`; or a list with one per step, the last repeating (MAML++).
    num_updates: Python integer.
    first_order: as in `inner_update`.
  """
  return unrolled(loss_fn, weights, inner_lr, num_updates, first_order)[0]


def unrolled(loss_fn, weights, inner_lr, num_updates, first_order):
  """`adapt`, and the losses [T] before each step, a list."""
  steps, task_losses = [weights], []
  for step in range(num_updates):
    fn = loss_fn if callable(loss_fn) else loss_fn[step]
    weights, before = _inner_step(fn, weights, _at_step(inner_lr, step), first_order)
    steps.append(weights)
    task_losses.append(before)
  return steps, task_losses


def adapt_with_fresh_data(collect, loss_of, weights, inner_lr, num_updates):
  """The inner loop where each step has data of its own, which depends on the weights: rollouts of a policy.

  Args:
    collect: function (weights, step) -> data, called with the weights after 0, 1, ..., num_updates steps.
    loss_of: function data -> loss function as in `inner_update`.
    weights: dict of name -> tensor [T, ...].
    inner_lr: as in `adapt`.
    num_updates: Python integer.

  Returns:
    (list of weights after 0..num_updates steps, list of the data collected with each). Nothing here is differentiated:
    for a meta-gradient, `adapt` goes through the same steps again, with the losses of these data.
  """
  steps, data = [weights], [collect(weights, 0)]
  for step in range(num_updates):
    weights = inner_update(loss_of(data[step]), weights, _at_step(inner_lr, step), first_order=True)
    steps.append(weights)
    data.append(collect(weights, step + 1))
  return steps, data


def adapt_recomputing(loss_fn, weights, inner_lr, num_updates, first_order=False):
  """As `adapt`, only the last weights, in the memory of one step however many there are, for one more forward pass.

  Going forward it keeps the weights before each step and none of the activations; going back it computes each step
  anew, the last one first. (`tf.recompute_grad` gives no gradient through an inner tape.) Only the weights and the step
  sizes have gradients: not what `loss_fn` closes over.

  Args:
    loss_fn: as in `inner_update`; one for all steps.
    weights: dict of name -> tensor [T, ...]; those that no step changes may be shared.
    inner_lr: as in `adapt`.
    num_updates: Python integer.
    first_order: as in `inner_update`.

  Returns:
    (weights, the losses before each step [num_updates, T], which have no gradient).
  """
  table = _rate_table(inner_lr, weights)
  adapted_names = [name for name in weights if name in table]
  # Copies: of a graph's own tensors and those of one around it, `tf.custom_gradient` takes the first only.
  sources = tf.nest.map_structure(tf.identity, {"weights": dict(weights), "rates": table})

  def step_from(sources, step):
    return _inner_step(loss_fn, sources["weights"], _rates_at(sources["rates"], step), first_order)

  @tf.custom_gradient
  def run(*flat):
    copies = tf.nest.pack_sequence_as(sources, flat)
    final, task_losses, trail = _record_steps(step_from, copies, adapted_names, num_updates)

    def backward(*upstream):
      upstream = tf.nest.pack_sequence_as((final, task_losses), upstream)[0]
      return tf.nest.flatten(_through_steps(step_from, copies, upstream, trail, num_updates))

    return tf.nest.flatten((final, task_losses)), backward

  final, task_losses = tf.nest.pack_sequence_as((weights, 0), run(*tf.nest.flatten(sources)))
  return {name: final[name] for name in weights}, task_losses


def _record_steps(step_from, sources, adapted_names, num_updates):
  """Runs the steps forward: the last weights, the losses [S, T], the adapted weights before each step [S, T, ...]."""
  start = sources["weights"]
  trail = {n: tf.TensorArray(start[n].dtype, num_updates, element_shape=start[n].shape) for n in adapted_names}
  losses = tf.TensorArray(next(iter(start.values())).dtype, num_updates)

  def body(step, adapted, trail, losses):
    weights, before = step_from(sources | {"weights": start | adapted}, step)
    trail = {n: array.write(step, adapted[n]) for n, array in trail.items()}
    return step + 1, {n: weights[n] for n in adapted_names}, trail, losses.write(step, before)

  _, adapted, trail, losses = tf.while_loop(
    lambda step, *_: step < num_updates, body, (0, {n: start[n] for n in adapted_names}, trail, losses)
  )
  return start | adapted, losses.stack(), {n: array.stack() for n, array in trail.items()}


def _through_steps(step_from, sources, upstream, trail, num_updates):
  """Runs the steps backward: the gradient of the last weights, `upstream`, pulled back to the sources."""
  # What no step changes is used at every step; the gradient of the adapted weights goes on to the step before.
  totals = {
    "weights": {n: gradient for n, gradient in upstream.items() if n not in trail},
    "rates": tf.nest.map_structure(tf.zeros_like, sources["rates"]),
  }

  def body(step, gradient, totals):
    before = {n: tf.gather(values, step) for n, values in trail.items()}
    at_step = sources | {"weights": sources["weights"] | before}
    with tf.GradientTape(watch_accessed_variables=False) as tape:
      tape.watch(at_step)
      weights, _ = step_from(at_step, step)
      after = {n: weights[n] for n in trail}
    pulled = tape.gradient(after, at_step, gradient, unconnected_gradients=tf.UnconnectedGradients.ZERO)
    gradient = {n: pulled["weights"][n] for n in trail}
    pulled["weights"] = {n: pulled["weights"][n] for n in totals["weights"]}
    return step - 1, gradient, tf.nest.map_structure(tf.add, totals, pulled)

  # One at a time: what a step computes anew does not wait for the gradient, so that others would be begun beside it.
  _, gradient, totals = tf.while_loop(
    lambda step, *_: step >= 0,
    body,
    (num_updates - 1, {n: upstream[n] for n in trail}, totals),
    parallel_iterations=1,
  )
  return totals | {"weights": totals["weights"] | gradient}


def adapt_final(loss_fn, weights, inner_lr, num_updates):
  """As `adapt`, but only the last weights; num_updates may be a tensor. For evaluation: memory is that of one step."""
  return fold_steps(loss_fn, weights, inner_lr, num_updates, None, ())[0]


def fold_steps(loss_fn, weights, inner_lr, num_updates, measure, measured_dtypes):
  """The inner loop as a `tf.while_loop`; also stacks what `measure(weights)` returns after 0..num_updates steps."""
  num_updates = tf.cast(num_updates, tf.int32)
  table = _rate_table(inner_lr, weights)
  arrays = [tf.TensorArray(dtype, num_updates + 1) for dtype in measured_dtypes]

  def record(step, weights, arrays):
    if measure is None:
      return arrays
    return [a.write(step, v) for a, v in zip(arrays, measure(weights), strict=True)]

  def body(step, weights, arrays):
    weights = inner_update(loss_fn, weights, _rates_at(table, step), first_order=True)
    return step + 1, weights, record(step + 1, weights, arrays)

  _, weights, arrays = tf.while_loop(
    lambda step, *_: step < num_updates, body, (0, weights, record(0, weights, arrays))
  )
  return weights, [array.stack() for array in arrays]


def _at_step(inner_lr, step):
  return inner_lr[min(step, len(inner_lr) - 1)] if isinstance(inner_lr, list) else inner_lr


def _rate_table(inner_lr, weights):
  """Step sizes as tensors, dict of name -> [steps, ...]: one row, or one for each step of a list."""
  rows = inner_lr if isinstance(inner_lr, list) else [inner_lr]
  rows = [row if isinstance(row, dict) else dict.fromkeys(weights, row) for row in rows]
  names = [name for name in weights if any(name in row for row in rows)]
  # A name that is missing at one step is not adapted there: its step size is zero.
  return {n: tf.stack([as_rate(row.get(n, 0.0), weights[n].dtype) for row in rows]) for n in names}


def _rates_at(table, step):
  """The rows of `_rate_table` for one step, a tensor; the last one repeats."""
  return {n: tf.gather(values, tf.minimum(step, values.shape[0] - 1)) for n, values in table.items()}


def as_rate(rate, dtype):
  """A step size in that dtype. `tf.cast` alone would take a Python float through float32."""
  return tf.cast(rate, dtype) if tf.is_tensor(rate) else tf.constant(rate, dtype)


@dataclasses.dataclass(frozen=True)
class LearnedStepSizes:
  """Step sizes that are meta-parameters: they start equal and are trained with the weights.

  Args:
    initial: the value they start from.
    per: "weight" (one for each weight tensor) or "element" (Meta-SGD, Li et al. 2017).
    num_steps: None: the same at every step; S: one set for each of S steps, the last repeating (MAML++'s LSLR,
      Antoniou et al. 2019).
  """

  initial: float
  per: str = "weight"
  num_steps: int | None = None

  def __post_init__(self):
    if self.per not in ("weight", "element"):
      raise ValueError(f"LearnedStepSizes: per must be 'weight' or 'element', got {self.per!r}")
    if self.num_steps is not None and self.num_steps < 1:
      raise ValueError(f"LearnedStepSizes: num_steps must be at least 1, got {self.num_steps}")

  def initial_values(self, weights, names):
    """Dict of name -> tensor, [num_steps] + (the weight's shape, or nothing)."""
    values = {}
    for name in names:
      shape = weights[name].shape if self.per == "element" else []
      shape = shape if self.num_steps is None else [self.num_steps, *shape]
      values[name] = tf.fill(shape, as_rate(self.initial, weights[name].dtype))
    return values

  def rates(self, values):
    """What `adapt` takes as `inner_lr`, of such values."""
    if self.num_steps is None:
      return dict(values)
    return [{n: v[step] for n, v in values.items()} for step in range(self.num_steps)]
