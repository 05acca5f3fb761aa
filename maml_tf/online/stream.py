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
    judged: whether a task is judged after each of its batches, bool [batches].

  Raises:
    UserError: a warm start that leaves no task, or wants more data than there is.
  """

  def __init__(self, sequence, warm_start=None, judge_growth=1.0):
    self.sequence, self.warm_start = sequence, warm_start or WarmStart()
    self.judged = judged_after(sequence.amounts, judge_growth)
    warm, batches = self.warm_start, sequence.num_batches
    if not 0 <= warm.tasks < sequence.num_tasks:
      raise UserError(
        f"warm_start_tasks={warm.tasks}: expected 0 to {sequence.num_tasks - 1}: the stream has {sequence.num_tasks} "
        "tasks, and one at least has to arrive"
      )
    if warm.tasks and not 1 <= warm.batches <= batches:
      raise UserError(f"warm_start_batches={warm.batches}: expected 1 to {batches}, the data batches of a task")
    self._warm_rounds = warm.rounds if warm.tasks else 0

  @property
  def num_rounds(self):
    """Rounds until all data has arrived, those of the warm start included."""
    return self._warm_rounds + (self.sequence.num_tasks - self.warm_start.tasks) * self.sequence.num_batches

  def rounds_of_tasks(self, rounds):
    """Of the first `rounds` rounds those in which something arrives."""
    return max(0, rounds - self._warm_rounds)

  @property
  def first_amount(self):
    """Examples of a task when it is first trained on."""
    warm = self.warm_start.batches if self.warm_start.tasks else self.sequence.num_batches
    return int(min(self.sequence.amounts[0], self.sequence.amounts[warm - 1]))

  def at(self, index):
    """The `Moment` of a round, an int32 scalar that counts from 0."""
    batches = self.sequence.num_batches
    index = tf.cast(index, tf.int32) - self._warm_rounds
    place = tf.clip_by_value(index, 0, (self.sequence.num_tasks - self.warm_start.tasks) * batches - 1)
    batch = place % batches
    amount = tf.gather(tf.constant(self.sequence.amounts, tf.int32), batch)
    judged = tf.logical_and(index >= 0, tf.gather(tf.constant(self.judged), batch))
    return Moment(self.warm_start.tasks + place // batches, batch, amount, index >= 0, judged)

  def last(self, index):
    """The `Moment` of the round before, or the stream's first one where there was none yet."""
    return self.at(tf.maximum(tf.cast(index, tf.int32) - 1, self._warm_rounds))

  def arrived(self, moment):
    """Examples of every task that are there: int32 [tasks], 0 for the tasks to come."""
    sequence, warm = self.sequence, self.warm_start
    number = tf.range(sequence.num_tasks)
    warm_amount = int(sequence.amounts[warm.batches - 1]) if warm.tasks else 0
    past = tf.where(number < warm.tasks, warm_amount, sequence.num_examples)
    current = tf.where(moment.arriving, moment.amount, 0)
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
    if amount >= growth * last or batch == len(amounts) - 1:
      judged[batch], last = True, amount
  return judged
