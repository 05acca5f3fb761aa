"""The loop of online meta-learning: what has arrived, what is drawn, what is judged, and that it resumes."""

import re

import numpy as np
import pytest
import tensorflow as tf
from small_runs import assert_same_run

from maml_tf import MAML, models, tasks, tracing
from maml_tf.algorithms.anil import ANIL
from maml_tf.errors import UserError
from maml_tf.losses import smoothed_crossentropy
from maml_tf.online import STRATEGIES, OnlineLearner, Stream, UpdateProcedure, WarmStart, metrics
from maml_tf.online.buffer import Buffer
from maml_tf.online.stream import judged_after
from maml_tf.training.run_directory import RunDirectory
from maml_tf.training.trainer import Schedule, Trainer


def sequence(num_tasks=4, n=9, batch_size=3, classes=None):
  """Every example's first input says which it is: 100 x task + place."""
  x = np.float32(100 * np.arange(num_tasks)[:, np.newaxis] + np.arange(n))[..., np.newaxis]
  y = (x[..., 0].astype(np.int32) % classes) if classes else x / 100
  return tasks.TaskSequence(x / 400 if classes else x, y, (x / 400 if classes else x)[:, :2], y[:, :2], batch_size)


# What has arrived -----------------------------------------------------------------------------------------------------


def test_rounds_of_a_stream():
  stream = Stream(sequence(), WarmStart(tasks=1, batches=2, rounds=2))
  assert stream.num_rounds == 2 + 3 * 3 and stream.first_amount == 3
  found = [stream.at(tf.constant(r)) for r in range(stream.num_rounds)]
  assert [bool(m.arriving) for m in found] == [False] * 2 + [True] * 9
  assert [(int(m.task), int(m.batch), int(m.amount)) for m in found[2:6]] == [
    (1, 0, 3),
    (1, 1, 6),
    (1, 2, 9),
    (2, 0, 3),
  ]
  assert [stream.tasks_after(rounds) for rounds in (1, 4, 5, 8, 11)] == [0, 0, 1, 2, 3]
  assert stream.arrived(found[0]).numpy().tolist() == [6, 0, 0, 0]
  assert stream.arrived(found[6]).numpy().tolist() == [6, 9, 6, 0]
  assert int(stream.last(tf.constant(0)).task) == 1 and int(stream.last(tf.constant(11)).task) == 3


def ragged():
  """Tasks of 5, 9 and 2 examples, of which every first input says which it is; two, three and one held out."""
  x = [np.float32(100 * task + np.arange(n))[:, np.newaxis] / 400 for task, n in enumerate((5, 9, 2))]
  held_out = [values[:n] for values, n in zip(x, (2, 3, 1), strict=True)]
  return tasks.TaskSequence(x, [8 * values for values in x], held_out, [8 * values for values in held_out], 3)


def test_tasks_of_different_sizes_end_when_their_data_does():
  stream = Stream(ragged())
  found = [stream.at(tf.constant(r)) for r in range(stream.num_rounds)]
  assert [(int(m.task), int(m.amount)) for m in found] == [(0, 3), (0, 5), (1, 3), (1, 6), (1, 9), (2, 2)]
  assert stream.arrived(found[-1]).numpy().tolist() == [5, 9, 2] and stream.first_amount == 2
  assert [stream.tasks_after(rounds) for rounds in range(7)] == [0, 0, 1, 1, 1, 2, 3]
  buffer = Buffer(stream.sequence, tf.float32)
  batch = buffer.current(found[4])
  np.testing.assert_allclose(400 * batch.support_x[0, :, 0], 100 + np.arange(9), rtol=1e-5)
  np.testing.assert_allclose(400 * batch.query_x[0, :, 0], [100, 101, 102], rtol=1e-5)
  drawn = buffer.sample(tf.constant([1, 2]), tf.constant([0, 1, 2] * 20), stream.arrived(found[-1]), 2, 2)
  task, place = np.divmod(np.rint(400 * drawn.support_x.numpy()[..., 0]), 100)
  np.testing.assert_array_equal(task, np.broadcast_to(np.array([0, 1, 2] * 20)[:, np.newaxis], task.shape))
  assert place[::3].max() == 4 and place[1::3].max() == 8 and place[2::3].max() == 1


def test_a_task_is_judged_as_its_data_grows():
  assert judged_after(range(20, 181, 20), 1.0).all()
  assert (20 * (1 + np.flatnonzero(judged_after(range(20, 181, 20), 1.5)))).tolist() == [20, 40, 60, 100, 160, 180]
  assert judged_after([3, 5, 5], 1).tolist() == [True, True, False]  # of a task that has ended
  who = learner(judge_growth=2.5)
  state, _ = walk(who)
  assert np.isfinite(state["loss"].numpy()).tolist() == [[True, False, True]] * 4
  with pytest.raises(UserError, match="judge_growth=0.5: expected a factor of at least 1"):
    Stream(sequence(), judge_growth=0.5)


def test_only_what_has_arrived_is_drawn_and_nothing_twice():
  buffer = Buffer(sequence(), tf.float32)
  arrived = tf.constant([6, 9, 3, 0])
  chosen = tf.constant([0, 1, 2] * 50)
  batch = buffer.sample(tf.constant([1, 2]), chosen, arrived, 3, 3)
  for x, y in ((batch.support_x, batch.support_y), (batch.query_x, batch.query_y)):
    np.testing.assert_allclose(x / 100, y)
    task, place = np.divmod(x.numpy()[..., 0], 100)
    np.testing.assert_array_equal(task, np.broadcast_to(chosen.numpy()[:, np.newaxis], task.shape))
    assert (place < arrived.numpy()[chosen.numpy()][:, np.newaxis]).all()
    assert all(len(set(row)) == 3 for row in place)
  places = batch.support_x.numpy()[1::3, :, 0] % 100
  assert set(places.ravel()) == set(range(9))  # of 50 draws of 3
  assert (batch.support_x.numpy() != batch.query_x.numpy()).any()


def test_bytes_are_divided_by_255():
  x = np.full([1, 4, 2], 51, np.uint8)
  y = np.zeros([1, 4], np.int32)
  batch = Buffer(tasks.TaskSequence(x, y, x, y, 2), tf.float32).all_of(0, 1)
  np.testing.assert_allclose(batch.support_x, 0.2, rtol=1e-6)


# The update procedure -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [2, 6])
def test_a_sum_over_k_makes_the_step_grow_with_the_data(n):
  """By hand: y = w x + b from zero, one step on the loss sum (y - w x - b)^2 / K."""
  model = models.MLP(1, (), input_shape=(1,))
  weights = {name: tf.zeros(shape) for name, shape in model.weight_shapes.items()}
  x = np.linspace(1, 2, n, dtype=np.float32)[np.newaxis, :, np.newaxis]
  steps = {}
  for reduction in ("mean", "sum_over_k"):
    procedure = UpdateProcedure(MAML(model, "mse", inner_lr=0.1), 1, reduction, inner_batch=2)
    steps[reduction] = procedure.adapt(weights, x, 3 * x)["dense_0/kernel"][0, 0, 0].numpy()
  np.testing.assert_allclose(steps["mean"], 0.1 * 2 * np.mean(3 * x * x), rtol=1e-5)
  np.testing.assert_allclose(steps["sum_over_k"], 0.1 * 2 * np.sum(3 * x * x) / 2, rtol=1e-5)


def test_label_smoothing_is_the_published_one():
  """softmax cross-entropy with label * 0.9 + 0.01, on ten classes."""
  logits, labels = np.random.default_rng(0).normal(size=(3, 10)), np.array([1, 0, 9])
  log_p = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
  expected = -((np.eye(10)[labels] * 0.9 + 0.01) * log_p).sum(axis=1)
  found = smoothed_crossentropy(0.1)(tf.constant(labels[np.newaxis]), tf.constant(logits[np.newaxis]))
  np.testing.assert_allclose(found[0], expected, rtol=1e-6)


# The loop -------------------------------------------------------------------------------------------------------------


def learner(method="ftml", warm=0, classes=3, steps=1, judge_growth=1.0, tasks_of=sequence, **options):
  model = models.MLP(classes or 1, (6,), input_shape=(1,), stddev=0.5)
  adapts = STRATEGIES[method].adapts_in_training
  kind = ANIL if method == "ftml_head" else MAML
  loss = smoothed_crossentropy(0.1) if classes else "mse"
  algorithm = kind(model, loss, inner_lr=0.05, num_updates=int(adapts))
  data = tasks_of() if classes is None else tasks_of(classes=classes)
  stream = Stream(data, WarmStart(warm, batches=1, rounds=2), judge_growth)
  options = dict(meta_updates=2, meta_batch_size=3, inner_batch=2) | options
  return OnlineLearner(UpdateProcedure(algorithm, steps), stream, STRATEGIES[method], **options)


def walk(who, rounds=None):
  state, step, metrics_of = who.initial_state(0), tracing.function(who.train_step), []
  for r in range(who.stream.num_rounds if rounds is None else rounds):
    state, found = step(state, tf.constant([5, r]))
    metrics_of.append(found)
  return state, metrics_of


@pytest.mark.parametrize("method", STRATEGIES)
def test_every_method_walks_to_the_end(method):
  who = learner(method)
  state, found = walk(who)
  assert int(state["round"]) == 12
  for name in ("loss", "accuracy"):
    assert np.isfinite(state[name].numpy()).all() and state[name].shape == (4, 3)
  assert [int(m["task"]) for m in found] == sorted([0, 1, 2, 3] * 3)
  assert [int(m["examples"]) for m in found] == [3, 6, 9] * 4
  evaluated = who.evaluate(state, tf.constant([0, 0]), 1)
  assert evaluated["accuracy"].shape == (2, 1)
  np.testing.assert_allclose(evaluated["loss"][-1, 0], state["loss"][3, 2], rtol=1e-5)


def test_a_warm_start_trains_and_records_nothing():
  who = learner(warm=2)
  before = who.initial_state(0)["weights"]
  state, found = walk(who, rounds=2)
  assert np.isnan(state["loss"].numpy()).all() and all(float(m["loss"]) > 0 for m in found)
  assert any((state["weights"][n].numpy() != before[n].numpy()).any() for n in before)
  state, _ = walk(who)
  assert np.isnan(state["loss"].numpy()[:2]).all() and np.isfinite(state["loss"].numpy()[2:]).all()


def test_from_scratch_begins_anew_with_every_task():
  """So a task's losses do not hang on the tasks before it."""
  who = learner("scratch", steps=0)
  state, step = who.initial_state(0), tracing.function(who.train_step)
  other = {n: w + 1 for n, w in state["weights"].items()}
  seed = tf.constant([5, 3])
  fresh, _ = step(state | {"round": tf.constant(3)}, seed)
  disturbed, _ = step(state | {"round": tf.constant(3), "weights": other}, seed)
  for name in fresh["weights"]:
    np.testing.assert_array_equal(fresh["weights"][name], disturbed["weights"][name])


def test_without_the_current_task_the_first_one_is_not_trained_on():
  who = learner(current_in_buffer=False)
  before = who.initial_state(0)["weights"]
  state, _ = walk(who, rounds=3)
  for name in before:
    np.testing.assert_array_equal(state["weights"][name], before[name])
  state, _ = walk(who, rounds=4)
  assert any((state["weights"][n].numpy() != before[n].numpy()).any() for n in before)


def train(path, method, rounds, warm=1):
  who = learner(method, warm=warm)
  return trained(who, path, rounds)


def trained(who, path, rounds):
  schedule = Schedule(rounds, log_every=1, validate_every=1, checkpoint_every=1, validation_tasks=1)
  return Trainer(who, RunDirectory(path), 3, schedule, tensorboard=False, say=lambda line: None).train()


@pytest.mark.parametrize("method", ["ftml", "scratch"])
def test_a_walk_that_is_resumed_in_any_round_has_the_same_bits(tmp_path, method):
  warm = 0 if method == "scratch" else 1
  total = 12 if method == "scratch" else 11
  train(tmp_path / "whole", method, total, warm)
  for rounds in (1, 4, 7, total):
    train(tmp_path / "parts", method, rounds, warm)
  assert_same_run(tmp_path / "whole", tmp_path / "parts", total)


def test_a_walk_through_tasks_of_different_sizes_resumes(tmp_path):
  walks = {}
  for name, ends in (("whole", [6]), ("parts", [2, 6])):
    for rounds in ends:
      who = learner(classes=None, tasks_of=ragged)
      walks[name], _ = trained(who, tmp_path / name, rounds)
  assert_same_run(tmp_path / "whole", tmp_path / "parts", 6)
  loss = walks["whole"]["loss"].numpy()
  assert np.isfinite(loss).tolist() == [[True, True, False], [True] * 3, [True, False, False]]
  assert metrics.proficiency(loss, who.stream.sequence.amounts).tolist() == [loss[0, 1], loss[1, 2], loss[2, 0]]


def test_an_exported_walk_adapts_as_the_update_procedure_does(tmp_path):
  from maml_tf import export

  who = learner()
  state, _ = walk(who, 3)
  export.save(who, state, tmp_path / "saved_model")
  loaded = tf.saved_model.load(str(tmp_path / "saved_model"))
  x, y = np.float32([[0.1], [0.5], [0.9]]), np.int32([0, 1, 2])
  task = who.procedure.adapt(state["weights"], x[np.newaxis], y[np.newaxis], 1)
  expected = who.procedure.predict(task, x[np.newaxis])[0]
  np.testing.assert_allclose(loaded.adapt_and_predict(x, y, x, 1), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("make", "says"), [
  (lambda: learner(inner_batch=4), "inner_batch=4: expected 1 to 3"),
  (lambda: Stream(sequence(), WarmStart(4, 1, 1)), "warm_start_tasks=4: expected 0 to 3"),
  (lambda: Stream(sequence(), WarmStart(1, 4, 1)), "warm_start_batches=4: expected 1 to 3"),
  (lambda: learner(meta_batch_size=None), "meta_batch_size=None, the whole buffer: expected tasks of equal"),
])  # fmt: skip
def test_what_cannot_be_walked_is_refused(make, says):
  with pytest.raises(UserError, match=re.escape(says)):
    make()


# Metrics --------------------------------------------------------------------------------------------------------------


def test_learning_efficiency_counts_not_reached_as_all():
  values = np.array([[0.5, 0.95, 0.8], [0.9, 0.1, 0.1], [0.1, 0.2, 0.3], [np.nan, 0.2, 0.9]])
  examples, reached = metrics.learning_efficiency(values, [20, 40, 50], 0.9)
  assert examples.tolist() == [40, 20, 50, 50] and reached.tolist() == [True, True, False, True]
  examples, reached = metrics.learning_efficiency(values, [20, 40, 50], 0.15, higher_is_better=False)
  assert examples.tolist() == [50, 40, 20, 50] and reached.tolist() == [False, True, True, False]


def test_values_after_an_amount_of_data():
  values = np.array([[1.0, 2.0, 3.0]])
  assert [metrics.after(values, [20, 40, 50], n)[0] for n in (20, 39, 40, 60)] == [1, 1, 2, 3]
  assert metrics.after(np.array([[1.0, 2.0, np.nan], [1, 2, 3]]), [[20, 30, 30], [20, 40, 50]], 100).tolist() == [2, 3]
  examples, reached = metrics.learning_efficiency([[0.1, 0.2, np.nan]], [[20, 30, 30]], 0.5)
  assert (examples.tolist(), reached.tolist()) == ([30], [False])
  with pytest.raises(UserError, match="amount=10: expected at least 20"):
    metrics.after(values, [20, 40, 50], 10)
  assert metrics.proficiency(values).tolist() == [3.0]
  assert metrics.regret([1, 2, 3], [1, 1, 2]).tolist() == [0, 2, 4]
