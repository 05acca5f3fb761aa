"""The request of docs/predicting.md for TensorFlow Serving is one that the signature takes."""

import json

import documents
import numpy as np
import tensorflow as tf


def test_the_request_on_the_page_fits_the_signature():
  """By the rules of Serving's columnar format: every input by its name, as an array of its dtype."""
  (block,) = [
    b for b in documents.blocks(documents.read(documents.ROOT / "docs/predicting.md")) if b.language == "json"
  ]
  request = json.loads(block.text)
  module = tf.saved_model.load(str(documents.ROOT / "pretrained" / "sinusoid"))
  signature = module.signatures[request["signature_name"]]
  specs = signature.structured_input_signature[1]
  assert set(request["inputs"]) == set(specs)
  inputs = {name: np.array(value, specs[name].dtype.as_numpy_dtype) for name, value in request["inputs"].items()}
  for name, value in inputs.items():
    assert specs[name].shape.is_compatible_with(value.shape), name
  answer = signature(**{name: tf.constant(value) for name, value in inputs.items()})
  assert list(answer) == ["outputs"]
  expected = module.adapt_and_predict(inputs["support_x"], inputs["support_y"], inputs["query_x"], 5)
  np.testing.assert_allclose(answer["outputs"], expected, rtol=1e-6)
  assert answer["outputs"].shape == (2, 1)
