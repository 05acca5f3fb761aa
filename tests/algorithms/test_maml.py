"""The inner loop and the meta-gradient, against finite differences, hand-written gradients and hand-computed steps."""

import numpy as np
import pytest
import tensorflow as tf
from finite_differences import relative_error
from meta_batches import CASES, RNG, image_batch, mlp, regression_batch, spread

from maml_tf import MAML, losses, models, tasks
from maml_tf.algorithms.pretraining import Pretraining
from maml_tf.algorithms.reptile import Reptile
from maml_tf.maml import LearnedStepSizes, adapt, adapt_final, inner_update


@pytest.mark.parametrize("num_updates", [1, 5])
@pytest.mark.parametrize("case", CASES)
def test_meta_gradient_equals_finite_differences(float64, case, num_updates):
  make, make_batch, loss, rate = CASES[case]
  model, batch = make(), make_batch()
  maml = MAML(model, loss, inner_lr=rate, num_updates=num_updates)
  weights = spread(model.initial_weights(0))
  meta_loss = tf.function(lambda w: maml.meta_loss(w, batch)[0])
  _, gradients = tf.function(lambda w: maml.meta_gradients(w, batch))(weights)
  assert relative_error(meta_loss, weights, gradients) < 1e-6


@pytest.mark.parametrize("num_updates", [1, 3])
def test_first_order_equals_hand_written_gradients_and_differs_from_second_order(float64, num_updates):
  """By hand: descend on the support set with NumPy arithmetic between gradients, then the query gradient there."""
  model, batch, rate = mlp(), regression_batch(num_tasks=2), 0.05
  weights = spread(model.initial_weights(0))

  def gradient(weights, x, y):
    with tf.GradientTape() as tape:
      tape.watch(weights)
      loss = tf.reduce_mean((model.apply(weights, x) - y) ** 2)
    return tape.gradient(loss, weights)

  expected = dict.fromkeys(weights, 0.0)
  for task in range(2):
    adapted = dict(weights)
    for _ in range(num_updates):
      step = gradient(adapted, batch.support_x[task], batch.support_y[task])
      adapted = {n: w - rate * step[n] for n, w in adapted.items()}
    at_query = gradient(adapted, batch.query_x[task], batch.query_y[task])
    expected = {n: expected[n] + at_query[n] / 2 for n in weights}

  maml = MAML(model, inner_lr=rate, num_updates=num_updates, first_order=True)
  _, first = maml.meta_gradients(weights, batch)
  _, second = MAML(model, inner_lr=rate, num_updates=num_updates).meta_gradients(weights, batch)
  for name in weights:
    np.testing.assert_allclose(first[name], expected[name], rtol=1e-10, atol=1e-12)
  difference = sum(float(tf.norm(first[n] - second[n])) for n in weights)
  assert difference > 1e-2 * sum(float(tf.norm(second[n])) for n in weights)


def test_one_inner_step_by_hand():
  """L_i = (w - c_i)^2 has the gradient 2 (w - c_i)."""
  centre = tf.constant([1.0, 2.0, 4.0])
  stepped = inner_update(lambda w: (w["w"] - centre) ** 2, {"w": tf.zeros(3)}, 0.25)
  np.testing.assert_allclose(stepped["w"], [0.5, 1.0, 2.0])


def test_meta_gradient_of_a_quadratic_by_hand():
  """theta' = theta - 2a(theta - c); the gradient of (theta' - q)^2 is 2 (theta' - q)(1 - 2a); first order drops it."""
  for first_order, factor in ((False, 0.5), (True, 1.0)):
    theta = tf.constant([3.0])
    with tf.GradientTape() as tape:
      tape.watch(theta)
      adapted = inner_update(lambda w: (w["w"] - 1.0) ** 2, {"w": theta}, 0.25, first_order)["w"]
      loss = (adapted - 5.0) ** 2
    np.testing.assert_allclose(tape.gradient(loss, theta), [2 * (2.0 - 5.0) * factor])


def test_tasks_permuted_or_split_over_two_calls_give_the_same(float64):
  model, batch = models.ConvNet(3, filters=4, input_shape=(16, 16, 1)), image_batch(num_tasks=4)
  maml = MAML(model, "crossentropy", 0.1, num_updates=2)
  weights = model.initial_weights(0)
  loss, gradients = maml.meta_gradients(weights, batch)

  def part(order):
    return tasks.TaskBatch(*(field[order] for field in batch[:4]))

  permuted_loss, permuted = maml.meta_gradients(weights, part([2, 0, 3, 1]))
  halves = [maml.meta_gradients(weights, part(order)) for order in ([0, 1], [2, 3])]
  np.testing.assert_allclose(permuted_loss, loss, rtol=1e-12)
  np.testing.assert_allclose((halves[0][0] + halves[1][0]) / 2, loss, rtol=1e-12)
  for name, gradient in gradients.items():
    np.testing.assert_allclose(permuted[name], gradient, rtol=1e-9, atol=1e-14)
    np.testing.assert_allclose((halves[0][1][name] + halves[1][1][name]) / 2, gradient, rtol=1e-9, atol=1e-14)
  order = [2, 0, 3, 1]
  np.testing.assert_allclose(
    maml.evaluate(weights, part(order), 3)["loss"], tf.gather(maml.evaluate(weights, batch, 3)["loss"], order, axis=1)
  )


def test_adapt_lists_every_step_and_adapt_final_is_the_last():
  model, batch = mlp(), regression_batch(dtype=np.float32)
  maml = MAML(model, inner_lr=0.05, num_updates=3)
  weights = model.initial_weights(0)
  steps = maml.adapt(weights, batch.support_x, batch.support_y)
  assert len(steps) == 4
  assert all(w.shape == (3, *weights[n].shape) for step in steps for n, w in step.items())
  np.testing.assert_array_equal(steps[0]["dense_1/kernel"][2], weights["dense_1/kernel"])
  for num_updates in (3, tf.constant(3)):
    final = maml.adapt_final(weights, batch.support_x, batch.support_y, num_updates)
    for name in weights:
      np.testing.assert_allclose(final[name], steps[3][name], rtol=1e-5, atol=1e-7)


def test_evaluate_equals_the_loss_of_each_adapted_step():
  model, batch = mlp(), regression_batch(dtype=np.float32)
  maml = MAML(model, inner_lr=0.05)
  weights = model.initial_weights(3)
  measured = maml.evaluate(weights, batch, num_updates=4)
  assert set(measured) == {"loss"} and measured["loss"].shape == (5, 3)
  for step, adapted in enumerate(maml.adapt(weights, batch.support_x, batch.support_y, 4)):
    errors = (model.apply(adapted, batch.query_x) - batch.query_y) ** 2
    np.testing.assert_allclose(measured["loss"][step], np.mean(errors, axis=(1, 2)), rtol=1e-5)


def test_classifier_is_at_chance_before_adapting_and_right_after():
  """Classes are told apart by their mean; labels are permuted per task, so nothing can be known before."""
  rng = RNG(0)
  num_tasks, ways, shots = 40, 5, 4
  labels = np.stack([np.repeat(rng.permutation(ways), shots) for _ in range(num_tasks)])
  centres = rng.normal(size=(num_tasks, ways, 1, 6)).repeat(shots, axis=2).reshape(num_tasks, -1, 6) * 3
  x = (centres + rng.normal(size=(2, *centres.shape)) * 0.1).astype(np.float32)
  batch = tasks.TaskBatch(x[0], labels, x[1], labels)
  model = models.MLP(output_dim=ways, hidden=(32,), input_shape=(6,))
  weights = {n: w * 30 for n, w in model.initial_weights(0).items()}
  maml = MAML(model, "crossentropy", inner_lr=0.5)
  accuracy = maml.evaluate(weights, batch, 20)["accuracy"].numpy().mean(axis=1)
  assert abs(accuracy[0] - 1 / ways) < 0.1
  assert accuracy[20] > 0.95


def test_per_class_sum_is_the_mean_with_a_step_size_times_the_number_of_classes(float64):
  model, batch = models.ConvNet(3, filters=4, input_shape=(16, 16, 1)), image_batch(ways=3, shots=2)
  weights = model.initial_weights(0)
  summed = MAML(model, "crossentropy", 0.1, loss_reduction="per_class_sum")
  mean = MAML(model, "crossentropy", 0.3)
  loss_sum, gradient_sum = summed.meta_gradients(weights, batch)
  loss_mean, gradient_mean = mean.meta_gradients(weights, batch)
  np.testing.assert_allclose(loss_sum, 3 * loss_mean, rtol=1e-12)
  np.testing.assert_allclose(gradient_sum["dense/kernel"], 3 * gradient_mean["dense/kernel"], rtol=1e-9)


def test_step_sizes_per_weight_and_per_step():
  model, batch = mlp(), regression_batch(dtype=np.float32)
  weights = model.initial_weights(0)
  support = batch.support_x, batch.support_y
  last = {n: 0.1 for n in weights if n.startswith("dense_2")}

  only_last = MAML(model, inner_lr=last).adapt(weights, *support, 2)[-1]
  assert np.all(only_last["dense_0/kernel"] == weights["dense_0/kernel"])
  assert not np.allclose(only_last["dense_2/bias"], 0)

  per_step = MAML(model, inner_lr=[0.1, last]).adapt(weights, *support, 3)
  first = MAML(model, inner_lr=0.1).adapt(weights, *support, 1)[-1]
  np.testing.assert_allclose(per_step[1]["dense_0/kernel"], first["dense_0/kernel"])
  np.testing.assert_array_equal(per_step[3]["dense_0/kernel"], per_step[1]["dense_0/kernel"])
  looped = MAML(model, inner_lr=[0.1, last]).adapt_final(weights, *support, 3)
  for name in weights:
    np.testing.assert_allclose(looped[name], per_step[3][name], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(("per", "num_steps"), [("weight", None), ("element", None), ("weight", 2), ("element", 2)])
def test_learned_step_sizes_have_meta_gradients_equal_to_finite_differences(float64, per, num_steps):
  model, batch = mlp(), regression_batch()
  maml = MAML(model, inner_lr=LearnedStepSizes(0.05, per, num_steps), num_updates=2)
  weights = maml.initial_weights(0)
  weights |= spread(model.initial_weights(0))
  _, gradients = maml.meta_gradients(weights, batch)
  rates = [name for name in gradients if name.startswith("inner_lr/")]
  assert len(rates) == len(model.adapted_names)
  assert all(float(tf.norm(gradients[name])) > 0 for name in rates)
  assert relative_error(lambda w: maml.meta_loss(w, batch)[0], weights, gradients) < 1e-6


def test_masked_examples_do_not_count():
  model, batch = mlp(), regression_batch(n=6, dtype=np.float32)
  mask = np.array([[1, 1, 1, 1, 0, 0]] * 3, bool)
  garbage = [np.where(mask[..., None], field, 1e6).astype(np.float32) for field in batch[1::2]]
  masked = tasks.TaskBatch(batch.support_x, garbage[0], batch.query_x, garbage[1], mask, mask)
  short = tasks.TaskBatch(*(field[:, :4] for field in batch[:4]))
  maml, weights = MAML(model, inner_lr=0.05), model.initial_weights(0)
  loss, gradients = maml.meta_gradients(weights, masked)
  expected_loss, expected = maml.meta_gradients(weights, short)
  np.testing.assert_allclose(loss, expected_loss, rtol=1e-5)
  np.testing.assert_allclose(gradients["dense_1/kernel"], expected["dense_1/kernel"], rtol=1e-4, atol=1e-8)
  np.testing.assert_allclose(
    maml.evaluate(weights, masked, 2)["loss"], maml.evaluate(weights, short, 2)["loss"], rtol=1e-5
  )


def test_fresh_data_at_each_step():
  """A sequence of losses, one per step, as reinforcement learning needs."""
  centres = [tf.constant([1.0]), tf.constant([-1.0])]
  steps = adapt([lambda w, c=c: (w["w"] - c) ** 2 for c in centres], {"w": tf.zeros(1)}, 0.25, 2)
  np.testing.assert_allclose([step["w"][0] for step in steps], [0.0, 0.5, -0.25])
  np.testing.assert_allclose(adapt_final(lambda w: w["w"] ** 2, {"w": tf.ones(1)}, 0.25, 3)["w"], [0.125])


@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize("case", ["mlp", "conv_strided", "conv_max_pool"])
def test_same_loss_and_gradients_in_a_graph_and_compiled(case, jit_compile):
  make, make_batch, loss, rate = CASES[case]
  model, batch = make(), make_batch(dtype=np.float32)
  maml, weights = MAML(model, loss, rate, num_updates=2), model.initial_weights(0)
  eager_loss, eager = maml.meta_gradients(weights, batch)
  graph_loss, graph = tf.function(maml.meta_gradients, jit_compile=jit_compile)(weights, batch)
  np.testing.assert_allclose(graph_loss, eager_loss, rtol=1e-4)
  for name, gradient in eager.items():
    np.testing.assert_allclose(graph[name], gradient, rtol=2e-3, atol=1e-4)


def test_a_users_graph_rewrites_only_what_asks_for_it():
  """A loss that branches on a tensor: refused as it stands, whoever traces it, and fine with a decorator of its own."""
  model, batch = mlp(), regression_batch(dtype=np.float32)
  weights = model.initial_weights(0)

  def loss(labels, outputs):
    return losses.mse(labels, outputs) if tf.reduce_all(outputs < 1e6) else 0.0 * losses.mse(labels, outputs)

  for method in (MAML, Pretraining, Reptile):
    with pytest.raises(TypeError, match=r"@tf\.function"):
      tf.function(method(model, loss).meta_loss)(weights, batch)
  expected = MAML(model, "mse").meta_gradients(weights, batch)[1]
  got = tf.function(MAML(model, tf.function(loss)).meta_gradients)(weights, batch)[1]
  for name in weights:
    np.testing.assert_allclose(got[name], expected[name], rtol=1e-4, atol=1e-7)


def test_sizes_may_be_unknown_when_tracing():
  model = models.ConvNet(3, filters=4, input_shape=(16, 16, 1))
  maml, weights = MAML(model, "crossentropy", 0.1), model.initial_weights(0)
  x, y = tf.TensorSpec([None, None, 16, 16, 1]), tf.TensorSpec([None, None], tf.int64)
  traced = tf.function(maml.meta_gradients).get_concrete_function(weights, tasks.TaskBatch(x, y, x, y))
  for num_tasks, shots in ((2, 1), (3, 2)):
    batch = image_batch(num_tasks, shots=shots, dtype=np.float32)
    batch = tasks.TaskBatch(*(tf.constant(field) for field in batch[:4]))
    np.testing.assert_allclose(traced(weights, batch)[0], maml.meta_gradients(weights, batch)[0], rtol=1e-5)


@pytest.mark.parametrize("width", [np.int8, np.uint8, np.int32, np.int64])
def test_labels_of_any_integer_width_and_as_probabilities(width):
  model, batch = models.ConvNet(3, filters=4, input_shape=(16, 16, 1)), image_batch(dtype=np.float32)
  maml, weights = MAML(model, "crossentropy", 0.1), model.initial_weights(0)
  expected = maml.meta_gradients(weights, batch)[0]
  integers = batch._replace(support_y=batch.support_y.astype(width), query_y=batch.query_y.astype(width))
  one_hot = batch._replace(support_y=np.eye(3)[batch.support_y], query_y=np.eye(3)[batch.query_y])
  np.testing.assert_allclose(maml.meta_gradients(weights, integers)[0], expected, rtol=1e-6)
  np.testing.assert_allclose(maml.meta_gradients(weights, one_hot)[0], expected, rtol=1e-6)
  np.testing.assert_allclose(
    maml.evaluate(weights, one_hot, 1)["accuracy"], maml.evaluate(weights, integers, 1)["accuracy"]
  )


def test_own_loss():
  model, batch = mlp(), regression_batch(dtype=np.float32)
  weights = model.initial_weights(0)
  absolute = MAML(model, lambda labels, outputs: tf.reduce_mean(tf.abs(labels - outputs), axis=-1), 0.05)
  adapted = absolute.adapt(weights, batch.support_x, batch.support_y, 1)[-1]
  expected = np.abs(model.apply(adapted, batch.query_x) - batch.query_y).mean()
  np.testing.assert_allclose(absolute.meta_gradients(weights, batch)[0], expected, rtol=1e-5)


@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    (dict(inner_lr=float("nan")), "inner_lr: expected a finite number"),
    (dict(inner_lr=[0.1, float("inf")]), "inner_lr: expected a finite number"),
    (dict(inner_lr=[]), "inner_lr: an empty list"),
    (dict(inner_lr={"dense_9/kernel": 0.1}), "no weight is called 'dense_9/kernel'"),
    (dict(loss="huber"), "loss: expected one of"),
    (dict(loss_reduction="sum"), "loss_reduction: expected mean or per_class_sum"),
    (dict(num_updates=-1), "num_updates: expected 0 or more"),
    (dict(inner_lr=np.float32("nan")), "inner_lr: expected a finite number"),
    (dict(inner_lr="0.1"), "inner_lr: expected a finite number"),
    (dict(inner_lr=None), "inner_lr: expected a finite number"),
  ],
)
def test_bad_arguments_are_named(arguments, message):
  with pytest.raises(ValueError, match=message):
    MAML(mlp(), **arguments)


def test_bad_losses_and_shapes_are_named():
  model, batch = mlp(), regression_batch(dtype=np.float32)
  weights = model.initial_weights(0)
  with pytest.raises(ValueError, match="one loss per example"):
    MAML(model, lambda labels, outputs: tf.reduce_mean(outputs)).meta_gradients(weights, batch)
  with pytest.raises(ValueError, match="does not depend on any of the weights"):
    MAML(model, lambda labels, outputs: tf.zeros(labels.shape[:2])).meta_gradients(weights, batch)
  with pytest.raises(ValueError, match="labels have shape"):
    flat = batch._replace(support_y=batch.support_y[..., 0])
    MAML(model).meta_gradients(weights, flat)
  with pytest.raises(ValueError, match=r"expected inputs \[n, 1\] or \[T, n, 1\]"):
    model.apply(weights, np.zeros([4]))


def test_the_weights_of_many_tasks_need_inputs_with_a_task_axis():
  model, batch = mlp(), regression_batch(dtype=np.float32)
  adapted = MAML(model).adapt(model.initial_weights(0), batch.support_x, batch.support_y, 1)[-1]
  with pytest.raises(ValueError, match=r"weight dense_0/kernel has shape .* a set for each task, but the"):
    model.apply(adapted, batch.query_x[0])


def test_number_of_steps_in_any_integer_width_and_never_below_zero():
  model, batch = mlp(), regression_batch(dtype=np.float32)
  maml, weights = MAML(model, inner_lr=0.05), model.initial_weights(0)
  support = batch.support_x, batch.support_y
  expected = maml.adapt_final(weights, *support, 2)["dense_1/kernel"]
  for steps in (np.int64(2), tf.constant(2, tf.int64), tf.constant(2, tf.uint8)):
    np.testing.assert_array_equal(maml.adapt_final(weights, *support, steps)["dense_1/kernel"], expected)
  for call in (maml.adapt, maml.adapt_final):
    with pytest.raises(ValueError, match="num_updates: expected 0 or more, got -1"):
      call(weights, *support, -1)
  with pytest.raises(ValueError, match="num_updates: expected 0 or more, got -1"):
    maml.evaluate(weights, batch, -1)


def test_adapting_nothing_leaves_the_weights():
  model, batch = mlp(), regression_batch(dtype=np.float32)
  weights = model.initial_weights(0)
  adapted = MAML(model, inner_lr={}).adapt(weights, batch.support_x, batch.support_y, 2)[-1]
  np.testing.assert_array_equal(adapted["dense_1/kernel"][1], weights["dense_1/kernel"])


def test_plain_python_lists_as_data():
  model, weights = models.MLP(), models.MLP().initial_weights(0)
  batch = tasks.TaskBatch([[[0.5], [1.0]]], [[[1.0], [2.0]]], [[[2.0]]], [[[4.0]]])
  assert np.isfinite(MAML(model).meta_gradients(weights, batch)[0])
  assert MAML(model).evaluate(weights, batch, 1)["loss"].shape == (2, 1)


def test_support_statistics_make_each_prediction_independent_of_the_other_queries(float64):
  """By hand: normalise the queries by the moments of the support set under the adapted weights."""
  model, batch = mlp(norm="batch_norm"), regression_batch()
  weights = spread(model.initial_weights(0))
  maml = MAML(model, inner_lr=0.05, num_updates=2, bn_mode="support")
  adapted = maml.adapt(weights, batch.support_x, batch.support_y)[-1]
  transductive = MAML(model, inner_lr=0.05, num_updates=2).adapt(weights, batch.support_x, batch.support_y)[-1]
  for name in weights:
    np.testing.assert_array_equal(adapted[name], transductive[name])  # the support set has its own statistics anyway
  together = maml.predict(adapted, batch.query_x)
  alone = tf.concat([maml.predict(adapted, batch.query_x[:, i : i + 1]) for i in range(6)], axis=1)
  np.testing.assert_allclose(together, alone, rtol=1e-12)
  assert np.abs(together - maml.predict(transductive, batch.query_x)).max() > 1e-3

  task, hidden, support = 1, batch.query_x[1], batch.support_x[1]
  for i in range(2):
    kernel, bias, beta = (adapted[n][task] for n in (f"dense_{i}/kernel", f"dense_{i}/bias", f"norm_{i}/beta"))
    hidden, support = hidden @ kernel + bias, support @ kernel + bias
    mean, deviation = np.mean(support, axis=0), np.sqrt(np.var(support, axis=0) + 1e-3)
    hidden, support = (np.maximum((h - mean) / deviation + beta, 0.0) for h in (hidden, support))
  by_hand = hidden @ adapted["dense_2/kernel"][task] + adapted["dense_2/bias"][task]
  np.testing.assert_allclose(together[task], by_hand, rtol=1e-9)
  _, gradients = maml.meta_gradients(weights, batch)
  assert relative_error(tf.function(lambda w: maml.meta_loss(w, batch)[0]), weights, gradients) < 1e-6


def test_running_statistics_move_in_training_and_serve_in_evaluation(float64):
  from maml_tf.training.learner import SupervisedLearner

  class Fixed(tasks.TaskDistribution):
    def sample(self, seed, num_tasks):
      return tasks.TaskBatch(*(f if f is None else tf.constant(f[:num_tasks]) for f in regression_batch()))

  model, batch = mlp(norm="batch_norm"), regression_batch()
  maml = MAML(model, inner_lr=0.05, num_updates=1, bn_mode="running")
  learner = SupervisedLearner(maml, Fixed(), meta_batch_size=3)
  state = learner.initial_state(0)
  state["weights"] |= spread(model.initial_weights(0))
  weights = state["weights"]
  assert [n for n in weights if n not in model.weight_shapes] == [
    f"statistics/norm_{i}/{moment}" for i in range(2) for moment in ("mean", "variance")
  ]
  after, metrics = learner.train_step(state, tf.constant([0, 0]))
  assert all(value.shape == [] for value in metrics.values())
  adapted = MAML(model, inner_lr=0.05).adapt({n: weights[n] for n in model.weight_shapes}, *batch[:2])[-1]
  _, used = model.apply_with_statistics(adapted, batch.query_x)
  for name, value in used.items():
    start = 1.0 if name.endswith("variance") else 0.0
    expected = 0.99 * start + 0.01 * np.mean(value, axis=0)
    np.testing.assert_allclose(after["weights"][f"statistics/{name}"], expected, rtol=1e-9)
  given = {n.removeprefix("statistics/"): v for n, v in weights.items() if n.startswith("statistics/")}
  expected = np.mean((model.apply(adapted, batch.query_x, given) - batch.query_y) ** 2, axis=(1, 2))
  np.testing.assert_allclose(maml.evaluate(weights, batch, 1)["loss"][1], expected, rtol=1e-9)
