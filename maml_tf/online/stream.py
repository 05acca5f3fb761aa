"""Where a stream of tasks stands in each round: which task is there, and how many examples of which have arrived."""

import dataclasses
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from maml_tf.errors import UserError


@dataclasses.dataclass(frozen=True)
class WarmStart:
  """Tasks that are in the buffer before the stream begins.

  Attributes:
    tasks: how many; 0: none.
    batches: data batches of each that are there.
    rounds: rounds of training on them before the next task arrives.
  """

  tasks: int = 0
  batches: int = 0
  rounds: int = 0


class Moment(NamedTuple):
  """A round, as scalar tensors.

  Attributes:
    task: number of the current task, int32.
    batch: number of its batch that has just arrived, int32.
    amount: its examples that are there, int32.
    arriving: whether anything arrives; False in the rounds of a warm start.
    judged: whether the task is judged in this round.
  """

  task: Any
  batch: Any
  amount: Any
  arriving: Any
  judged: Any


class Stream:
  """A sequence of tasks in rounds: in each, one batch of the current task arrives.

  Args:
    sequence: `tasks.TaskSequence`.
    warm_start: `WarmStart`.
    judge_growth: the current task is judged when its data has grown by this factor since the last time, and with all
      of it; 1: after every batch.

  Attributes:
    judged: whether a task is judged after each of its batches, bool [tasks, batches].

  Raises:
    UserError: a warm start that leaves no task, or wants more data than there is.
  """

  def __init__(self, sequence, warm_start=None, judge_growth=1.0):
    self.sequence, self.warm_start = sequence, warm_start or WarmStart()
    warm, batches = self.warm_start, sequence.num_batches
    if not 0 <= warm.tasks < sequence.num_tasks:
      raise UserError(
        f"warm_start_tasks={warm.tasks}: expected 0 to {sequence.num_tasks - 1}: the stream has {sequence.num_tasks} "
        "tasks, and one at least has to arrive"
      )
    if warm.tasks and not 1 <= warm.batches <= batches:
      raise UserError(f"warm_start_batches={warm.batches}: expected 1 to {batches}, the data batches of a task")
    self._warm_rounds = warm.rounds if warm.tasks else 0
    self._amounts = np.broadcast_to(sequence.amounts, [sequence.num_tasks, batches])
    self.judged = np.stack([judged_after(amounts, judge_growth) for amounts in self._amounts])
    # Rounds of the stream after which each task has ended.
    own = -(-sequence.counts // sequence.batch_size)
    self._ends = np.cumsum(np.where(np.arange(sequence.num_tasks) < warm.tasks, 0, own))

  @property
  def num_rounds(self):
    """Rounds until all data has arrived, those of the warm start included."""
    return self._warm_rounds + int(self._ends[-1])

  def tasks_after(self, rounds):
    """Tasks of the stream of which all data has arrived after so many rounds, those of the warm start left out."""
    ended = int(np.searchsorted(self._ends, rounds - self._warm_rounds, side="right"))
    return max(0, ended - self.warm_start.tasks)

  @property
  def first_amount(self):
    """Examples of a task when it is first trained on, the fewest."""
    return int(self._amounts[:, 0].min())

  def at(self, index):
    """The `Moment` of a round, an int32 scalar that counts from 0."""
    index = tf.cast(index, tf.int32) - self._warm_rounds
    place = tf.clip_by_value(index, 0, int(self._ends[-1]) - 1)
    ends = tf.constant(self._ends, tf.int32)
    task = tf.reduce_sum(tf.cast(ends <= place, tf.int32))
    batch = place - tf.gather(tf.concat([[0], ends], 0), task)
    here = tf.stack([task, batch])
    amount = tf.gather_nd(tf.constant(self._amounts, tf.int32), here)
    judged = tf.logical_and(index >= 0, tf.gather_nd(tf.constant(self.judged), here))
    return Moment(task, batch, amount, index >= 0, judged)

  def last(self, index):
    """The `Moment` of the round before, or the stream's first one where there was none yet."""
    return self.at(tf.maximum(tf.cast(index, tf.int32) - 1, self._warm_rounds))

  def arrived(self, moment):
    """Examples of every task that are there: int32 [tasks], 0 for the tasks to come."""
    sequence, warm = self.sequence, self.warm_start
    number, counts = np.arange(sequence.num_tasks), sequence.counts
    past = np.where(number < warm.tasks, np.minimum(warm.batches * sequence.batch_size, counts), counts)
    current = tf.where(moment.arriving, moment.amount, 0)
    past = tf.constant(past, tf.int32)
    return tf.where(number < moment.task, past, tf.where(number == moment.task, current, 0))


def judged_after(amounts, growth):
  """Whether a task is judged with so many examples, bool [batches]: when they have grown by the factor, and in the end.

  Raises:
    UserError: a factor below 1.
  """
  if not growth >= 1:
    raise UserError(f"judge_growth={growth}: expected a factor of at least 1")
  judged, last = np.zeros(len(amounts), bool), 0
  for batch, amount in enumerate(amounts):
    if last < amounts[-1] and (amount >= growth * last or amount == amounts[-1]):
      judged[batch], last = True, amount
  return judged
