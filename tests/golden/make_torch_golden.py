"""Writes torch_meta_gradients.npz: meta-gradients of small ConvNets as an independent PyTorch implementation has them.

  python tests/golden/make_torch_golden.py

It needs torch (`pip install ".[bench]"`); the test that reads the file does not. Images are stored as bytes, and
everything that PyTorch computed is float64.
"""

import itertools
import pathlib
import sys

import numpy as np
import torch

sys.path.insert(0, str(pathlib.Path(__file__).parents[2]))

from benchmarks.torch_maml import TorchMaml, from_torch, images_to_torch, to_torch

FILE = pathlib.Path(__file__).with_name("torch_meta_gradients.npz")
FILTERS, TASKS = 8, 2
# Single precision may decide a ReLU or a maximum differently where two values all but tie, which is no error of either
# side: such data is drawn again, until PyTorch's own two precisions agree to this.
AGREEMENT = 2e-5
# Sizes are odd and even, and not square where the network permits it: padding and cropping all occur.
CASES = {
  "strided": dict(size=(28, 28, 1), max_pool=False, ways=5, shots=1, queries=1, num_updates=1, inner_lr=0.4),
  "strided_3_steps": dict(size=(28, 27, 1), max_pool=False, ways=3, shots=2, queries=1, num_updates=3, inner_lr=0.1),
  "max_pool": dict(size=(32, 17, 3), max_pool=True, ways=3, shots=1, queries=2, num_updates=2, inner_lr=0.05),
}


def random_weights(rng, size, max_pool, ways):
  """Weights at the scale of the published initialisers, but with biases and shifts that are not zero."""
  height, width, channels = size
  weights = {}
  for i in range(4):
    weights[f"conv_{i}/kernel"] = rng.normal(size=(3, 3, channels, FILTERS)) * np.sqrt(2 / (9 * (channels + FILTERS)))
    weights[f"conv_{i}/bias"] = rng.normal(size=FILTERS) * 0.1
    weights[f"norm_{i}/beta"] = rng.normal(size=FILTERS) * 0.3
    channels = FILTERS
  features = (height // 16) * (width // 16) * FILTERS if max_pool else FILTERS
  weights["dense/kernel"] = rng.normal(size=(features, ways)) * 0.5
  weights["dense/bias"] = rng.normal(size=ways) * 0.1
  return {n: w.astype(np.float32) for n, w in weights.items()}


def random_labels(rng, ways, per_class):
  return np.stack([rng.permutation(np.repeat(np.arange(ways), per_class)) for _ in range(TASKS)]).astype(np.int64)


def random_data(rng, size, ways, shots, queries):
  return {
    "support_x": rng.integers(256, size=(TASKS, ways * shots, *size), dtype=np.uint8),
    "support_y": random_labels(rng, ways, shots),
    "query_x": rng.integers(256, size=(TASKS, ways * queries, *size), dtype=np.uint8),
    "query_y": random_labels(rng, ways, queries),
  }


def computed(maml, weights, data, dtype):
  """(loss, gradients) by PyTorch, as arrays."""
  batch = [images_to_torch(a / 255, dtype) if n.endswith("_x") else torch.tensor(a) for n, a in data.items()]
  loss, gradients = maml.gradients_by_loop(to_torch(weights, dtype), batch)
  return loss.numpy(), from_torch(gradients)


def distance(gradients, expected):
  """The largest difference, relative to the largest entry of the same gradient; biases, whose gradient is 0, aside."""
  names = [n for n in expected if n.startswith("dense") or not n.endswith("bias")]
  return max(abs(gradients[n] - expected[n]).max() / abs(expected[n]).max() for n in names)


def arrays_of(seed, size, max_pool, ways, shots, queries, num_updates, inner_lr):
  """Everything about one case, by name: settings, data, weights, loss and gradients of both orders; or None."""
  rng = np.random.default_rng(seed)
  weights, data = random_weights(rng, size, max_pool, ways), random_data(rng, size, ways, shots, queries)
  settings = {"seed": seed, "max_pool": max_pool, "ways": ways, "num_updates": num_updates, "inner_lr": inner_lr}
  arrays = settings | data | {f"weights/{n}": w for n, w in weights.items()}
  for order, first_order in (("second_order", False), ("first_order", True)):
    maml = TorchMaml(max_pool, inner_lr, num_updates, shots, first_order)
    loss, gradients = computed(maml, weights, data, torch.float64)
    if distance(computed(maml, weights, data, torch.float32)[1], gradients) > AGREEMENT:
      return None
    arrays |= {f"{order}/{n}": g for n, g in gradients.items()} | {"loss": loss}
  return arrays


def main():
  everything = {}
  for case, given in CASES.items():
    arrays = next(found for found in (arrays_of(seed, **given) for seed in itertools.count()) if found)
    everything |= {f"{case}:{n}": a for n, a in arrays.items()}
  np.savez_compressed(FILE, torch=torch.__version__, **everything)
  print(f"{FILE}: {FILE.stat().st_size / 1000:.0f} kB, torch {torch.__version__}")


if __name__ == "__main__":
  main()
