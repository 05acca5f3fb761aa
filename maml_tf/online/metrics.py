"""What a walk through a stream is judged by (Finn et al. 2019, sections 2 and 5)."""

import numpy as np

from maml_tf.errors import UserError


def learning_efficiency(values, amounts, threshold, higher_is_better=True):
  """Examples of a task until the threshold is first reached; "not reached" counts as all of them.

  Args:
    values: [tasks, batches], accuracies or losses on held-out data; NaN is not reached.
    amounts: [batches], examples that are there after each.
    threshold: to be reached.
    higher_is_better: True for accuracies, False for losses.

  Returns:
    (examples, int64 [tasks]; whether the threshold was reached, bool [tasks]).
  """
  values, amounts = np.asarray(values), np.asarray(amounts)
  with np.errstate(invalid="ignore"):
    good = values >= threshold if higher_is_better else values <= threshold
  reached = good.any(axis=1)
  return np.where(reached, amounts[good.argmax(axis=1)], amounts[-1]), reached


def after(values, amounts, amount):
  """The values [tasks] with the most data that is no more than `amount` examples.

  Raises:
    UserError: so few examples are never there.
  """
  amounts = np.asarray(amounts)
  if amount < amounts[0]:
    raise UserError(f"amount={amount}: expected at least {amounts[0]}, the examples of a task's first batch")
  return np.asarray(values)[:, np.searchsorted(amounts, amount, side="right") - 1]


def proficiency(values):
  """The values [tasks] with all data of the task."""
  return np.asarray(values)[:, -1]


def regret(paid, hindsight):
  """Cumulative regret after every round.

  Args:
    paid: [rounds], f_t(U_t(w_t)).
    hindsight: [rounds], the smallest sum over the rounds so far of f_t(U_t(w)) with one w for all of them.

  Returns:
    [rounds].
  """
  return np.cumsum(np.asarray(paid, np.float64)) - np.asarray(hindsight, np.float64)
