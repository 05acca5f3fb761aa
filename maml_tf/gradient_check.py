"""Is the meta-gradient of a model right? Against central differences, in float64."""

import copy
import dataclasses

import numpy as np
import tensorflow as tf

from maml_tf import over_tasks, tracing
from maml_tf.errors import UserError
from maml_tf.models import precision

# Tried in this order until one agrees: a smaller one for kinks near by, a larger one for float32 somewhere inside.
STEPS = (1e-4, 1e-6, 1e-2)

# Gradients smaller than this share of the largest one are zero but for rounding.
NEGLIGIBLE = 1e-6


class MetaGradientError(UserError, ValueError):
  """A meta-gradient is not the derivative of the meta-loss."""


@dataclasses.dataclass(frozen=True)
class GradientCheck:
  """What `check_meta_gradient` found.

  Attributes:
    errors: dict of weight name -> largest relative error of the meta-gradient, over the directions.
    tolerance: what is still right.
  """

  errors: dict
  tolerance: float

  @property
  def wrong(self):
    """Names of the weights whose meta-gradient is off, the worst first."""
    names = [name for name, error in self.errors.items() if not error <= self.tolerance]
    return sorted(names, key=lambda name: -np.nan_to_num(self.errors[name], nan=np.inf))

  def __str__(self):
    width = max(map(len, self.errors))
    lines = [f"{n:<{width}}  {e:.1e}{'  wrong' if n in self.wrong else ''}" for n, e in self.errors.items()]
    return "\n".join([f"{'weight':<{width}}  relative error of the meta-gradient", *lines])


def check_meta_gradient(maml, batch, weights=None, directions=2, tolerance=1e-4, seed=0, must_pass=True):
  """Compares a meta-gradient with central differences of the meta-loss, in float64 and along random directions.

  The first thing to run on a model of one's own: TensorFlow drops some second derivatives without a word. Every weight
  is moved by itself, so that the result says which is off.

  Args:
    maml: `MAML` of second order.
    batch: `TaskBatch` of arrays; a few small tasks will do.
    weights: dict of name -> plain tensor, where to look. None: what training begins from.
    directions: random directions for each weight.
    tolerance: largest relative error that is taken for right.
    seed: of the directions, a Python integer.
    must_pass: whether a wrong meta-gradient is an error.

  Returns:
    `GradientCheck`; printed, it is a table.

  Raises:
    MetaGradientError: names the weights that are off (unless `must_pass` is False).
    UserError: the algorithm is of first order, or the model cannot compute in float64.
  """
  if maml.first_order:
    raise UserError(
      "check_meta_gradient: first_order=True leaves second derivatives out, so the meta-gradient is no derivative of "
      "the meta-loss; check the model with first_order=False"
    )
  maml = copy.copy(maml)
  maml.compute_dtype = None
  weights = maml.initial_weights(0) if weights is None else weights
  weights = {name: tf.cast(weight, tf.float64) for name, weight in weights.items()}
  batch = tf.nest.map_structure(_as_float64, over_tasks.as_tensors(batch))
  with precision.in_float64(maml.model):
    loss = tracing.function(lambda weights: maml.meta_loss(weights, batch)[0])
    try:
      gradients = tracing.function(lambda weights: maml.meta_gradients(weights, batch)[1])(weights)
      loss(weights)
    except (TypeError, tf.errors.InvalidArgumentError) as error:
      raise UserError(
        f"check_meta_gradient: {maml.model.name.removeprefix('explicit_')} does not compute in float64 "
        f"({str(error).strip().splitlines()[-1]}); a layer of one's own should take the dtype of its inputs"
      ) from error
    check = GradientCheck(_errors(loss, gradients, weights, directions, tolerance, seed), tolerance)
  if must_pass and check.wrong:
    listed = ", ".join(f"{name} by {check.errors[name]:.1e}" for name in check.wrong)
    raise MetaGradientError(
      f"check_meta_gradient: the meta-gradient is off for {listed} (relative to central differences of the meta-loss); "
      "a layer or the loss has a second derivative that TensorFlow drops, or draws random numbers"
    )
  return check


def _as_float64(field):
  return tf.cast(field, tf.float64) if field is not None and field.dtype.is_floating else field


def _errors(loss, gradients, weights, directions, tolerance, seed):
  """Dict of name -> largest relative error, along directions of length 1."""
  rng, errors = np.random.default_rng(seed), {}
  negligible = NEGLIGIBLE * max(float(tf.norm(gradient)) for gradient in gradients.values()) + np.finfo(float).tiny
  for name, weight in weights.items():
    errors[name] = 0.0
    for _ in range(directions):
      line = rng.normal(size=weight.shape)
      line /= np.linalg.norm(line)
      exact = float(np.sum(gradients[name].numpy() * line))
      found = _error(loss, weights, name, line, exact, negligible, tolerance)
      errors[name] = np.maximum(errors[name], found).item()
  return errors


def _error(loss, weights, name, line, exact, negligible, tolerance):
  """The relative error of one directional derivative, by the step that agrees best."""
  best = np.inf
  for step in STEPS:
    measured = _difference(loss, weights, name, line, step)
    error = abs(measured - exact) / max(abs(measured), abs(exact), negligible)
    best = min(best, error) if np.isfinite(error) else best
    if best <= tolerance:
      break
  return best


def _difference(loss, weights, name, line, step):
  """The derivative of the loss by central differences of fourth order."""

  def at(multiple):
    return float(loss(weights | {name: weights[name] + multiple * step * line}))

  return (8 * (at(1) - at(-1)) - (at(2) - at(-2))) / (12 * step)
