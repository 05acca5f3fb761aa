"""LiteRT: what adapts and predicts in its interpreter has the numbers of the SavedModel."""

import numpy as np
import pytest
import tensorflow as tf

from benchmarks.litert import PRETRAINED, examples
from maml_tf import litert
from maml_tf.errors import UserError


@pytest.mark.parametrize(("name", "size"), [("sinusoid", 10), ("omniglot_5way", 5)])
def test_numbers_are_those_of_the_saved_model(name, size):
  """Built-in operations alone: the interpreter of the tests has no others."""
  module = tf.saved_model.load(str(PRETRAINED / name))
  interpreter = tf.lite.Interpreter(model_content=litert.convert(PRETRAINED / name, size))
  assert set(interpreter.get_signature_list()) == {"adapt", "predict"}
  adapt, predict = (interpreter.get_signature_runner(which) for which in ("adapt", "predict"))
  support = examples(module, size)
  for steps in (0, 1, 3):
    weights = adapt(**support, num_updates=np.int32(steps))
    expected_weights = module.adapt(support["support_x"], support["support_y"], np.int32(steps))
    for key, value in expected_weights.items():
      np.testing.assert_allclose(weights[key.replace("/", "_")], value, rtol=1e-4, atol=1e-5)
    for count in (size, 2):  # any number of queries
      queries = support["support_x"][:count]
      expected = module.predict(expected_weights, queries).numpy()
      found = predict(x=queries, **weights)["outputs"]
      np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize(
  ("strides", "padding", "size", "kernel"),
  [
    ((2, 2), "SAME", 7, 3),
    ((2, 2), "SAME", 8, 3),
    ((1, 1), "VALID", 6, 3),
    ((2, 2), "VALID", 8, 3),
    ((3, 3), "SAME", 7, 2),
  ],
)
def test_the_gradient_of_filters_is_tensorflows(strides, padding, size, kernel):
  rng = np.random.default_rng(0)
  x, filters = rng.normal(size=(2, size, size, 3)), rng.normal(size=(kernel, kernel, 3, 4))
  graph = tf.Graph()
  with graph.as_default():
    forward = tf.nn.conv2d(tf.constant(x), tf.constant(filters), strides, padding)
    gradients = rng.normal(size=forward.shape)
    found = tf.raw_ops.Conv2DBackpropFilter(
      input=tf.constant(x), filter_sizes=filters.shape, out_backprop=tf.constant(gradients),
      strides=[1, *strides, 1], padding=padding,
    )  # fmt: skip
  with tf.compat.v1.Session(graph=graph) as session:
    expected = session.run(found)
  made = litert._filter_gradient(found.op.node_def)
  np.testing.assert_allclose(
    made(tf.constant(x), tf.constant(filters.shape), tf.constant(gradients)), expected, rtol=1e-9
  )


def test_what_cannot_be_converted_gets_one_line():
  with pytest.raises(UserError, match="point: no artefact that adapts to labelled examples"):
    litert.convert(PRETRAINED / "point", 5)
  with pytest.raises(UserError, match="support_size=0: expected 1 or more"):
    litert.convert(PRETRAINED / "sinusoid", 0)
  with pytest.raises(UserError, match="no SavedModel here"):
    litert.convert("nowhere", 5)
