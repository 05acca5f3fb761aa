"""What a walk through a stream is judged by (Finn et al. 2019, sections 2 and 5)."""

import numpy as np

from maml_tf.errors import UserError


def learning_efficiency(values, amounts, threshold, higher_is_better=True):
  """Examples of a task until the threshold is first reached; "not reached" counts as all of them.

  Args:
    values: [tasks, batches], accuracies or losses on held-out data; NaN is not reached.
    amounts: [batches] or [tasks, batches], examples that are there after each, as `TaskSequence.amounts`.
    threshold: to be reached.
    higher_is_better: True for accuracies, False for losses.

  Returns:
    (examples, int64 [tasks]; whether the threshold was reached, bool [tasks]).
  """
  values = np.asarray(values)
  amounts = np.broadcast_to(amounts, values.shape)
  with np.errstate(invalid="ignore"):
    good = values >= threshold if higher_is_better else values <= threshold
  reached = good.any(axis=1)
  return np.where(reached, _at(amounts, good.argmax(axis=1)), amounts[:, -1]), reached


def after(values, amounts, amount):
  """The values [tasks] with the most data that is no more than `amount` examples.

  Raises:
    UserError: so few examples are never there.
  """
  values = np.asarray(values)
  amounts = np.broadcast_to(amounts, values.shape)
  if (amount < amounts[:, 0]).any():
    raise UserError(f"amount={amount}: expected at least {amounts[:, 0].max()}, the examples of a task's first batch")
  return _at(values, np.minimum((amounts <= amount).sum(axis=1) - 1, _last(amounts)))


def proficiency(values, amounts=None):
  """The values [tasks] with all data of the task; `amounts` where tasks have different numbers of examples."""
  values = np.asarray(values)
  return values[:, -1] if amounts is None else _at(values, _last(np.broadcast_to(amounts, values.shape)))


def _last(amounts):
  """The batch of each task with which all its data is there, [tasks]."""
  return (amounts == amounts[:, -1:]).argmax(axis=1)


def _at(values, batches):
  """values [tasks, batches] at one batch of each task."""
  return np.take_along_axis(values, batches[:, np.newaxis], axis=1)[:, 0]


def regret(paid, hindsight):
  """Cumulative regret after every round.

  Args:
    paid: [rounds], f_t(U_t(w_t)).
    hindsight: [rounds], the smallest sum over the rounds so far of f_t(U_t(w)) with one w for all of them.

  Returns:
    [rounds].
  """
  return np.cumsum(np.asarray(paid, np.float64)) - np.asarray(hindsight, np.float64)
