"""Second derivatives that TensorFlow drops: right by an exact formulation, or refused by the layer's name."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.ops.image_ops_impl import resize_images_v2 as bound_early

from maml_tf import MAML, check_meta_gradient, models, tasks
from maml_tf.errors import UserError
from maml_tf.gradient_check import MetaGradientError
from maml_tf.models import exact
from maml_tf.models.derivatives import NotTwiceDifferentiableError

L = keras.layers
GRAPH = pytest.mark.parametrize("graph", [False, True], ids=["eager", "graph"])


def layer_of(function, name="own"):
  class Own(L.Layer):
    def call(self, x):
      return function(x)

    def compute_output_shape(self, shape):
      return shape

  return Own(name=name)


def behind_a_weight(layer, **settings):
  """MAML on w times 2 x 2 ones, and then the layer; w is 1, the labels are 0."""
  first = L.Conv2D(1, 1, use_bias=False, kernel_initializer="ones")
  model = models.from_keras(keras.Sequential([keras.Input((2, 2, 1)), first, layer]), fresh=False)
  x = np.ones([2, 1, 2, 2, 1], np.float32)
  y = np.zeros([2, 1, *model.model.output_shape[1:]], np.float32)
  return MAML(model, inner_lr=0.1, **settings), tasks.TaskBatch(x, y, x, y)


def meta_gradient(maml, batch, graph):
  function = tf.function(maml.meta_gradients) if graph else maml.meta_gradients
  return [float(tf.squeeze(gradient)) for gradient in function(maml.initial_weights(), batch)[1].values()]


@GRAPH
@pytest.mark.parametrize(
  "layer",
  [
    lambda: L.UpSampling2D(2, interpolation="bilinear"),
    lambda: L.UpSampling2D(2, interpolation="lanczos3"),
    lambda: L.UpSampling2D(2, interpolation="nearest"),
    lambda: L.Resizing(3, 5),
    lambda: L.Resizing(4, 4, interpolation="bicubic"),
    lambda: L.Resizing(4, 4, interpolation="nearest"),
    lambda: L.Lambda(lambda x: keras.ops.image.resize(x, (4, 4))),
    lambda: L.Lambda(lambda x: tf.image.resize(x, [4, 4])),
    lambda: L.Lambda(lambda x: tf.raw_ops.ResizeBilinear(images=x, size=[4, 4])),
  ],
)
def test_resizing_is_differentiated_twice(layer, graph):
  # Ones stay ones: the loss is w^2, w' = 0.8 w.
  assert meta_gradient(*behind_a_weight(layer()), graph) == pytest.approx([1.28], abs=1e-5)


METHODS = ("bilinear", "nearest", "bicubic", "lanczos3", "lanczos5", "gaussian", "mitchellcubic", "area")


@pytest.mark.parametrize("method", METHODS)
def test_resizing_by_matrices_is_tensorflows(method):
  images = tf.constant(np.random.default_rng(0).normal(size=(2, 5, 7, 3)), tf.float32)
  for size, antialias in ([9, 4], False), ([3, 16], True), (tf.constant([10, 10]), False):
    expected = tf.image.resize(images, size, method, antialias=antialias)
    with exact.exact_derivatives():
      actual = tf.image.resize(images, size, method, antialias=antialias)
      unknown = tf.function(
        lambda x, size=size, antialias=antialias: tf.image.resize(x, size, method, antialias=antialias),
        input_signature=[tf.TensorSpec([None, None, None, 3])],
      )(images)
    np.testing.assert_allclose(actual, expected, atol=3e-6)
    np.testing.assert_allclose(unknown, expected, atol=3e-6)
    assert actual.dtype == expected.dtype


def test_outside_of_the_scope_and_in_other_threads_tensorflow_is_as_it_was():
  before = tf.image.resize, tf.nn.moments, tf.nn.softsign, tf.raw_ops.FusedBatchNormV3
  with exact.exact_derivatives():
    assert tf.image.resize is not before[0]
  assert before == (tf.image.resize, tf.nn.moments, tf.nn.softsign, tf.raw_ops.FusedBatchNormV3)


class Moments(L.Layer):
  """The variance of w x, by a function of TensorFlow's."""

  def __init__(self, variance_of):
    super().__init__()
    self.variance_of = variance_of

  def build(self, shape):
    self.w = self.add_weight(shape=(), initializer="ones")

  def call(self, x):
    return self.variance_of(x * self.w) + 0 * x


@GRAPH
@pytest.mark.parametrize("name", ["tf.nn", "tf.compat.v1.nn"])
def test_an_own_layer_with_moments(name, graph):
  module = {"tf.nn": tf.nn, "tf.compat.v1.nn": tf.compat.v1.nn}[name]
  layer = Moments(lambda x: module.moments(x, [0])[1])
  model = models.from_keras(keras.Sequential([keras.Input((1,)), layer]), fresh=False)
  x = np.array([[[1.0], [-1.0]]], np.float32)
  # L = w^4, w' = 1 - 0.04; d/dw w'^4 = 4 w'^3 (1 - 0.12)
  assert meta_gradient(MAML(model, inner_lr=0.01), tasks.TaskBatch(x, 0 * x, x, 0 * x), graph) == pytest.approx(
    [3.114271], abs=1e-5
  )


def fused(x):
  ones = tf.ones(x.shape[-1:], x.dtype)
  return tf.compat.v1.nn.fused_batch_norm(x, ones, 0 * ones)[0]


def fused_op(x):
  ones = tf.ones(x.shape[-1:], x.dtype)
  return tf.raw_ops.FusedBatchNormV3(x=x, scale=ones, offset=0 * ones, mean=ones, variance=ones).y


@pytest.mark.parametrize("function", [fused, fused_op])
def test_fused_batch_normalisation_in_an_own_layer(function):
  x = tf.constant(np.random.default_rng(0).normal(size=(3, 2, 2, 4)), tf.float32)
  expected = function(x)
  with exact.exact_derivatives():
    np.testing.assert_allclose(function(x), expected, atol=1e-5)
  model = keras.Sequential([keras.Input((2, 2, 1)), L.Conv2D(2, 1), layer_of(function), L.Conv2D(1, 1)])
  maml, batch = MAML(models.from_keras(model), inner_lr=0.5), images_and_labels()
  assert max(check_meta_gradient(maml, batch, directions=1).errors.values()) < 1e-5  # a bias before it has none


def images_and_labels():
  x, y = np.random.default_rng(1).normal(size=(2, 2, 2, 3, 2, 2, 1))
  return tasks.TaskBatch(x[0], x[1], y[0], y[1])


def softsign_of(x):
  return tf.nn.softsign(x)


@GRAPH
def test_softsign(graph):
  # L = (w / (1 + w))^2 at 1: L' = 1/4, L'' = -1/8, so w' = 0.975 and the meta-gradient L'(0.975) (1 + 0.0125)
  right = 2 * 0.975 / 1.975**3 * 1.0125
  for layer in (L.Activation("softsign"), layer_of(softsign_of)):
    assert meta_gradient(*behind_a_weight(layer), graph) == pytest.approx([right], rel=1e-5)


@GRAPH
def test_recomputed_layers_have_their_gradient(graph):
  with keras.RematScope(mode="full"):
    remat = L.Dense(1, use_bias=False, kernel_initializer="ones")
  first = meta_gradient(*behind_a_weight(remat), graph)
  plain = meta_gradient(*behind_a_weight(L.Dense(1, use_bias=False, kernel_initializer="ones")), graph)
  assert first == pytest.approx(plain)
  assert meta_gradient(*behind_a_weight(layer_of(lambda x: tf.recompute_grad(tf.identity)(x))), graph) == pytest.approx(
    [1.28]
  )


def numpy_square(x):
  squared = tf.numpy_function(lambda x: x**2, [x], x.dtype)
  squared.set_shape(x.shape)
  return squared + x


REFUSED = {
  "ResizeBilinearGrad": lambda x: bound_early(x, [2, 2]),
  "LRNGrad": lambda x: tf.raw_ops.LRN(input=x),
  "stops a gradient": lambda x: x * tf.stop_gradient(x),
  "PyFunc": numpy_square,
  "stops a gradient.*": lambda x: tf.cond(tf.reduce_sum(x) > 0, lambda: x * tf.stop_gradient(x), lambda: x),
}


@GRAPH
@pytest.mark.parametrize("why", REFUSED)
def test_what_has_no_exact_formulation_is_refused_by_the_layers_name(why, graph):
  maml, batch = behind_a_weight(layer_of(REFUSED[why], "guilty"))
  with pytest.raises(NotTwiceDifferentiableError, match=rf"layer guilty \(Own\).*{why}.*first_order=True"):
    meta_gradient(maml, batch, graph)


@GRAPH
def test_what_has_no_first_derivative_is_refused_by_the_layers_name(graph):
  maml, batch = behind_a_weight(layer_of(lambda x: tf.image.adjust_contrast(x, 2.0), "guilty"))
  with pytest.raises(NotTwiceDifferentiableError, match=r"layer guilty \(Own\).*no derivative of AdjustContrastv2"):
    meta_gradient(maml, batch, graph)


def test_first_order_trains_what_is_refused():
  maml, batch = behind_a_weight(layer_of(REFUSED["ResizeBilinearGrad"]), first_order=True)
  assert meta_gradient(maml, batch, graph=False) == pytest.approx([1.6])


def test_stops_that_cancel_are_no_stops():
  maml, batch = behind_a_weight(layer_of(lambda x: tf.reduce_logsumexp(x, -1, keepdims=True)))
  assert meta_gradient(maml, batch, graph=False) == pytest.approx([1.28])
  maml, batch = behind_a_weight(layer_of(lambda x: tf.exp(x - tf.stop_gradient(tf.reduce_max(x)))))
  meta_gradient(maml, batch, graph=False)


def test_a_stop_can_be_meant():
  layer = layer_of(lambda x: x * tf.stop_gradient(x))
  model = keras.Sequential([keras.Input((2, 2, 1)), L.Conv2D(1, 1, use_bias=False), layer])
  x = np.ones([1, 1, 2, 2, 1], np.float32)
  maml = MAML(models.from_keras(model, stopped_gradients="keep"), inner_lr=0.1)
  assert np.isfinite(maml.meta_gradients(maml.initial_weights(), tasks.TaskBatch(x, x, x, x))[0])
  with pytest.raises(ValueError, match="stopped_gradients"):
    models.from_keras(model, stopped_gradients="never")


def test_renormalised_batches_are_refused():
  maml, batch = behind_a_weight(L.BatchNormalization(renorm=True, name="renormed"))
  with pytest.raises(NotTwiceDifferentiableError, match="layer renormed"):
    meta_gradient(maml, batch, graph=False)


def test_a_custom_loss_is_looked_at_too():
  maml, batch = behind_a_weight(L.Activation("linear"), loss=lambda y, x: (x * tf.stop_gradient(x) - y) ** 2)
  with pytest.raises(NotTwiceDifferentiableError, match="stops a gradient"):
    meta_gradient(maml, batch, graph=False)


# --- the check that users run -------------------------------------------------------------------------------------


def test_the_check_passes_what_is_right_and_leaves_the_model_as_it_was():
  model = models.from_keras(
    keras.Sequential([keras.Input((2, 2, 1)), L.Conv2D(2, 1), L.BatchNormalization(), L.Conv2D(1, 1)])
  )
  check = check_meta_gradient(MAML(model, inner_lr=0.5, num_updates=2), images_and_labels(), directions=1)
  assert not check.wrong and max(check.errors.values()) < 1e-6
  assert list(check.errors) == list(model.weight_shapes) and "conv2d_0/kernel" in str(check)
  assert {v.dtype for v in model.model.variables} == {"float32"} and keras.config.floatx() == "float32"
  assert model.apply(model.initial_weights(0), np.ones([3, 2, 2, 1], np.float32)).dtype == tf.float32


@tf.custom_gradient
def doubled_slope(x):
  return tf.square(x), lambda upstream: 4 * upstream * x


def test_the_check_names_the_weight_that_is_off():
  inputs = keras.Input((2, 2, 1))
  wrong = layer_of(doubled_slope)(L.Conv2D(1, 1, name="before")(inputs))
  model = keras.Model(inputs, L.Conv2D(1, 1, name="after")(wrong))
  maml = MAML(models.from_keras(model), inner_lr=0.1)
  with pytest.raises(MetaGradientError, match=r"off for before/(kernel|bias)"):
    check_meta_gradient(maml, images_and_labels())
  check = check_meta_gradient(maml, images_and_labels(), must_pass=False)
  assert "before/kernel" in check.wrong


def test_the_check_of_house_models_and_of_first_order():
  model = models.ConvNet(num_classes=3, filters=2, input_shape=(8, 8, 1))
  x, y = np.random.default_rng(0).normal(size=(2, 2, 3, 8, 8, 1)), np.array([[0, 1, 2]] * 2)
  batch = tasks.TaskBatch(x[0], y, x[1], y)
  assert max(check_meta_gradient(MAML(model, "crossentropy", 0.4), batch, directions=1).errors.values()) < 1e-4
  with pytest.raises(UserError, match="first_order=False"):
    check_meta_gradient(MAML(model, "crossentropy", 0.4, first_order=True), batch)
