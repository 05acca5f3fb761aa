"""The house models: names, shapes, initialisers and the equivalence of their three ways to compute."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from maml_tf import models

MAKE = {
  "mlp": lambda: models.MLP(hidden=(8, 6), input_shape=(3,), output_dim=2),
  "mlp_batch_norm": lambda: models.MLP(hidden=(8, 6), input_shape=(3,), output_dim=2, norm="batch_norm"),
  "conv": lambda: models.ConvNet(5, filters=4, input_shape=(20, 20, 3)),
  "conv_max_pool": lambda: models.ConvNet(5, filters=4, input_shape=(20, 20, 3), max_pool=True),
}


def examples(model, *leading):
  return tf.constant(np.random.default_rng(0).normal(size=(*leading, *model.example_shape)), tf.float32)


@pytest.mark.parametrize("name", MAKE)
def test_task_axis_equals_one_task_at_a_time_and_the_plain_keras_call(name):
  model = MAKE[name]()
  x = examples(model, 3, 4)
  per_task = [model.initial_weights(seed) for seed in range(3)]
  stacked = {n: tf.stack([w[n] for w in per_task]) for n in per_task[0]}
  out = model.apply(stacked, x)
  for task in range(3):
    np.testing.assert_allclose(out[task], model.apply(per_task[task], x[task]), rtol=1e-4, atol=1e-5)
  np.testing.assert_allclose(model(x[0]), model.apply(model.initial_weights(seed=None), x[0]), rtol=1e-5, atol=1e-6)
  shared = model.apply(per_task[1], x)
  np.testing.assert_allclose(shared[1], out[1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", MAKE)
def test_weights_are_reproducible_ordered_and_match_their_shapes(name):
  model = MAKE[name]()
  weights, again, other = MAKE[name]().initial_weights(4), model.initial_weights(4), model.initial_weights(5)
  assert list(weights) == list(model.weight_shapes) == list(again)
  for key, value in weights.items():
    assert value.shape == model.weight_shapes[key]
    np.testing.assert_array_equal(value, again[key])
  kernels = [key for key in weights if key.endswith("kernel")]
  assert all(not np.allclose(weights[key], other[key]) for key in kernels)
  assert all(w.dtype == tf.float64 for w in _in_float64(model).values())


def _in_float64(model):
  keras.config.set_floatx("float64")
  try:
    return model.initial_weights(0)
  finally:
    keras.config.set_floatx("float32")


def test_published_network_sizes():
  """Counts of floats: sinusoid 1-40-40-1; the authors' miniImageNet checkpoint has 32,773 (its index file says so)."""

  def count(model):
    return sum(int(np.prod(shape)) for shape in model.weight_shapes.values())

  assert count(models.MLP()) == 40 + 40 + 1600 + 40 + 40 + 1
  assert count(models.ConvNet(5, filters=32, input_shape=(84, 84, 3), max_pool=True)) == 32773
  omniglot = models.ConvNet(5)
  assert omniglot.weight_shapes["dense/kernel"] == (64, 5)
  assert count(omniglot) == 9 * 64 + 3 * 9 * 64 * 64 + 4 * 2 * 64 + 64 * 5 + 5


def test_published_initialisers():
  mlp = models.MLP(hidden=(200, 200)).initial_weights(0)
  kernel = mlp["dense_1/kernel"].numpy()
  assert abs(kernel).max() <= 0.02 and kernel.std() == pytest.approx(0.0088, rel=0.05)  # cut off at two deviations
  conv = models.ConvNet(20).initial_weights(0)
  kernel = conv["conv_1/kernel"].numpy()
  limit = np.sqrt(6 / (9 * 64 + 9 * 64))
  assert abs(kernel).max() <= limit and kernel.std() == pytest.approx(limit / np.sqrt(3), rel=0.02)
  assert conv["dense/kernel"].numpy().std() == pytest.approx(1.0, rel=0.1)
  assert all(not np.any(value) for name, value in conv.items() if name.endswith(("bias", "beta")))


def test_norm_weights_are_meta_parameters_and_not_adapted():
  model = models.ConvNet(5, filters=4)
  assert "norm_0/beta" in model.weight_shapes and "norm_0/beta" not in model.adapted_names
  assert "norm_0/gamma" not in model.weight_shapes
  assert set(model.adapted_names) == {n for n in model.weight_shapes if not n.startswith("norm")}


def test_statistics_of_one_batch_can_be_used_on_another():
  model = models.ConvNet(5, filters=4)
  weights = model.initial_weights(0)
  support, query = examples(model, 2, 5), examples(model, 2, 3)
  outputs, statistics = model.apply_with_statistics(weights, support)
  np.testing.assert_allclose(model.apply(weights, support, statistics), outputs, rtol=1e-4, atol=1e-5)
  assert statistics["norm_0/mean"].shape == (2, 4)
  one_by_one = tf.concat([model.apply(weights, query[:, i : i + 1], statistics) for i in range(3)], 1)
  np.testing.assert_allclose(model.apply(weights, query, statistics), one_by_one, rtol=1e-4, atol=1e-5)
  _, plain = model.apply_with_statistics(weights, support[1])
  np.testing.assert_allclose(plain["norm_3/variance"], statistics["norm_3/variance"][1], rtol=1e-4)


def test_computes_in_the_dtype_of_the_weights():
  model = models.MLP()
  weights = {n: tf.cast(w, tf.float64) for n, w in model.initial_weights(0).items()}
  assert model.apply(weights, np.ones((3, 1), np.float32)).dtype == tf.float64
  assert model.apply(model.initial_weights(0), np.ones((3, 1))).dtype == tf.float32


def test_house_models_are_keras_models():
  model = models.ConvNet(5, filters=4, input_shape=(20, 20, 1))
  assert isinstance(model, keras.Model) and len(model.trainable_variables) == len(model.weight_shapes)
  twin = models.ConvNet.from_config(model.get_config())
  twin.set_weights(model.get_weights())
  x = examples(model, 4)
  np.testing.assert_allclose(twin(x), model(x), rtol=1e-5, atol=1e-6)
  keras_input = keras.Input((20, 20, 1))
  assert keras.Model(keras_input, model(keras_input)).output_shape == (None, 5)


def test_a_normal_keras_training_step_works():
  model = models.MLP(hidden=(8,))
  model.compile("sgd", "mse")
  history = model.fit(np.ones((8, 1)), np.ones((8, 1)), epochs=3, verbose=0).history["loss"]
  assert history[-1] < history[0]


def test_bad_arguments_are_named():
  with pytest.raises(ValueError, match="norm: expected one of"):
    models.MLP(norm="group_norm")
  with pytest.raises(ValueError, match="too small"):
    models.ConvNet(5, input_shape=(8, 8, 1), max_pool=True)
  model = models.ConvNet(5)
  with pytest.raises(ValueError, match=r"expected inputs \[n, 28, 28, 1\]"):
    model.apply(model.initial_weights(0), np.zeros((2, 14, 14, 1), np.float32))
