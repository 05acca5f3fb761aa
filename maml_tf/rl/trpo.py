"""Trust region policy optimisation (Schulman et al. 2015) of any policy that is a function of explicit weights."""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

from maml_tf.linear import add, conjugate_gradient, dot


class Linearisation(NamedTuple):
  """A function of weights at one point: its outputs, and its derivative in both directions.

  Attributes:
    outputs: a nest of tensors.
    push_forward: change of the weights -> change of the outputs (the Jacobian times a vector).
    pull_back: weighting of the outputs -> gradient of the weights (a vector times the Jacobian).
  """

  outputs: tuple
  push_forward: Callable
  pull_back: Callable


def linearise(function, weights):
  """`Linearisation` of weights -> outputs; what the function computes is computed once for all products.

  Forward mode is two reverse modes: u -> u J is linear in u, and its own derivative is v -> J v.
  """
  with tf.GradientTape(persistent=True, watch_accessed_variables=False) as outer:
    with tf.GradientTape(persistent=True, watch_accessed_variables=False) as inner:
      inner.watch(weights)
      outputs = function(weights)
    weighting = tf.nest.map_structure(tf.zeros_like, outputs)
    outer.watch(weighting)
    pulled = inner.gradient(outputs, weights, weighting, unconnected_gradients=tf.UnconnectedGradients.ZERO)

  def push_forward(change):
    zero = tf.UnconnectedGradients.ZERO
    return outer.gradient(pulled, weighting, change, unconnected_gradients=zero)

  def pull_back(weighting):
    zero = tf.UnconnectedGradients.ZERO
    return inner.gradient(outputs, weights, weighting, unconnected_gradients=zero)

  return Linearisation(outputs, push_forward, pull_back)


@dataclasses.dataclass(frozen=True)
class Escalation:
  """When to go over from a share of the data to all of it for the curvature, by signs that the share is too small.

  A sign is a step that the line search had to shorten, or a solution of the conjugate gradient that is no better than
  none. After `patience` of them in a row the products are exact, and stay so.

  Args:
    patience: signs in a row.
    shortened: a step is short if its accepted length, relative to the bound's, is below.
    residual: the solution is bad if the norm of its residual, relative to the gradient's, is above.
  """

  patience: int = 5
  shortened: float = 1.0
  residual: float = 1.0

  def reached(self, signs):
    """Whether so many signs in a row, an int32 tensor, are enough."""
    return signs >= self.patience

  def count(self, signs, metrics):
    """The signs in a row after a step with these metrics; no more change once they were enough."""
    sign = (metrics["accepted_step"] < self.shortened) | (metrics["cg_residual"] > self.residual)
    return tf.where(self.reached(signs), signs, tf.where(sign, signs + 1, 0))


@dataclasses.dataclass(frozen=True)
class TRPO:
  """One step within a trust region: the natural gradient, scaled to the bound, then shortened until it improves.

  Args:
    max_kl: bound on the mean KL divergence of the new policy from the old one, in nats.
    cg_iterations: products with the Hessian, at most.
    damping: multiple of the identity that is added to it.
    backtrack: by how much the step is shortened each time.
    max_backtracks: steps that are tried.
    hvp: "exact", or "finite_difference" of the KL's gradient: symmetric, and over a distance at which float32 has
      digits left. The published 1e-8 / |theta| moves few float32 weights at all.
    escalation: `Escalation`, for an objective whose curvature is computed on a share of the data; None: it stays so.
  """

  max_kl: float = 0.01
  cg_iterations: int = 10
  damping: float = 1e-5
  backtrack: float = 0.8
  max_backtracks: int = 15
  hvp: str = "exact"
  escalation: Escalation | None = None

  def __post_init__(self):
    if self.hvp not in ("exact", "finite_difference"):
      raise ValueError(f"hvp: expected exact or finite_difference, got {self.hvp!r}")

  def initial_state(self, weights):
    """Nothing, since a step depends on nothing before it; with an escalation the signs that there were in a row."""
    del weights
    return {} if self.escalation is None else {"signs": tf.constant(0)}

  def update(self, objective, weights, state):
    """One step.

    Args:
      objective: `meta_trpo.MetaObjective`, or anything with its methods.
      weights: dict of name -> tensor.
      state: of `initial_state`.

    Returns:
      (new weights, new state, metrics). Where no step improves the surrogate within the bound, the weights stay.
    """
    linear = linearise(objective.distribution, weights)
    loss, weighting = value_and_gradient(objective.surrogate, linear.outputs)
    gradient = linear.pull_back(weighting)
    direction, residual, products = self._direction(objective, weights, linear, gradient, state)
    curvature = dot(direction, add(gradient, residual, -1.0))  # d A d, since A d = b - residual
    length = tf.sqrt(2.0 * self.max_kl / (curvature + 1e-8))
    new_weights, search = self._line_search(objective, weights, direction, length, loss)
    metrics = {
      "loss": loss,
      "gradient_norm": tf.sqrt(dot(gradient, gradient)),
      "cg_residual": tf.sqrt(dot(residual, residual) / (dot(gradient, gradient) + 1e-30)),
      "cg_products": products,
      **search,
    }
    if self.escalation is None:
      return new_weights, state, metrics
    metrics["exact_products"] = tf.cast(self.escalation.reached(state["signs"]), tf.int32)
    return new_weights, {"signs": self.escalation.count(state["signs"], metrics)}, metrics

  def _direction(self, objective, weights, linear, gradient, state):
    """`conjugate_gradient` with the curvature of all data, or of the objective's sample of it."""

    def solve(on, linear):
      hessian = self._hessian(on, weights, linear)
      return conjugate_gradient(lambda v: add(hessian(v), v, self.damping), gradient, self.cg_iterations)

    sample = objective.curvature_sample()
    if sample is objective:
      return solve(objective, linear)
    if self.escalation is None:
      return solve(sample, None)
    exact = self.escalation.reached(state["signs"])
    return tf.cond(exact, lambda: solve(objective, linear), lambda: solve(sample, None))

  def _hessian(self, objective, weights, linear):
    """vector -> Hessian of the mean KL times the vector, at the old weights: J^T F J with the policy's Fisher matrix.

    The KL and its gradient by the policy's outputs are zero there, so nothing else is left of the Hessian.
    """
    if self.hvp == "finite_difference":
      return lambda vector: _finite_difference(objective, weights, vector)
    linear = linearise(objective.distribution, weights) if linear is None else linear

    def product(vector):
      return linear.pull_back(objective.fisher(linear.outputs, linear.push_forward(vector)))

    return product

  def _line_search(self, objective, weights, direction, length, loss):
    def evaluate(tried):
      step = -length * tf.cast(self.backtrack, length.dtype) ** tf.cast(tried, length.dtype)
      candidate = add(weights, direction, step)
      distribution = objective.distribution(candidate)
      return candidate, objective.surrogate(distribution), objective.kl(distribution)

    def accepted(new_loss, kl):  # false where one is NaN
      return (new_loss < loss) & (kl <= self.max_kl)

    def body(tried, done, *_):
      candidate, new_loss, kl = evaluate(tried)
      return tried + 1, accepted(new_loss, kl), candidate, new_loss, kl

    tried, done, candidate, new_loss, kl = tf.while_loop(
      lambda tried, done, *_: (tried < self.max_backtracks) & ~done,
      body,
      (0, False, weights, loss, tf.zeros_like(loss)),
      parallel_iterations=1,
    )
    kept = tf.nest.map_structure(lambda new, old: tf.where(done, new, old), candidate, dict(weights))
    return kept, {
      "surrogate_after": tf.where(done, new_loss, loss),
      "kl": tf.where(done, kl, 0.0),
      "accepted_step": tf.where(done, tf.cast(self.backtrack, loss.dtype) ** tf.cast(tried - 1, loss.dtype), 0.0),
    }


def _finite_difference(sample, weights, vector, distance=1e-3):
  """(KL gradient at theta + e v, less that at theta - e v) / 2 e, with |e v| = distance * |theta|."""
  epsilon = distance * tf.sqrt(dot(weights, weights) / (dot(vector, vector) + 1e-30))

  def gradient_at(step):
    moved = add(weights, vector, step)
    with tf.GradientTape(watch_accessed_variables=False) as tape:
      tape.watch(moved)
      kl = sample.kl(sample.distribution(moved))
    return tape.gradient(kl, moved, unconnected_gradients=tf.UnconnectedGradients.ZERO)

  difference = add(gradient_at(epsilon), gradient_at(-epsilon), -1.0)
  return tf.nest.map_structure(lambda d: d / (2.0 * epsilon), difference)


def value_and_gradient(function, arguments):
  """(function(arguments), its gradient by them, a nest alike)."""
  with tf.GradientTape(watch_accessed_variables=False) as tape:
    tape.watch(arguments)
    value = function(arguments)
  return value, tape.gradient(value, arguments, unconnected_gradients=tf.UnconnectedGradients.ZERO)
