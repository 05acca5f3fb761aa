"""Trained networks in LiteRT's interpreter, on one thread, beside their SavedModels: size, time, difference."""

import pathlib
import statistics
import time

import numpy as np

from maml_tf.startup import import_tensorflow

PRETRAINED = pathlib.Path(__file__).parents[1] / "pretrained"
MODELS = {"sinusoid": 10, "omniglot_5way": 5, "omniglot_fc_5way": 5}  # and examples to adapt on


def run(rounds):
  """Returns a JSON-able dict."""
  import_tensorflow()
  return {"litert": {name: _measured(name, size, 4 * rounds) for name, size in MODELS.items()}}


def _measured(name, size, repeats):
  import tensorflow as tf

  from maml_tf import litert

  content = litert.convert(PRETRAINED / name, size)
  module = tf.saved_model.load(str(PRETRAINED / name))
  interpreter = tf.lite.Interpreter(model_content=content, num_threads=1)
  adapt, predict = (interpreter.get_signature_runner(which) for which in ("adapt", "predict"))
  support, steps = examples(module, size), np.int32(1)
  weights = adapt(**support, num_updates=steps)
  found = predict(x=support["support_x"], **weights)["outputs"]
  expected = module.adapt_and_predict(support["support_x"], support["support_y"], support["support_x"], steps).numpy()
  measured = {
    "bytes": len(content),
    "saved_model_bytes": sum(file.stat().st_size for file in (PRETRAINED / name).rglob("*") if file.is_file()),
    "adapt_ms": _milliseconds(lambda: adapt(**support, num_updates=steps), repeats),
    "predict_ms": _milliseconds(lambda: predict(x=support["support_x"][:1], **weights), repeats),
    "saved_model_adapt_ms": _milliseconds(lambda: module.adapt(*support.values(), steps), repeats),
    "largest_difference": float(np.abs(found - expected).max() / np.abs(expected).max()),
  }
  print(name, measured, flush=True)
  return measured


def examples(module, size):
  """{"support_x", "support_y"}: random examples, of every class in turn."""
  rng = np.random.default_rng(0)
  specs = module.signatures["adapt_and_predict"].structured_input_signature[1]
  x = rng.random((size, *specs["support_x"].shape[1:]), np.float32)
  dtype = specs["support_y"].dtype.as_numpy_dtype
  if specs["support_y"].dtype.is_integer:
    return {"support_x": x, "support_y": np.arange(size, dtype=dtype)}
  return {"support_x": x, "support_y": rng.normal(size=(size, *specs["support_y"].shape[1:])).astype(dtype)}


def _milliseconds(function, repeats):
  times = []
  for _ in range(repeats + 1):  # the first one is not counted
    began = time.perf_counter()
    function()
    times.append(1000 * (time.perf_counter() - began))
  return statistics.median(times[1:])
