"""MAML itself (Finn et al. 2017): the query loss after the inner loop, and the gradient through it."""

import copy
import math
import numbers

import tensorflow as tf

from maml_tf import losses, over_tasks, tracing
from maml_tf import maml as inner_loop
from maml_tf.algorithms import checks
from maml_tf.algorithms.base import Algorithm
from maml_tf.algorithms.computed_once import computed_once
from maml_tf.algorithms.meta_parameters import MetaParameters
from maml_tf.maml import LearnedStepSizes
from maml_tf.models import shapes

BN_MODES = ("transductive", "support", "running")
RUNNING_MOMENTUM = 0.99  # as in Keras' BatchNormalization


def with_bn_mode(algorithm, bn_mode):
  """A copy of an algorithm that normalises query examples otherwise."""
  twin = copy.copy(algorithm)
  twin.bn_mode = bn_mode
  return twin


class MAML(Algorithm):
  """MAML on a model with explicit weights.

  Args:
    model: an `ExplicitModel`.
    loss: "mse", "crossentropy", or a callable (labels, outputs) -> per-example losses [..., n]; for several outputs a
      dict, list or tuple with one for each, which are added.
    inner_lr: the step size alpha: a float; a dict per weight name (a name that is absent is not adapted); a list of
      either, one per step, the last repeating; or `LearnedStepSizes`.
    num_updates: inner steps in training.
    first_order: drop the second derivatives (section 5.2).
    loss_reduction: "mean" over examples, or "per_class_sum": the sum divided by the number of support examples per
      class, for the support and for the query loss alike (the published code's; see `losses.per_task`).
    bn_mode: whose statistics normalise the query examples; the support set has its own in every mode. "transductive":
      the query set's own (the published code's). "support": those of the support set under the adapted weights, so
      that a prediction does not depend on what else is asked. "running": moving averages over the query sets of
      training, which themselves are normalised by their own; they are among the weights.
    checkpoint_inner_steps: recompute the inner steps in the backward pass (`adapt_recomputing`).
    compute_dtype: dtype of the model's forward pass and its derivatives, tf.bfloat16 for one; weights, statistics,
      losses and gradients keep that of the weights. None: that of the weights.
    regularisation: add what the model adds to its loss, regularisers and `add_loss` of a Keras model, to the inner and
      to the outer loss, as Keras does.

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
    regularisation=True,
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
    self.regularisation = regularisation
    self.found_twice_differentiable = set()  # specs of support sets, see `checks.refuse_dropped_derivatives`

  @property
  def fixed_variables(self):
    return self.model.fixed_variables

  @property
  def task_chunk(self):
    return 1 if self.model.is_large else None

  def initial_weights(self, seed=0):
    """The model's `starting_weights`; with learned step sizes and running statistics, where there are such."""
    weights = self.model.starting_weights(seed)
    step_sizes, statistics = {}, {}
    if isinstance(self.inner_lr, LearnedStepSizes):
      step_sizes = self.inner_lr.initial_values(weights, self.model.adapted_names)
    if self.bn_mode == "running":
      statistics = self._initial_statistics(weights)
    return MetaParameters(weights, step_sizes, statistics).flat()

  def optional_names(self, weights):
    return tuple(name for name in weights if name not in self.model.weight_shapes)

  @tracing.as_it_stands
  def adapt(self, weights, support_x, support_y, num_updates=None, seed=None):
    """Adapts to every task, on all examples: a batch with masks goes through `meta_loss` and `evaluate`.

    Args:
      weights: dict of name -> plain tensor.
      support_x: [T, n, ...].
      support_y: [T, n, ...].
      num_updates: Python integer; None: as in training.
      seed: nothing: MAML draws no noise.

    Returns:
      List of dicts, every weight with a task axis, after 0..num_updates steps; with the statistics that `predict`
      normalises by, unless `bn_mode` is "transductive".
    """
    num_updates = self.num_updates if num_updates is None else num_updates
    _check_updates(num_updates)
    support_x, support_y = over_tasks.as_tensors((support_x, support_y))
    start, rates = self._start(weights, support_x)
    rest, x = computed_once(self, start, rates, support_x)
    steps = inner_loop.adapt(rest._support_loss(start, x, support_y), start, rates, num_updates, self.first_order)
    return [self._give_task_axis(rest._with_statistics(step, x), support_x) for step in steps]

  @tracing.as_it_stands
  def adapt_final(self, weights, support_x, support_y, num_updates, seed=None):
    """As `adapt`, only the last weights; num_updates may be a tensor."""
    _check_updates(num_updates)
    support_x, support_y = over_tasks.as_tensors((support_x, support_y))
    start, rates = self._start(weights, support_x)
    rest, x = computed_once(self, start, rates, support_x)
    adapted = inner_loop.adapt_final(rest._support_loss(start, x, support_y), start, rates, num_updates)
    return self._give_task_axis(rest._with_statistics(adapted, x), support_x)

  @tracing.as_it_stands
  def predict(self, weights, x):
    """The model's outputs, normalised by the statistics among the weights where `adapt` put some there.

    Args:
      weights: dict as `adapt` returns it, or plain weights.
      x: [T, n, ...], or [n, ...] with plain weights.

    Returns:
      Outputs, in the dtype of the weights.
    """
    given = MetaParameters.of(weights)
    return self.outputs_of(given.model, x, given.statistics or None)[0]

  def exported(self, bn_mode):
    return self if self.bn_mode == "running" else with_bn_mode(self, bn_mode)

  def shares_statistics(self):
    return self.bn_mode == "transductive" and self.model.has_statistics

  def predict_one(self, task, x):
    return self.predict(task, x)

  def ready_tasks(self, weights):
    """Initial weights are a task's weights as they are, with what is learned beside them or without."""
    return [{n: w for n, w in weights.items() if n in self.model.weight_shapes}, weights]

  @tracing.as_it_stands
  def meta_loss(self, weights, batch, seed=None):
    """The meta-objective: the query loss after adaptation, mean over tasks (eq. 4; algorithm 2, line 10).

    Args:
      weights: dict of name -> plain tensor.
      batch: `TaskBatch`.

    Returns:
      (scalar loss; dict of name -> scalar: the losses that adapting computes anyway, and the accuracy after it; dict of
      the moved running statistics, where there are such).
    """
    adapted, support_losses, rest, batch = self._adapt_for_training(weights, over_tasks.as_tensors(batch))
    return rest._loss_and_metrics(weights, adapted, support_losses, batch)

  @tracing.as_it_stands
  def meta_gradients(self, weights, batch):
    """(scalar meta-loss, its gradient: dict like `weights`), second order unless `first_order`."""
    weights = {name: tf.convert_to_tensor(value) for name, value in weights.items()}
    found = over_tasks.meta_gradients(self.meta_loss, weights, batch, over_tasks.chunk_of(batch, self.task_chunk))
    return found.loss, found.gradients

  @tracing.as_it_stands
  def evaluate(self, weights, batch, num_updates=10, seed=None):
    """Query loss, and accuracy where the loss is the cross-entropy, after 0..num_updates steps.

    Returns:
      {"loss": [num_updates + 1, T], "accuracy": likewise}.
    """
    _check_updates(num_updates)
    batch = over_tasks.as_tensors(batch)
    start, rates = self._start(weights, batch.support_x)
    rest, batch = computed_once(self, start, rates, batch)
    support_loss = rest._support_loss(start, batch.support_x, batch.support_y, batch.support_mask)
    names = ["loss", *losses.accuracy_names(self.loss)]
    dtype = next(iter(start.values())).dtype

    def measure(weights):
      measured = rest._query_metrics(weights, batch)
      return [measured[name] for name in names]

    _, stacked = inner_loop.fold_steps(support_loss, start, rates, num_updates, measure, [dtype] * len(names))
    return dict(zip(names, stacked, strict=True))

  def to_keras(self, weights):
    """Puts weights, initial or one task's adapted ones, into the Keras model and returns it: see `checks.to_keras`."""
    given = MetaParameters.of(weights)
    return checks.to_keras(self.model, given.model, given.statistics)

  def check_batch(self, batch):
    """An error where a concrete batch does not fit the model or itself: see `checks.check_batch`."""
    checks.check_batch(self, batch)

  def _start(self, weights, support_x):
    """(adapted weights repeated for every task and the others shared, step sizes)."""
    given = MetaParameters.of({name: tf.convert_to_tensor(value) for name, value in weights.items()})
    rates = self._rates(given)
    adapted = set().union(*(rates if isinstance(rates, list) else [rates]))
    statistics = given.statistics if self.bn_mode == "running" else {}
    start = MetaParameters(given.model, {}, statistics).flat()
    num_tasks = over_tasks.num_tasks_of(support_x)
    return {n: over_tasks.repeat(w, num_tasks) if n in adapted else w for n, w in start.items()}, rates

  def _rates(self, given):
    """Step sizes as a dict of name -> rate, or a list of such dicts, one per step."""
    names = self.model.adapted_names
    if isinstance(self.inner_lr, LearnedStepSizes):
      return self.inner_lr.rates({name: given.step_sizes[name] for name in names})

    def as_dict(rate):
      return dict(rate) if isinstance(rate, dict) else dict.fromkeys(names, rate)

    if isinstance(self.inner_lr, list):
      dtype = next(iter(given.model.values())).dtype
      return [{n: inner_loop.as_rate(r, dtype) for n, r in as_dict(rate).items()} for rate in self.inner_lr]
    return as_dict(self.inner_lr)

  def _adapt_for_training(self, weights, batch):
    """(The weights after the last step, the losses [T] before each, a list, and what `computed_once` returns)."""
    start, rates = self._start(weights, batch.support_x)
    rest, batch = computed_once(self, start, rates, batch)
    support_loss = rest._support_loss(start, batch.support_x, batch.support_y, batch.support_mask)
    if self.num_updates and not self.first_order:
      checks.refuse_dropped_derivatives(rest, MetaParameters.of(weights).model, rates, batch)
    arguments = support_loss, start, rates, self.num_updates, self.first_order
    if self.checkpoint_inner_steps or (rest.model.loops_over_steps and not tf.executing_eagerly()):
      adapted, support_losses = inner_loop.adapt_recomputing(*arguments)
      return adapted, tf.unstack(support_losses), rest, batch
    steps, support_losses = inner_loop.unrolled(*arguments)
    return steps[-1], support_losses, rest, batch

  def _initial_statistics(self, weights):
    """Running statistics before any training: mean 0 and variance 1."""
    example = shapes.map_shapes(shapes.zeros_of_one, self.model.example_shape)
    _, used = self.model.apply_with_statistics(weights, example)
    return {n: tf.ones_like(s) if n.endswith("variance") else tf.zeros_like(s) for n, s in used.items()}

  def _with_statistics(self, weights, support_x):
    """The weights, and the statistics of the support set where those normalise the query examples."""
    if self.bn_mode != "support":
      return weights
    _, used, _ = self.outputs_of(weights, support_x)
    return MetaParameters(weights, {}, used).flat()

  def _give_task_axis(self, weights, support_x):
    plain = self.model.weight_shapes
    num_tasks = over_tasks.num_tasks_of(support_x)
    # Statistics that have no task axis have one axis, channels.
    ranks = {n: len(plain[n]) if n in plain else 1 for n in weights}
    return {n: over_tasks.repeat(w, num_tasks) if w.shape.rank == ranks[n] else w for n, w in weights.items()}

  def outputs_of(self, weights, x, statistics=None):
    """(outputs in the dtype of the weights, statistics used, penalty or None), computed in `compute_dtype`."""
    if self.compute_dtype is None:
      return self.model.apply_with_penalty(weights, x, statistics)
    dtype = next(iter(weights.values())).dtype
    narrow = {n: tf.cast(weights[n], self.compute_dtype) for n in self.model.weight_shapes}
    results = self.model.apply_with_penalty(narrow, x, statistics)
    return tf.nest.map_structure(lambda t: t if t is None else tf.cast(t, dtype), results)

  def _support_loss(self, start, x, y, mask=None):
    """Weights -> the loss [T] that the inner loop descends from `start` on: here the same, wherever it starts."""
    del start
    y = over_tasks.as_tensors(y)

    def loss_fn(weights):
      outputs, _, penalty = self.outputs_of(weights, x)
      return self.task_losses(y, outputs, mask, (x, mask), penalty)

    return loss_fn

  def task_losses(self, labels, outputs, mask, support, penalty=None):
    """The loss of every task, [T]: summed over the outputs, with the model's penalty.

    Args:
      labels: [T, n, ...], nested as the outputs.
      outputs: [T, n, ...].
      mask: [T, n], of these examples; None: all count.
      support: (inputs, mask) of the support set, whose size the per-class sum is divided by.
      penalty: as of `ExplicitModel.apply_with_penalty`.
    """
    total = losses.of_tasks(self.loss, labels, outputs, mask, lambda values: self._shots(*support, values))
    return total if penalty is None or not self.regularisation else total + penalty

  def _query_metrics(self, weights, batch):
    """{"loss": [T]} and {"accuracy": [T]} for classification."""
    given = MetaParameters.of(self._with_statistics(weights, batch.support_x))
    outputs, _, penalty = self.outputs_of(given.model, batch.query_x, given.statistics or None)
    return self.measure(outputs, batch, penalty)

  def _loss_and_metrics(self, weights, adapted, support_losses, batch):
    """What `meta_loss` returns."""
    moved = {}
    if self.bn_mode == "running":
      outputs, used, penalty = self.outputs_of(MetaParameters.of(adapted).model, batch.query_x)
      measured, moved = self.measure(outputs, batch, penalty), self._moved_statistics(weights, used)
    else:
      measured = self._query_metrics(adapted, batch)
    metrics = {f"support_loss/step_{k}": tf.reduce_mean(value) for k, value in enumerate(support_losses)}
    metrics |= {f"query_{k}/step_{self.num_updates}": tf.reduce_mean(v) for k, v in measured.items()}
    return tf.reduce_mean(measured["loss"]), metrics, moved

  def _moved_statistics(self, weights, used):
    """Running statistics, a step towards those of a meta-batch, [T, channels] each."""
    before, share = MetaParameters.of(weights).statistics, RUNNING_MOMENTUM
    new = {n: tf.stop_gradient(tf.reduce_mean(value, axis=0)) for n, value in used.items()}
    return MetaParameters({}, {}, {n: share * before[n] + (1 - share) * value for n, value in new.items()}).flat()

  def measure(self, outputs, batch, penalty=None):
    """{"loss": [T]}, and {"accuracy": [T]} where the loss is the cross-entropy, of outputs at the query examples."""
    labels, mask = over_tasks.as_tensors(batch.query_y), batch.query_mask
    loss = self.task_losses(labels, outputs, mask, (batch.support_x, batch.support_mask), penalty)
    return {"loss": loss, **losses.accuracies(self.loss, labels, outputs, mask)}

  def _shots(self, support_x, support_mask, outputs):
    """Support examples per class, K, for the per-class sum: a scalar, or [T] where examples are masked."""
    if self.loss_reduction == "mean":
      return None
    classes = tf.cast(tf.shape(outputs)[-1], outputs.dtype)
    if support_mask is None:
      return tf.cast(tf.shape(tf.nest.flatten(support_x)[0])[1], outputs.dtype) / classes
    return tf.reduce_sum(tf.cast(support_mask, outputs.dtype), axis=1) / classes


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
