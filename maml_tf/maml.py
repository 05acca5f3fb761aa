"""Model-agnostic meta-learning (Finn et al. 2017): the inner loop, and the gradient through it.

Weights are dicts of tensors with a leading task axis T, so that one inner step adapts all tasks at once. This is the
only module of the package with an inner loop.
"""

import dataclasses
import math
import numbers

import tensorflow as tf

from maml_tf import losses, tracing

STEP_SIZE_PREFIX = "inner_lr/"
STATISTICS_PREFIX = "statistics/"
BN_MODES = ("transductive", "support", "running")
RUNNING_MOMENTUM = 0.99  # as in Keras' BatchNormalization


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


def _inner_step(loss_fn, weights, inner_lr, first_order):
  """`inner_update`, and the losses [T] that it descends from."""
  rates = inner_lr if isinstance(inner_lr, dict) else dict.fromkeys(weights, inner_lr)
  adapted = {name: weights[name] for name in weights if name in rates}
  if not adapted:
    return weights, loss_fn(weights)
  with tf.GradientTape(watch_accessed_variables=False) as tape:
    tape.watch(adapted)
    task_losses = loss_fn(weights)
  # Tasks share no weights, so the gradient of the summed losses is each task's own gradient.
  gradients = _gradients(tape, task_losses, adapted)
  if first_order:
    gradients = tf.nest.map_structure(tf.stop_gradient, gradients)
  stepped = {n: adapted[n] - _cast(rates[n], adapted[n].dtype) * gradients[n] for n in adapted}
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
  return _unrolled(loss_fn, weights, inner_lr, num_updates, first_order)[0]


def _unrolled(loss_fn, weights, inner_lr, num_updates, first_order):
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
  zeros = tf.nest.map_structure(tf.zeros_like, sources)
  totals = zeros | {"weights": {n: zeros["weights"][n] if n in trail else g for n, g in upstream.items()}}

  def body(step, gradient, totals):
    before = {n: tf.gather(values, step) for n, values in trail.items()}
    at_step = sources | {"weights": sources["weights"] | before}
    with tf.GradientTape(watch_accessed_variables=False) as tape:
      tape.watch(at_step)
      weights, _ = step_from(at_step, step)
      after = {n: weights[n] for n in trail}
    pulled = tape.gradient(after, at_step, gradient, unconnected_gradients=tf.UnconnectedGradients.ZERO)
    gradient = {n: pulled["weights"][n] for n in trail}
    # What no step changes is used at every step; the adapted weights go on to the step before.
    pulled["weights"] |= {n: tf.zeros_like(g) for n, g in gradient.items()}
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
  return _fold_steps(loss_fn, weights, inner_lr, num_updates, None, ())[0]


def _fold_steps(loss_fn, weights, inner_lr, num_updates, measure, measured_dtypes):
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
  return {n: tf.stack([_cast(row.get(n, 0.0), weights[n].dtype) for row in rows]) for n in names}


def _rates_at(table, step):
  """The rows of `_rate_table` for one step, a tensor; the last one repeats."""
  return {n: tf.gather(values, tf.minimum(step, values.shape[0] - 1)) for n, values in table.items()}


def _cast(rate, dtype):
  """A step size in that dtype. `tf.cast` alone would take a Python float through float32."""
  return tf.cast(rate, dtype) if tf.is_tensor(rate) else tf.constant(rate, dtype)


@dataclasses.dataclass(frozen=True)
class LearnedStepSizes:
  """Step sizes that are meta-parameters: they start equal and are trained with the weights.

  They join the weights under names beginning with `inner_lr/`, so optimisers, checkpoints and exports carry them.

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
    """Dict `inner_lr/<name>` -> tensor, [num_steps] + (weight's shape, or nothing)."""
    values = {}
    for name in names:
      shape = weights[name].shape if self.per == "element" else []
      shape = shape if self.num_steps is None else [self.num_steps, *shape]
      values[STEP_SIZE_PREFIX + name] = tf.fill(shape, tf.cast(self.initial, weights[name].dtype))
    return values

  def rates(self, weights, names):
    """What `adapt` takes as `inner_lr`, read from the weights."""
    values = {name: weights[STEP_SIZE_PREFIX + name] for name in names}
    if self.num_steps is None:
      return values
    return [{n: v[step] for n, v in values.items()} for step in range(self.num_steps)]


class MAML:
  """MAML on a model with explicit weights.

  Args:
    model: an `ExplicitModel`.
    loss: "mse", "crossentropy", or a callable (labels, outputs) -> per-example losses [..., n].
    inner_lr: the step size alpha: a float; a dict per weight name (a name that is absent is not adapted); a list of
      either, one per step, the last repeating; or `LearnedStepSizes`.
    num_updates: inner steps in training.
    first_order: drop the second derivatives (section 5.2).
    loss_reduction: "mean" over examples, or "per_class_sum": the sum divided by the number of support examples per
      class, for the support and for the query loss alike (the published code's; see `losses.per_task`).
    bn_mode: whose statistics normalise the query examples; the support set has its own in every mode. "transductive":
      the query set's own (the published code's). "support": those of the support set under the adapted weights, so
      that a prediction does not depend on what else is asked. "running": moving averages over the query sets of
      training, which themselves are normalised by their own; they join the weights under names beginning with
      `statistics/`.
    checkpoint_inner_steps: recompute the inner steps in the backward pass (`adapt_recomputing`).
    compute_dtype: dtype of the model's forward pass and its derivatives, tf.bfloat16 for one; weights, statistics,
      losses and gradients keep that of the weights. None: that of the weights.

  Raises:
    ValueError: a step size that is not finite, an unknown weight name, loss, reduction or mode.
  """

  def __init__(
    self,
    model,
    loss="mse",
    inner_lr=0.01,
    num_updates=1,
    first_order=False,
    loss_reduction="mean",
    bn_mode="transductive",
    checkpoint_inner_steps=False,
    compute_dtype=None,
  ):
    if bn_mode not in BN_MODES:
      raise ValueError(f"bn_mode: expected one of {', '.join(BN_MODES)}, got {bn_mode!r}")
    if loss_reduction not in ("mean", "per_class_sum"):
      raise ValueError(f"loss_reduction: expected mean or per_class_sum, got {loss_reduction!r}")
    _check_updates(num_updates)
    _check_rates(inner_lr, model.weight_shapes)
    self.model = model
    self.loss = losses.get(loss)
    self.inner_lr = list(inner_lr) if isinstance(inner_lr, tuple) else inner_lr
    self.num_updates = num_updates
    self.first_order = first_order
    self.loss_reduction = loss_reduction
    self.bn_mode = bn_mode
    self.checkpoint_inner_steps = checkpoint_inner_steps
    self.compute_dtype = compute_dtype
    self._reports_accuracy = self.loss is losses.crossentropy

  def initial_weights(self, seed=0):
    """The model's `initial_weights`; with learned step sizes and running statistics, where there are such."""
    weights = self.model.initial_weights(seed)
    extra = {}
    if isinstance(self.inner_lr, LearnedStepSizes):
      extra |= self.inner_lr.initial_values(weights, self.model.adapted_names)
    if self.bn_mode == "running":
      extra |= self._initial_statistics(weights)
    return weights | extra

  @tracing.as_it_stands
  def adapt(self, weights, support_x, support_y, num_updates=None):
    """Adapts to every task, on all examples: a batch with masks goes through `meta_loss` and `evaluate`.

    Args:
      weights: dict of name -> plain tensor.
      support_x: [T, n, ...].
      support_y: [T, n, ...].
      num_updates: Python integer; None: as in training.

    Returns:
      List of dicts, every weight with a task axis, after 0..num_updates steps; with the statistics that `predict`
      normalises by, unless `bn_mode` is "transductive".
    """
    num_updates = self.num_updates if num_updates is None else num_updates
    _check_updates(num_updates)
    support_x = tf.convert_to_tensor(support_x)
    loss_fn = self._support_loss(support_x, support_y)
    start, rates = self._start(weights, support_x)
    steps = adapt(loss_fn, start, rates, num_updates, self.first_order)
    return [self._give_task_axis(self._with_statistics(step, support_x), support_x) for step in steps]

  @tracing.as_it_stands
  def adapt_final(self, weights, support_x, support_y, num_updates):
    """As `adapt`, only the last weights; num_updates may be a tensor."""
    _check_updates(num_updates)
    support_x = tf.convert_to_tensor(support_x)
    start, rates = self._start(weights, support_x)
    adapted = adapt_final(self._support_loss(support_x, support_y), start, rates, num_updates)
    return self._give_task_axis(self._with_statistics(adapted, support_x), support_x)

  @tracing.as_it_stands
  def predict(self, weights, x):
    """The model's outputs, normalised by the statistics among the weights where `adapt` put some there.

    Args:
      weights: dict as `adapt` returns it, or plain weights.
      x: [T, n, ...], or [n, ...] with plain weights.

    Returns:
      Outputs, in the dtype of the weights.
    """
    given = {n.removeprefix(STATISTICS_PREFIX): w for n, w in weights.items() if n.startswith(STATISTICS_PREFIX)}
    return self._outputs(weights, x, given or None)[0]

  @tracing.as_it_stands
  def meta_loss(self, weights, batch):
    """The meta-objective: the query loss after adaptation, mean over tasks (eq. 4; algorithm 2, line 10).

    Args:
      weights: dict of name -> plain tensor.
      batch: `TaskBatch`.

    Returns:
      (scalar loss, dict of name -> scalar: the losses that adapting computes anyway, and the accuracy after it; and,
      with running statistics, what they are to move towards, under their names among the weights).
    """
    batch = _as_tensors(batch)
    adapted, support_losses = self._adapt_for_training(weights, batch)
    return self._loss_and_metrics(adapted, support_losses, batch)

  @tracing.as_it_stands
  def meta_gradients(self, weights, batch):
    """(scalar meta-loss, its gradient: dict like `weights`), second order unless `first_order`."""
    weights = {name: tf.convert_to_tensor(value) for name, value in weights.items()}
    loss, gradients, _ = meta_gradients(self.meta_loss, weights, batch)
    return loss, gradients

  @tracing.as_it_stands
  def evaluate(self, weights, batch, num_updates=10):
    """Query loss, and accuracy where the loss is the cross-entropy, after 0..num_updates steps.

    Returns:
      {"loss": [num_updates + 1, T], "accuracy": likewise}.
    """
    _check_updates(num_updates)
    batch = _as_tensors(batch)
    start, rates = self._start(weights, batch.support_x)
    support_loss = self._support_loss(batch.support_x, batch.support_y, batch.support_mask)
    names = ["loss", "accuracy"] if self._reports_accuracy else ["loss"]
    dtype = next(iter(start.values())).dtype

    def measure(weights):
      measured = self._query_metrics(weights, batch)
      return [measured[name] for name in names]

    _, stacked = _fold_steps(support_loss, start, rates, num_updates, measure, [dtype] * len(names))
    return dict(zip(names, stacked, strict=True))

  def _start(self, weights, support_x):
    """(adapted weights repeated for every task and the others shared, step sizes)."""
    weights = {name: tf.convert_to_tensor(value) for name, value in weights.items()}
    rates = self._rates(weights)
    adapted = set().union(*(rates if isinstance(rates, list) else [rates]))
    statistics = [] if self.bn_mode == "running" else [n for n in weights if n.startswith(STATISTICS_PREFIX)]
    start = {n: w for n, w in weights.items() if not n.startswith(STEP_SIZE_PREFIX) and n not in statistics}
    num_tasks = _num_tasks(support_x)
    return {n: _repeat(w, num_tasks) if n in adapted else w for n, w in start.items()}, rates

  def _rates(self, weights):
    """Step sizes as a dict of name -> rate, or a list of such dicts, one per step."""
    names = self.model.adapted_names
    if isinstance(self.inner_lr, LearnedStepSizes):
      return self.inner_lr.rates(weights, names)

    def as_dict(rate):
      return dict(rate) if isinstance(rate, dict) else dict.fromkeys(names, rate)

    if isinstance(self.inner_lr, list):
      dtype = next(iter(weights.values())).dtype
      return [{n: _cast(r, dtype) for n, r in as_dict(rate).items()} for rate in self.inner_lr]
    return as_dict(self.inner_lr)

  def _adapt_for_training(self, weights, batch):
    """The weights after the last step, and the losses [T] before each, a list."""
    support_loss = self._support_loss(batch.support_x, batch.support_y, batch.support_mask)
    start, rates = self._start(weights, batch.support_x)
    arguments = support_loss, start, rates, self.num_updates, self.first_order
    if self.checkpoint_inner_steps:
      adapted, support_losses = adapt_recomputing(*arguments)
      return adapted, tf.unstack(support_losses)
    steps, support_losses = _unrolled(*arguments)
    return steps[-1], support_losses

  def _initial_statistics(self, weights):
    """Running statistics before any training: mean 0 and variance 1."""
    example = tf.zeros([1, *(1 if size is None else size for size in self.model.example_shape)])
    _, used = self.model.apply_with_statistics(weights, example)
    start = {n: tf.ones_like(s) if n.endswith("variance") else tf.zeros_like(s) for n, s in used.items()}
    return {STATISTICS_PREFIX + name: value for name, value in start.items()}

  def _with_statistics(self, weights, support_x):
    """The weights, and the statistics of the support set where those normalise the query examples."""
    if self.bn_mode != "support":
      return weights
    _, used = self._outputs(weights, support_x)
    return weights | {STATISTICS_PREFIX + name: value for name, value in used.items()}

  def _give_task_axis(self, weights, support_x):
    shapes = self.model.weight_shapes
    num_tasks = _num_tasks(support_x)
    # Statistics that have no task axis have one axis, channels.
    ranks = {n: len(shapes[n]) if n in shapes else 1 for n in weights}
    return {n: _repeat(w, num_tasks) if w.shape.rank == ranks[n] else w for n, w in weights.items()}

  def _outputs(self, weights, x, statistics=None):
    """(outputs in the dtype of the weights, statistics used), computed in `compute_dtype`."""
    if self.compute_dtype is None:
      if statistics is None:
        return self.model.apply_with_statistics(weights, x)
      return self.model.apply(weights, x, statistics), statistics
    dtype = next(iter(weights.values())).dtype
    narrow = {n: tf.cast(weights[n], self.compute_dtype) for n in self.model.weight_shapes}
    if statistics is None:
      outputs, statistics = self.model.apply_with_statistics(narrow, x)
    else:
      outputs = self.model.apply(narrow, x, statistics)
    return tf.cast(outputs, dtype), {n: tf.cast(value, dtype) for n, value in statistics.items()}

  def _support_loss(self, x, y, mask=None):
    y = tf.convert_to_tensor(y)

    def loss_fn(weights):
      outputs, _ = self._outputs(weights, x)
      return losses.per_task(self.loss(y, outputs), mask, self._shots(x, mask, outputs))

    return loss_fn

  def _query_metrics(self, weights, batch):
    """{"loss": [T]} and {"accuracy": [T]} for classification."""
    return self._measure(self.predict(self._with_statistics(weights, batch.support_x), batch.query_x), batch)

  def _loss_and_metrics(self, adapted, support_losses, batch):
    """What `meta_loss` returns."""
    moving = {}
    if self.bn_mode == "running":
      outputs, used = self._outputs(adapted, batch.query_x)
      moving = {STATISTICS_PREFIX + n: tf.stop_gradient(tf.reduce_mean(value, axis=0)) for n, value in used.items()}
      measured = self._measure(outputs, batch)
    else:
      measured = self._query_metrics(adapted, batch)
    metrics = {f"support_loss/step_{k}": tf.reduce_mean(value) for k, value in enumerate(support_losses)}
    metrics |= {f"query_{k}/step_{self.num_updates}": tf.reduce_mean(v) for k, v in measured.items()}
    return tf.reduce_mean(measured["loss"]), metrics | moving

  def _measure(self, outputs, batch):
    labels = tf.convert_to_tensor(batch.query_y)
    shots = self._shots(batch.support_x, batch.support_mask, outputs)
    measured = {"loss": losses.per_task(self.loss(labels, outputs), batch.query_mask, shots)}
    if self._reports_accuracy:
      measured["accuracy"] = losses.accuracy(labels, outputs, batch.query_mask)
    return measured

  def _shots(self, support_x, support_mask, outputs):
    """Support examples per class, K, for the per-class sum: a scalar, or [T] where examples are masked."""
    if self.loss_reduction == "mean":
      return None
    classes = tf.cast(tf.shape(outputs)[-1], outputs.dtype)
    if support_mask is None:
      return tf.cast(tf.shape(support_x)[1], outputs.dtype) / classes
    return tf.reduce_sum(tf.cast(support_mask, outputs.dtype), axis=1) / classes


@tracing.as_it_stands
def meta_gradients(meta_loss, weights, batch, task_chunk=None):
  """(loss, gradients like `weights`, metrics) of any `meta_loss(weights, batch) -> (loss, metrics)`.

  Args:
    meta_loss: a mean over tasks, and so its metrics.
    weights: dict of name -> tensor.
    batch: `TaskBatch`.
    task_chunk: tasks at a time: memory is that of so many, and the result the same but for rounding. It divides the
      number of tasks. None: all at once.
  """
  if task_chunk is None:
    return _meta_gradients(meta_loss, weights, batch)
  num_tasks = batch.support_x.shape[0]
  if num_tasks is None or num_tasks % task_chunk:
    raise ValueError(f"task_chunk: expected a number that divides the number of tasks, {num_tasks}, got {task_chunk}")
  batch, count = _as_tensors(batch), num_tasks // task_chunk

  def of_chunk(index):
    return _meta_gradients(meta_loss, weights, tasks_of(batch, index * task_chunk, task_chunk))

  of_chunk = tracing.function(of_chunk).get_concrete_function(tf.TensorSpec([], tf.int32))
  zeros = tf.nest.map_structure(lambda t: tf.zeros(t.shape, t.dtype), of_chunk.structured_outputs)

  def body(index, means):
    return index + 1, tf.nest.map_structure(lambda mean, new: mean + new / count, means, of_chunk(index))

  return tf.while_loop(lambda index, _: index < count, body, (0, zeros), parallel_iterations=1)[1]


def tasks_of(batch, first, count):
  """`count` tasks of a `TaskBatch`, from the tensor `first` on."""

  def slice_of(field):
    if field is None:
      return None
    # Not `field[first : first + count]`: XLA does not know the size of that.
    rest = field.shape.rank - 1
    part = tf.slice(field, [first] + [0] * rest, [count] + [-1] * rest)
    return tf.ensure_shape(part, [count, *field.shape[1:]])

  return type(batch)(*map(slice_of, batch))


def move_statistics(weights, metrics):
  """Moves running statistics towards those that `MAML.meta_loss` reports among its metrics.

  Returns:
    (weights, the other metrics).
  """
  new = {name: value for name, value in metrics.items() if name.startswith(STATISTICS_PREFIX)}
  moved = {n: RUNNING_MOMENTUM * weights[n] + (1 - RUNNING_MOMENTUM) * value for n, value in new.items()}
  return weights | moved, {name: value for name, value in metrics.items() if name not in new}


def _meta_gradients(meta_loss, weights, batch):
  with tf.GradientTape(watch_accessed_variables=False) as tape:
    tape.watch(weights)
    loss, metrics = meta_loss(weights, batch)
  return loss, _gradients(tape, loss, weights), metrics


def _gradients(tape, target, weights):
  """Gradients, zero for a weight that the target does not use; an error where it uses none of them."""
  gradients = tape.gradient(target, weights)
  if all(gradient is None for gradient in gradients.values()):
    raise ValueError(
      f"the loss does not depend on any of the weights {', '.join(weights)}: "
      "it must be computed from model.apply(weights, ...) with differentiable operations"
    )
  return {n: tf.zeros_like(weights[n]) if g is None else g for n, g in gradients.items()}


def _as_tensors(batch):
  return type(batch)(*(field if field is None else tf.convert_to_tensor(field) for field in batch))


def _num_tasks(x):
  static = x.shape[0]
  return tf.shape(x)[0] if static is None else static


def for_each_task(weights, data):
  """Plain weights once for each task of `data` [T, ...]: dict of name -> tensor [T, ...]."""
  return {name: _repeat(weight, _num_tasks(data)) for name, weight in weights.items()}


def _repeat(weight, num_tasks):
  """A plain weight, once for each task: [...] -> [T, ...]."""
  return tf.broadcast_to(weight, tf.concat([[num_tasks], tf.shape(weight)], 0))


def _check_rates(inner_lr, shapes):
  if isinstance(inner_lr, LearnedStepSizes):
    return _check_rates(inner_lr.initial, shapes)
  if isinstance(inner_lr, (list, tuple)):
    if not inner_lr:
      raise ValueError("inner_lr: an empty list has no step size for the first step")
    for rate in inner_lr:
      _check_rates(rate, shapes)
  elif isinstance(inner_lr, dict):
    for name, rate in inner_lr.items():
      if name not in shapes:
        raise ValueError(f"inner_lr: no weight is called {name!r}; there are {', '.join(shapes)}")
      _check_rates(rate, shapes)
  elif not tf.is_tensor(inner_lr) and not (isinstance(inner_lr, numbers.Real) and math.isfinite(inner_lr)):
    raise ValueError(f"inner_lr: expected a finite number, got {inner_lr!r}")
  return None


def _check_updates(num_updates):
  if isinstance(num_updates, numbers.Integral) and num_updates < 0:
    raise ValueError(f"num_updates: expected 0 or more, got {num_updates}")
