"""Meta-gradients of the ConvNets equal those of an independent PyTorch implementation (golden/make_torch_golden.py)."""

import pathlib

import numpy as np
import pytest
import tensorflow as tf

from maml_tf import MAML, models, tasks
from maml_tf.models import layers

FILE = pathlib.Path(__file__).parents[1] / "golden" / "torch_meta_gradients.npz"
CASES = ["strided", "strided_3_steps", "max_pool"]


@pytest.fixture(scope="module")
def golden():
  """Function case -> dict of its arrays."""
  with np.load(FILE) as file:
    arrays = {name: file[name] for name in file.files}
  return lambda case: {n.removeprefix(f"{case}:"): a for n, a in arrays.items() if n.startswith(f"{case}:")}


def section(arrays, name):
  return {n.removeprefix(f"{name}/"): a for n, a in arrays.items() if n.startswith(f"{name}/")}


def compute(arrays, dtype, first_order=False, jit_compile=False):
  """(loss, gradients) of this package on the case's weights and episodes."""
  weights = {n: tf.constant(w, dtype) for n, w in section(arrays, "weights").items()}
  model = models.ConvNet(
    int(arrays["ways"]), weights["conv_0/kernel"].shape[-1], arrays["support_x"].shape[2:], max_pool=arrays["max_pool"]
  )
  images = [tf.constant(arrays[name] / 255, dtype) for name in ("support_x", "query_x")]
  batch = tasks.TaskBatch(images[0], arrays["support_y"], images[1], arrays["query_y"])
  maml = MAML(
    model,
    "crossentropy",
    float(arrays["inner_lr"]),
    int(arrays["num_updates"]),
    first_order=first_order,
    loss_reduction="per_class_sum",
  )
  loss, gradients = tf.function(maml.meta_gradients, jit_compile=jit_compile)(weights, batch)
  return loss.numpy(), {n: g.numpy() for n, g in gradients.items()}


def assert_close(gradients, expected, tolerance):
  """Each gradient to a tolerance relative to its own largest entry.

  That of a bias below a batch normalisation is zero, and rounding in practice: there the scale is the largest of all.
  """
  assert gradients.keys() == expected.keys()
  largest = max(abs(e).max() for e in expected.values())
  for name, gradient in gradients.items():
    own = abs(expected[name]).max()
    scale = own if own > 1e-6 * largest else largest
    assert abs(gradient - expected[name]).max() < tolerance * scale, name


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("order", ["second_order", "first_order"])
@pytest.mark.parametrize(
  ("dtype", "loss_tolerance", "tolerance"), [(tf.float32, 1e-5, 1e-4), (tf.float64, 1e-12, 1e-9)], ids=["32", "64"]
)
def test_meta_gradients(golden, case, order, dtype, loss_tolerance, tolerance):
  arrays = golden(case)
  loss, gradients = compute(arrays, dtype, first_order=order == "first_order")
  assert loss == pytest.approx(float(arrays["loss"]), rel=loss_tolerance)
  assert_close(gradients, section(arrays, order), tolerance)


@pytest.mark.parametrize("case", CASES)
def test_with_the_convolutions_of_large_images(golden, case, monkeypatch):
  """These small ones are convolved as products of patches; miniImageNet's first layers one task at a time."""
  arrays = golden(case)
  monkeypatch.setattr(layers, "MAX_PATCHES", 0)
  monkeypatch.delattr(layers, "_conv2d_per_task")
  loss, gradients = compute(arrays, tf.float32)
  assert loss == pytest.approx(float(arrays["loss"]), rel=1e-5)
  assert_close(gradients, section(arrays, "second_order"), 1e-4)


def test_under_xla(golden):
  arrays = golden("strided")
  _, gradients = compute(arrays, tf.float32, jit_compile=True)
  assert_close(gradients, section(arrays, "second_order"), 1e-4)


@pytest.mark.parametrize("case", CASES)
def test_the_orders_differ_by_far_more_than_the_tolerance(golden, case):
  arrays = golden(case)
  first, second = section(arrays, "first_order"), section(arrays, "second_order")
  for name, gradient in second.items():
    if name.endswith("kernel"):
      assert abs(first[name] - gradient).max() > 0.02 * abs(gradient).max(), name
