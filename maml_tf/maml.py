"""Model-agnostic meta-learning (Finn et al. 2017): the inner loop, and the gradient through it.

Weights are dicts of tensors with a leading task axis T, so that one inner step adapts all tasks at once. This is the
only module of the package with an inner loop.
"""

import dataclasses
import math
import numbers

import tensorflow as tf

from maml_tf import losses

STEP_SIZE_PREFIX = "inner_lr/"


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
  rates = inner_lr if isinstance(inner_lr, dict) else dict.fromkeys(weights, inner_lr)
  adapted = {name: weights[name] for name in weights if name in rates}
  if not adapted:
    return weights
  with tf.GradientTape(watch_accessed_variables=False) as tape:
    tape.watch(adapted)
    task_losses = loss_fn(weights)
  # Tasks share no weights, so the gradient of the summed losses is each task's own gradient.
  gradients = _gradients(tape, task_losses, adapted)
  if first_order:
    gradients = tf.nest.map_structure(tf.stop_gradient, gradients)
  stepped = {n: adapted[n] - _cast(rates[n], adapted[n].dtype) * gradients[n] for n in adapted}
  return weights | stepped


def adapt(loss_fn, weights, inner_lr, num_updates, first_order=False):
  """The inner loop: the weights after 0, 1, ..., num_updates steps, a list.

  Args:
    loss_fn: as in `inner_update`; or a sequence with one such function per step (fresh data at each).
    weights: dict of name -> tensor [T, ...].
    inner_lr: as in `inner_update`; or a list with one per step, the last repeating (MAML++).
    num_updates: Python integer.
    first_order: as in `inner_update`.
  """
  steps = [weights]
  for step in range(num_updates):
    fn = loss_fn if callable(loss_fn) else loss_fn[step]
    steps.append(inner_update(fn, steps[-1], _at_step(inner_lr, step), first_order))
  return steps


def adapt_final(loss_fn, weights, inner_lr, num_updates):
  """As `adapt`, but only the last weights; num_updates may be a tensor. For evaluation: memory is that of one step."""
  return _fold_steps(loss_fn, weights, inner_lr, num_updates, None, ())[0]


def _fold_steps(loss_fn, weights, inner_lr, num_updates, measure, measured_dtypes):
  """The inner loop as a `tf.while_loop`; also stacks what `measure(weights)` returns after 0..num_updates steps."""
  num_updates = tf.cast(num_updates, tf.int32)
  rates = _stack_steps(inner_lr)
  arrays = [tf.TensorArray(dtype, num_updates + 1) for dtype in measured_dtypes]

  def record(step, weights, arrays):
    if measure is None:
      return arrays
    return [a.write(step, v) for a, v in zip(arrays, measure(weights), strict=True)]

  def body(step, weights, arrays):
    weights = inner_update(loss_fn, weights, rates(step), first_order=True)
    return step + 1, weights, record(step + 1, weights, arrays)

  _, weights, arrays = tf.while_loop(
    lambda step, *_: step < num_updates, body, (0, weights, record(0, weights, arrays))
  )
  return weights, [array.stack() for array in arrays]


def _at_step(inner_lr, step):
  return inner_lr[min(step, len(inner_lr) - 1)] if isinstance(inner_lr, list) else inner_lr


def _stack_steps(inner_lr):
  """A function step tensor -> dict of step sizes, for a list of dicts or one dict."""
  if not isinstance(inner_lr, list):
    return lambda step: inner_lr
  names = {name for rates in inner_lr for name in rates}
  # A name that is missing at one step is not adapted there: its step size is zero.
  stacked = {n: _stack([rates.get(n, 0.0) for rates in inner_lr]) for n in names}
  last = len(inner_lr) - 1
  return lambda step: {n: tf.gather(values, tf.minimum(step, last)) for n, values in stacked.items()}


def _stack(rates):
  dtype = next((rate.dtype for rate in rates if tf.is_tensor(rate)), tf.float32)
  return tf.stack([_cast(rate, dtype) for rate in rates])


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

  Raises:
    ValueError: a step size that is not finite, an unknown weight name, loss or reduction.
  """

  def __init__(
    self,
    model,
    loss="mse",
    inner_lr=0.01,
    num_updates=1,
    first_order=False,
    loss_reduction="mean",
  ):
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
    self._reports_accuracy = self.loss is losses.crossentropy

  def initial_weights(self, seed=0):
    """The model's `initial_weights`, and the step sizes where they are learned."""
    weights = self.model.initial_weights(seed)
    if isinstance(self.inner_lr, LearnedStepSizes):
      weights |= self.inner_lr.initial_values(weights, self.model.adapted_names)
    return weights

  def adapt(self, weights, support_x, support_y, num_updates=None):
    """Adapts to every task, on all examples: a batch with masks goes through `meta_loss` and `evaluate`.

    Args:
      weights: dict of name -> plain tensor.
      support_x: [T, n, ...].
      support_y: [T, n, ...].
      num_updates: Python integer; None: as in training.

    Returns:
      List of dicts, every weight with a task axis, after 0..num_updates steps.
    """
    num_updates = self.num_updates if num_updates is None else num_updates
    _check_updates(num_updates)
    support_x = tf.convert_to_tensor(support_x)
    loss_fn = self._support_loss(support_x, support_y)
    start, rates = self._start(weights, support_x)
    steps = adapt(loss_fn, start, rates, num_updates, self.first_order)
    return [self._give_task_axis(step, support_x) for step in steps]

  def adapt_final(self, weights, support_x, support_y, num_updates):
    """As `adapt`, only the last weights; num_updates may be a tensor."""
    _check_updates(num_updates)
    support_x = tf.convert_to_tensor(support_x)
    start, rates = self._start(weights, support_x)
    adapted = adapt_final(self._support_loss(support_x, support_y), start, rates, num_updates)
    return self._give_task_axis(adapted, support_x)

  def meta_loss(self, weights, batch):
    """The meta-objective: the query loss after adaptation, mean over tasks (eq. 4; algorithm 2, line 10).

    Args:
      weights: dict of name -> plain tensor.
      batch: `TaskBatch`.

    Returns:
      (scalar loss, dict of name -> scalar: the losses that adapting computes anyway, and the accuracy after it).
    """
    batch = _as_tensors(batch)
    support_losses = []
    support_loss = self._support_loss(batch.support_x, batch.support_y, batch.support_mask)

    def recording(weights):
      task_losses = support_loss(weights)
      support_losses.append(tf.reduce_mean(task_losses))
      return task_losses

    start, rates = self._start(weights, batch.support_x)
    adapted = adapt(recording, start, rates, self.num_updates, self.first_order)[-1]
    measured = self._query_metrics(adapted, batch)
    loss = tf.reduce_mean(measured["loss"])
    metrics = {f"support_loss/step_{k}": value for k, value in enumerate(support_losses)}
    metrics |= {f"query_{k}/step_{self.num_updates}": tf.reduce_mean(v) for k, v in measured.items()}
    return loss, metrics

  def meta_gradients(self, weights, batch):
    """(scalar meta-loss, its gradient: dict like `weights`), second order unless `first_order`."""
    weights = {name: tf.convert_to_tensor(value) for name, value in weights.items()}
    loss, gradients, _ = meta_gradients(self.meta_loss, weights, batch)
    return loss, gradients

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
    start = {n: w for n, w in weights.items() if not n.startswith(STEP_SIZE_PREFIX)}
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

  def _give_task_axis(self, weights, support_x):
    shapes = self.model.weight_shapes
    num_tasks = _num_tasks(support_x)
    return {n: _repeat(w, num_tasks) if w.shape.rank == len(shapes[n]) else w for n, w in weights.items()}

  def _support_loss(self, x, y, mask=None):
    y = tf.convert_to_tensor(y)

    def loss_fn(weights):
      outputs = self.model.apply(weights, x)
      return losses.per_task(self.loss(y, outputs), mask, self._shots(x, mask, outputs))

    return loss_fn

  def _query_metrics(self, weights, batch):
    """{"loss": [T]} and {"accuracy": [T]} for classification."""
    labels = tf.convert_to_tensor(batch.query_y)
    outputs = self.model.apply(weights, batch.query_x)
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


def meta_gradients(meta_loss, weights, batch):
  """(loss, gradients like `weights`, metrics) of any `meta_loss(weights, batch) -> (loss, metrics)`."""
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
