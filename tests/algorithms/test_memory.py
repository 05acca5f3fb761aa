"""What memory and precision settings change, and what they must not: the gradients."""

import os
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from meta_batches import CASES, image_batch, spread

from maml_tf import MAML, evaluation, models, tasks
from maml_tf.errors import UserError
from maml_tf.experiments import algorithms
from maml_tf.maml import LearnedStepSizes, adapt_recomputing
from maml_tf.over_tasks import meta_gradients


@pytest.mark.parametrize(
  ("case", "first_order", "jit_compile"),
  [("conv_max_pool", False, False), ("mlp_batch_norm", True, False), ("mlp_batch_norm", False, True)],
)
def test_recomputed_inner_steps_have_the_same_gradients(float64, case, first_order, jit_compile):
  make, make_batch, loss, rate = CASES[case]
  model, batch = make(), make_batch()
  rates = LearnedStepSizes(rate, num_steps=2)  # three steps: the last one repeats
  kept, recomputed = (
    MAML(model, loss, rates, num_updates=3, first_order=first_order, checkpoint_inner_steps=flag)
    for flag in (False, True)
  )
  weights = kept.initial_weights(0) | spread(model.initial_weights(0))
  expected, got = (
    tf.function(lambda w, m=maml: meta_gradients(m.meta_loss, w, batch), jit_compile=jit_compile)(weights)
    for maml in (kept, recomputed)
  )
  for left, right in zip(tf.nest.flatten(expected), tf.nest.flatten(got), strict=True):
    np.testing.assert_allclose(left, right, rtol=1e-9, atol=1e-12)


def test_recomputing_eagerly_and_without_steps():
  weights = {"w": tf.constant([[2.0], [3.0]]), "shared": tf.constant(0.5)}

  def loss_fn(w):
    return tf.reduce_sum(w["shared"] * w["w"] ** 2, axis=1)

  with tf.GradientTape() as tape:
    tape.watch(weights)
    adapted, before = adapt_recomputing(loss_fn, weights, {"w": 0.1}, 2)
    total = tf.reduce_sum(adapted["w"])
  np.testing.assert_allclose(adapted["w"], 0.9**2 * weights["w"], rtol=1e-6)
  np.testing.assert_allclose(before, [[2.0, 4.5], [2.0 * 0.81, 4.5 * 0.81]], rtol=1e-6)
  by_step, _ = adapt_recomputing(lambda w: tf.reduce_sum(w["w"] ** 2, axis=1), {"w": weights["w"]}, [0.1, 0.2], 2)
  np.testing.assert_allclose(by_step["w"], 0.8 * 0.6 * weights["w"], rtol=1e-6)
  gradients = tape.gradient(total, weights)
  np.testing.assert_allclose(gradients["w"], [[0.81], [0.81]], rtol=1e-6)
  # w'' = w (1 - 0.2 s)^2, so its derivative by s is -0.4 w (1 - 0.2 s).
  np.testing.assert_allclose(gradients["shared"], -0.4 * 5 * 0.9, rtol=1e-6)


# Loads TensorFlow once, then forks for each measurement: the parent never runs an operation.
MEASURE = """
import os, pathlib, re, sys
import numpy as np
import tensorflow as tf
from maml_tf import MAML, models, tasks
from maml_tf.over_tasks import meta_gradients

def peak():  # not getrusage's, which begins with the memory of the process that started this one
  return int(re.search(r"VmHWM:\\s+(\\d+)", pathlib.Path("/proc/self/status").read_text())[1])

def measure(steps, checkpoint=False, chunk=None):
  model = models.ConvNet(5, 16, (42, 42, 3), max_pool=True)
  maml = MAML(model, "crossentropy", 0.01, steps, checkpoint_inner_steps=checkpoint)
  x = tf.constant(np.random.default_rng(0).random((8, 25, 42, 42, 3), np.float32))
  y = tf.tile(tf.range(5)[tf.newaxis], [8, 5])
  step = tf.function(lambda w: meta_gradients(maml.meta_loss, w, tasks.TaskBatch(x, y, x, y), chunk)[1])
  weights = model.initial_weights(0)
  tf.linalg.matmul(x[0, 0, 0], x[0, 0, 0], transpose_a=True)  # starts TensorFlow's threads
  before = peak()
  step(weights)
  print((peak() - before) / 1024, flush=True)

for arguments in eval(sys.argv[1]):
  child = os.fork()
  if child == 0:
    measure(*arguments)
    os._exit(0)
  assert os.waitpid(child, 0)[1] == 0
"""


def _peak_megabytes(*arguments):
  """The peak memory of a meta-gradient for each (steps, checkpoint, chunk)."""
  quiet = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"}
  done = subprocess.run(
    [sys.executable, "-c", MEASURE, repr(arguments)], capture_output=True, text=True, env=quiet, timeout=300
  )
  assert done.returncode == 0, done.stderr
  return [float(line) for line in done.stdout.split()]


def test_recomputing_makes_memory_flat_in_the_steps_and_chunks_in_the_tasks():
  one, ten, four_kept, ten_in_chunks = _peak_megabytes((1, True), (10, True), (4,), (10, True, 2))
  assert ten < 1.3 * one
  assert four_kept > 1.3 * ten  # or there was nothing to save
  assert ten_in_chunks < 0.7 * ten


def test_chunks_compile():
  maml, batch = MAML(models.MLP(hidden=(8,)), inner_lr=0.01), tasks.Sinusoid(5, 5).sample(tf.constant([1, 2]), 6)
  weights = maml.initial_weights(0)
  whole = maml.meta_gradients(weights, batch)[1]
  parts = tf.function(lambda w: meta_gradients(maml.meta_loss, w, batch, 2)[1], jit_compile=True)(weights)
  for name in whole:
    np.testing.assert_allclose(parts[name], whole[name], rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("chunk", [1, 3, 50])
def test_evaluation_in_chunks_gives_the_same_tasks_the_same_results(chunk):
  maml = MAML(models.MLP(hidden=(8,)), inner_lr=0.01)
  weights, seed, sines = maml.initial_weights(0), tf.constant([1, 2]), tasks.Sinusoid(5, 5)
  whole = evaluation.evaluate_blocks(lambda b, _: maml.evaluate(weights, b, 3), sines, seed, 45)["loss"]
  parts = evaluation.evaluate_blocks(lambda b, _: maml.evaluate(weights, b, 3), sines, seed, 45, chunk)["loss"]
  np.testing.assert_allclose(parts, whole, rtol=1e-4, atol=1e-6)
  assert parts.shape == (4, 45)
  shown = evaluation.evaluate_with_progress(lambda b, _: maml.evaluate(weights, b, 3), sines, seed, 45, chunk)["loss"]
  np.testing.assert_allclose(shown, whole, rtol=1e-4, atol=1e-6)


def test_tasks_that_chunks_do_not_divide_are_refused():
  maml, batch = MAML(models.ConvNet(3, 4, (16, 16, 1)), "crossentropy"), image_batch(num_tasks=4, dtype=np.float32)
  with pytest.raises(ValueError, match="divides the number of tasks, 4, got 3"):
    meta_gradients(maml.meta_loss, maml.initial_weights(0), batch, 3)


def test_half_precision_computes_in_bfloat16_and_keeps_the_rest():
  """The gradients are as near to those in float32 as rounding lets them; weights, statistics, losses stay in float32.

  Which sums are rounded when depends on the processor (with instructions for bfloat16 or without), so the bound is of
  the number of roundings in a row: that many independent errors of 2^-8, of 8 bits of mantissa, and three deviations.
  """
  model, batch = models.ConvNet(3, 8, (16, 16, 1)), image_batch(dtype=np.float32, shots=4)
  seen = []
  forward = model.forward

  def spy(weights, x, normalise):
    seen.append((weights["conv_0/kernel"].dtype, x.dtype))
    return forward(weights, x, normalise)

  model.forward = spy
  wide = MAML(model, "crossentropy", 0.01, num_updates=2)
  half = MAML(model, "crossentropy", 0.01, num_updates=2, compute_dtype=tf.bfloat16, bn_mode="running")
  weights = half.initial_weights(0)
  _, expected = wide.meta_gradients({n: weights[n] for n in model.weight_shapes}, batch)
  seen.clear()
  loss, got, metrics, updates = meta_gradients(half.meta_loss, weights, batch)
  assert set(seen) == {(tf.bfloat16, tf.bfloat16)}
  assert {t.dtype for t in tf.nest.flatten((loss, got, metrics, updates))} == {tf.float32}
  left, right = (tf.concat([tf.reshape(g[n], [-1]) for n in expected], 0) for g in (expected, got))
  of_a_layer = 7  # product, bias, mean, variance, difference from the mean, division, offset
  passes = 2 * (2 * 2 + 1)  # two steps forward and back, the query forward; and all of that back
  roundings = passes * of_a_layer * 5
  error = float(tf.norm(left - right) / tf.norm(left))
  assert 2**-12 < error < 3 * np.sqrt(roundings) * 2**-8  # below, it was float32 after all


def test_half_precision_is_refused_where_the_hardware_lacks_it(monkeypatch):
  monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [])
  monkeypatch.setattr(algorithms, "_cpu_flags", lambda: {"avx2"})
  with pytest.raises(UserError, match="--mixed_precision: this machine has no GPU and its processor none of"):
    algorithms.check_bfloat16()
  monkeypatch.setattr(algorithms, "_cpu_flags", lambda: {"avx2", "avx512_bf16"})
  algorithms.check_bfloat16()
  monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: ["gpu"])
  details = {"device_name": "Old", "compute_capability": (7, 5)}
  monkeypatch.setattr(tf.config.experimental, "get_device_details", lambda gpu: details)
  with pytest.raises(UserError, match="Old has no bfloat16 arithmetic"):
    algorithms.check_bfloat16()
  details["compute_capability"] = (8, 0)
  algorithms.check_bfloat16()
