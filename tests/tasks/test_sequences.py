"""Sequences of tasks: what arrives when, and what is refused."""

import re

import numpy as np
import pytest

from maml_tf import tasks
from maml_tf.errors import UserError


def arrays(num_tasks=3, n=7, m=2, d=2):
  x = np.arange(num_tasks * n * d, dtype=np.float32).reshape(num_tasks, n, d)
  return dict(x=x, y=x[..., :1], test_x=x[:, :m], test_y=x[:, :m, :1])


def test_the_last_batch_may_be_smaller():
  sequence = tasks.TaskSequence(**arrays(), batch_size=3)
  assert (sequence.num_tasks, sequence.num_examples, sequence.num_batches) == (3, 7, 3)
  assert sequence.amounts.tolist() == [3, 6, 7]
  assert not sequence.classifies


def test_an_order_hangs_on_its_seed_alone():
  sequence = tasks.TaskSequence(**arrays(num_tasks=6), batch_size=7, names=list("abcdef"))
  first, again, other = (sequence.shuffled(seed) for seed in (1, 1, 2))
  assert first.names == again.names != other.names
  assert sorted(first.names) == list("abcdef")
  for name, x, test_y in zip(first.names, first.x, first.test_y, strict=True):
    k = "abcdef".index(name)
    np.testing.assert_array_equal(x, sequence.x[k])
    np.testing.assert_array_equal(test_y, sequence.test_y[k])
  assert sequence.shuffled(1, num_tasks=2).names == first.names[:2]


def lines(rng, count=4, n=5):
  for _ in range(count):
    slope, x = rng.normal(), rng.uniform(size=(n + 3, 1)).astype(np.float32)
    yield x[:n], np.float32(slope * x[:n]), x[n:], np.float32(slope * x[n:])


def test_a_generator_is_drawn_from_its_seed():
  sequence = tasks.TaskSequence.from_generator(lines, batch_size=5, seed=3)
  again = tasks.TaskSequence.from_generator(lines, batch_size=5, num_tasks=2, seed=3)
  assert sequence.num_tasks == 4 and again.num_tasks == 2
  np.testing.assert_array_equal(again.x, sequence.x[:2])


def growing(rng):
  for n in (5, 7):
    yield from lines(rng, 1, n)


def test_tasks_may_have_different_numbers_of_examples():
  sequence = tasks.TaskSequence.from_generator(growing, batch_size=3)
  assert sequence.counts.tolist() == [5, 7] and sequence.num_batches == 3 and not sequence.is_even
  assert sequence.amounts.tolist() == [[3, 5, 5], [3, 6, 7]]
  np.testing.assert_array_equal(sequence.flat("x"), np.concatenate([sequence.x[0], sequence.x[1]]))
  backwards = next(s for s in map(sequence.shuffled, range(20)) if s.names == ("1", "0"))
  assert backwards.counts.tolist() == [7, 5] and backwards.names == ("1", "0")
  np.testing.assert_array_equal(backwards.test_y[0], sequence.test_y[1])


def of_other_shape(rng):
  yield from lines(rng, 1)
  yield tuple(np.concatenate([array, array], axis=1) for array in next(lines(rng, 1)))


@pytest.mark.parametrize(("make", "says"), [
  (lambda: tasks.TaskSequence.from_generator(lambda rng: iter(()), 5),
   "TaskSequence(num_tasks=None): expected at least 1 from the generator, which stopped after 0"),
  (lambda: tasks.TaskSequence.from_generator(lines, 5, num_tasks=9), "expected at least 9"),
  (lambda: tasks.TaskSequence.from_generator(of_other_shape, 5), "x of task 1 is float32 [5, 2], that of task 0 float"),
  (lambda: tasks.TaskSequence([np.ones([2, 1]), np.ones([3, 1])], [np.ones([2, 1]), np.ones([2, 1])],
                              np.ones([2, 1, 1]), np.ones([2, 1, 1]), 2),
   "TaskSequence(y=...): its shape is [2, 2, 1], expected [2, 2 to 3, ...], as many tasks and examples"),
  (lambda: tasks.TaskSequence.from_generator(lambda rng: iter([(1, 2)]), 5), "task 0 is no tuple of x, y, test_x"),
  (lambda: tasks.TaskSequence(**arrays(), batch_size=8), "TaskSequence(batch_size=8): expected 1 to 7"),
  (lambda: tasks.TaskSequence(**arrays(), batch_size=0), "TaskSequence(batch_size=0): expected 1 to 7"),
  (lambda: tasks.TaskSequence(**arrays(num_tasks=0), batch_size=1), "TaskSequence(x=...): its shape is [0, 7, 2]"),
  (lambda: tasks.TaskSequence(**arrays() | {"y": arrays(2)["y"]}, batch_size=1), "TaskSequence(y=...): its shape"),
  (lambda: tasks.TaskSequence(**arrays() | {"test_x": arrays(d=3, m=2)["test_x"]}, batch_size=1), "an example is"),
  (lambda: tasks.TaskSequence(**arrays(), batch_size=2).shuffled(0, 4), "TaskSequence(num_tasks=4): expected 1 to 3"),
])  # fmt: skip
def test_what_is_no_sequence_is_refused_in_one_line(make, says):
  with pytest.raises(UserError, match=re.escape(says)) as error:
    make()
  assert "\n" not in str(error.value)
