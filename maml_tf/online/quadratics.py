"""The strongly convex example in closed form (Finn et al. 2019, appendix): tasks f(w) = (w - c)' A (w - c) / 2.

Two types of task, equally likely: steep ones, eigenvalues of A from U(1.5, 2) and optima c around 1, and flat ones,
from U(0.2, 0.4) and around -1. That curvature and optimum belong together is the point: with one step of alpha,
f(w - alpha f'(w)) is again a quadratic around c, with (I - alpha A)^2 A in place of A. It weighs steep tasks less,
since the step mends those itself. Joint training does not know, and settles near the steep optima.

Sizes are ours: the paper prints the formulas and no numbers.
"""

from typing import NamedTuple

import numpy as np

DIMENSIONS = 5
ALPHA = 0.45
STEEP, FLAT = (1.5, 2.0), (0.2, 0.4)
DEVIATION = 0.3  # of the optima, in every coordinate


class Quadratics(NamedTuple):
  """Tasks in the order of their arrival.

  Attributes:
    curvature: A, float64 [T, d, d].
    optimum: c, float64 [T, d].
  """

  curvature: np.ndarray
  optimum: np.ndarray

  def losses(self, w):
    """f_t(w_t), [T], of weights [T, d] or [d]."""
    offset = w - self.optimum
    return np.einsum("ti,tij,tj->t", offset, self.curvature, offset) / 2

  def stepped(self, alpha=ALPHA):
    """The tasks f_t(w - alpha f_t'(w)), as functions of w."""
    shrink = np.eye(self.optimum.shape[1]) - alpha * self.curvature
    return Quadratics(shrink @ self.curvature @ shrink, self.optimum)

  def solutions(self):
    """argmin over w of the sum of the first t tasks, for t = 1, ..., T: [T, d]."""
    sums = np.cumsum(self.curvature, axis=0)
    right = np.cumsum(np.einsum("tij,tj->ti", self.curvature, self.optimum), axis=0)
    return np.linalg.solve(sums, right[..., np.newaxis])[..., 0]

  def smallest_sums(self):
    """min over w of the sum of the first t tasks, for t = 1, ..., T: [T]."""
    curved = np.einsum("tij,tj->ti", self.curvature, self.optimum)
    constant = np.cumsum(np.einsum("ti,ti->t", self.optimum, curved))
    return (constant - np.einsum("ti,ti->t", self.solutions(), np.cumsum(curved, axis=0))) / 2

  def examples(self):
    """(x [T, d, d], y [T, d, 1]) of which half the mean squared error of x w is f(w)."""
    values, vectors = np.linalg.eigh(self.curvature)
    x = np.sqrt(values.shape[1] * values)[..., np.newaxis] * np.swapaxes(vectors, 1, 2)
    return x, x @ self.optimum[..., np.newaxis]


def draw(num_tasks, seed):
  """`Quadratics` of a Python integer seed; a longer draw begins with the tasks of a shorter one."""
  curvatures, optima = [], []
  for rng in map(np.random.default_rng, ([seed, task] for task in range(num_tasks))):
    steep = rng.random() < 0.5
    values = rng.uniform(*(STEEP if steep else FLAT), DIMENSIONS)
    basis, _ = np.linalg.qr(rng.normal(size=(DIMENSIONS, DIMENSIONS)))
    curvatures.append(basis * values @ basis.T)
    optima.append((1.0 if steep else -1.0) + DEVIATION * rng.normal(size=DIMENSIONS))
  return Quadratics(np.stack(curvatures), np.stack(optima))


def paid(tasks, method, alpha=ALPHA):
  """The losses [T] that a method pays, each minimised exactly over the tasks before; it begins with zeros.

  Args:
    tasks: `Quadratics`.
    method: "ftml", "ftl" (and a step), "toe" (no step), or "scratch" (a step from zero).
    alpha: step size.
  """
  used = tasks if method == "toe" else tasks.stepped(alpha)
  if method == "scratch":
    return used.losses(np.zeros(tasks.optimum.shape[1]))
  trained = tasks.stepped(alpha) if method == "ftml" else tasks
  first = np.zeros([1, tasks.optimum.shape[1]])
  return used.losses(np.concatenate([first, trained.solutions()[:-1]]))
