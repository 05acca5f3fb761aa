"""How many tasks are computed at a time: told from the sizes, and without a change of what comes out."""

import numpy as np
import pytest
import small_runs
import tensorflow as tf

from maml_tf import MAML, evaluation, memory, models, randomness, tasks, tracing


def peak(function, *shapes):
  specs = [tf.TensorSpec(shape, tf.float32) for shape in shapes]
  return memory.peak_bytes(tracing.function(function).get_concrete_function(*specs).graph)


def test_what_is_alive_at_once_is_counted_by_hand():
  one = 4 * 1000  # bytes
  assert peak(lambda x: tf.exp(tf.sin(tf.exp(x))), [1000]) == 2 * one  # each with the one that it reads
  assert peak(lambda x: tf.exp(tf.reshape(tf.sin(x), [10, 100])), [1000]) == 2 * one  # the same bytes in another shape

  def kept(x):
    first = tf.sin(x)
    return first * tf.exp(tf.exp(first))

  assert peak(kept, [1000]) == 3 * one
  assert peak(tf.exp, [None, 1000]) == one  # sizes that are not known count as 1


def test_loops_and_branches_need_what_is_in_them():
  one = 4 * 1000
  body = tf.function(lambda x: tf.exp(tf.exp(tf.exp(x))), autograph=False)
  assert peak(lambda x: body(x) + 1.0, [1000]) >= 2 * one
  loop = peak(lambda x: tf.while_loop(lambda i, _: i < 9, lambda i, x: (i + 1, body(x)), (0, x))[1], [1000])
  assert 2 * one <= loop < 5 * one  # whatever the number of iterations
  branch = peak(lambda x: tf.cond(x[0] > 0, lambda: x, lambda: tf.reduce_sum(tf.tile(x, [50])) * x), [1000])
  assert branch >= 50 * one


@pytest.mark.parametrize(("number", "most", "divisor"), [(20, 7, 5), (20, 0, 1), (20, 99, 20), (7, 6, 1), (1, 5, 1)])
def test_chunks_divide(number, most, divisor):
  assert memory.largest_divisor(number, most) == divisor


def sizes_seen(monkeypatch, maml, method):
  """How many tasks each traced call of a method of the algorithm is of."""
  seen, original = [], getattr(maml, method)

  def spy(weights, batch, *rest):
    seen.append(batch.support_x.shape[0])
    return original(weights, batch, *rest)

  monkeypatch.setattr(maml, method, spy)
  return seen


def test_an_evaluation_is_cut_where_it_would_not_fit_and_is_the_same(monkeypatch):
  maml, sines = MAML(models.MLP(hidden=(8,)), inner_lr=0.01), tasks.Sinusoid(5, 5)
  seen, weights = sizes_seen(monkeypatch, maml, "evaluate"), maml.initial_weights(0)
  measure = evaluation.of_algorithm(maml, weights, 3)
  whole = evaluation.evaluate_with_progress(measure, sines, randomness.make_seed(1), 45)["loss"]
  assert seen == [20]
  needed = memory.peak_bytes(
    tracing.function(lambda: measure(sines.sample(randomness.make_seed(1), 20), None)).get_concrete_function().graph
  )
  seen.clear()
  monkeypatch.setattr(memory, "EVALUATION", needed // 3)
  parts = evaluation.evaluate_with_progress(measure, sines, randomness.make_seed(1), 45)["loss"]
  assert seen == [20, 5]
  np.testing.assert_allclose(parts, whole, rtol=1e-5, atol=1e-6)


def test_a_training_is_cut_where_it_would_not_fit_and_goes_the_same_way(monkeypatch, tmp_path):
  losses = {}
  for limit, sizes in ((memory.TRAINING, [4]), (1, [4, 1])):
    learner = small_runs.learner()
    with monkeypatch.context() as patch:
      patch.setattr(memory, "TRAINING", limit)
      seen = sizes_seen(patch, learner.algorithm, "meta_loss")
      small_runs.trainer(tmp_path / str(limit), small_runs.Schedule(20, 10, 20, 20, 20), learner).train()
    assert seen == sizes
    losses[limit] = [float(row["loss"]) for row in small_runs.rows(tmp_path / str(limit) / "metrics.csv")]
  np.testing.assert_allclose(losses[1], losses[memory.TRAINING], rtol=1e-4)


def paper(shape, filters, max_pool, queries, num_updates, ways=5):
  model = models.ConvNet(ways, filters, shape, max_pool=max_pool)
  maml = MAML(model, "crossentropy", 0.01, num_updates, loss_reduction="per_class_sum")
  weights = maml.initial_weights(0)

  def batch(num_tasks, queries=queries):
    x = [tf.zeros([num_tasks, ways * n, *shape]) for n in (1, queries)]
    y = [tf.zeros([num_tasks, ways * n], tf.int32) for n in (1, queries)]
    return tasks.TaskBatch(x[0], y[0], x[1], y[1])

  def needed(compute):
    return memory.peak_bytes(tracing.function(compute).get_concrete_function().graph)

  return maml, weights, batch, needed


def test_the_presets_train_all_tasks_at_once_as_they_always_did():
  from maml_tf.over_tasks import meta_gradients

  for num_tasks, setting in ((32, ((28, 28, 1), 64, False, 1, 1)), (4, ((84, 84, 3), 32, True, 15, 5))):
    maml, weights, batch, needed = paper(*setting)
    assert (
      needed(lambda m=maml, w=weights, b=batch, n=num_tasks: meta_gradients(m.meta_loss, w, b(n))) < memory.TRAINING
    )


def test_an_evaluation_of_miniimagenet_is_cut_into_single_tasks():
  maml, weights, batch, needed = paper((84, 84, 3), 32, True, 15, 5)
  block = needed(lambda: maml.evaluate(weights, batch(20), 10))
  assert memory.largest_divisor(20, memory.EVALUATION * 20 // block) <= 2
