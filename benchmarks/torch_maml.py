"""The same meta-learning step in PyTorch, written by hand: what this package is checked against and timed against.

Weights are dicts with this package's names in PyTorch's layout (`to_torch`). Nothing here is used by the package.
"""

import torch
import torch.nn.functional as F

NUM_BLOCKS = 4
EPSILON = 1e-3  # of batch normalisation, as in cbfinn/maml


def to_torch(weights, dtype=torch.float32):
  """Arrays in this package's layout -> leaves that require gradients, kernels as [out, in, h, w]."""
  tensors = {}
  for name, value in weights.items():
    tensor = torch.tensor(value, dtype=dtype)
    tensor = tensor.permute(3, 2, 0, 1).contiguous() if tensor.ndim == 4 else tensor
    tensors[name] = tensor.requires_grad_()
  return tensors


def from_torch(tensors):
  """The inverse of `to_torch`: NumPy arrays, kernels as [h, w, in, out]."""
  return {n: (t.permute(2, 3, 1, 0) if t.ndim == 4 else t).detach().numpy() for n, t in tensors.items()}


def images_to_torch(images, dtype=torch.float32):
  """Images [T, n, H, W, C] -> [T, n, C, H, W]."""
  return torch.tensor(images, dtype=dtype).permute(0, 1, 4, 2, 3).contiguous()


def forward(weights, x, max_pool):
  """Logits of the paper's ConvNet: x [n, C, H, W] -> [n, classes]; batch statistics, a shift and no scale."""
  for i in range(NUM_BLOCKS):
    x = same_convolution(x, weights[f"conv_{i}/kernel"], weights[f"conv_{i}/bias"], 1 if max_pool else 2)
    mean = x.mean((0, 2, 3), keepdim=True)
    variance = ((x - mean) ** 2).mean((0, 2, 3), keepdim=True)
    x = (x - mean) / torch.sqrt(variance + EPSILON)
    x = torch.relu(x + weights[f"norm_{i}/beta"][:, None, None])
    if max_pool:
      x = F.max_pool2d(x, 2)
  # With max-pooling the classifier sees all positions, in TensorFlow's order: channels last.
  features = x.permute(0, 2, 3, 1).flatten(1) if max_pool else x.mean((2, 3))
  return features @ weights["dense/kernel"] + weights["dense/bias"]


def same_convolution(x, kernel, bias, stride):
  """TensorFlow's SAME padding: where the total is odd, the pixel more goes below and to the right."""
  if stride == 1:
    return F.conv2d(x, kernel, bias, padding=kernel.shape[-1] // 2)
  padding = []
  for size, window in ((x.shape[3], kernel.shape[3]), (x.shape[2], kernel.shape[2])):
    total = max((-(-size // stride) - 1) * stride + window - size, 0)
    padding += [total // 2, total - total // 2]
  return F.conv2d(F.pad(x, padding), kernel, bias, stride)


class TorchMaml:
  """MAML with the cross-entropy summed over examples and divided by the number of shots, as published.

  Args:
    max_pool: the max-pooling network, or the strided one.
    inner_lr: step size.
    num_updates: inner steps.
    shots: support examples per class.
    first_order: drop the second derivatives.
  """

  def __init__(self, max_pool, inner_lr, num_updates, shots, first_order=False):
    self._max_pool, self._inner_lr, self._num_updates = max_pool, inner_lr, num_updates
    self._shots, self._first_order = shots, first_order

  def loss(self, weights, x, y):
    return F.cross_entropy(forward(weights, x, self._max_pool), y, reduction="sum") / self._shots

  def gradients_by_loop(self, weights, batch):
    """(meta-loss, dict of gradients), one task after another; batch: (support x, y, query x, y), each [T, n, ...].

    The gradient of each task's share of the meta-loss is taken at once, so that one task's graph is in memory.
    """
    num_tasks = len(batch[0])
    loss, totals = 0.0, {n: torch.zeros_like(w) for n, w in weights.items()}
    for task in zip(*batch, strict=True):
      task_loss = self._task_loss_by_autograd(weights, *task) / num_tasks
      for total, gradient in zip(totals.values(), torch.autograd.grad(task_loss, list(weights.values())), strict=True):
        total += gradient
      loss += task_loss.detach()
    return loss, totals

  def gradients_by_vmap(self, weights, batch):
    """The same by `torch.func`: a batch of tasks by `vmap`, both gradients by `grad`."""

    def meta_loss(weights):
      return torch.func.vmap(self._task_loss_by_func, in_dims=(None, 0, 0, 0, 0))(weights, *batch).mean()

    gradients, loss = torch.func.grad_and_value(meta_loss)({n: w.detach() for n, w in weights.items()})
    return loss, gradients

  def _task_loss_by_autograd(self, weights, support_x, support_y, query_x, query_y):
    def gradient_of(adapted, names):
      loss = self.loss(adapted, support_x, support_y)
      found = torch.autograd.grad(loss, [adapted[n] for n in names], create_graph=not self._first_order)
      return dict(zip(names, found, strict=True))

    return self.loss(self._adapt(weights, gradient_of), query_x, query_y)

  def _task_loss_by_func(self, weights, support_x, support_y, query_x, query_y):
    def gradient_of(adapted, names):
      fixed = {n: w for n, w in adapted.items() if n not in names}
      changed = {n: adapted[n] for n in names}
      return torch.func.grad(lambda changed: self.loss(fixed | changed, support_x, support_y))(changed)

    return self.loss(self._adapt(weights, gradient_of), query_x, query_y)

  def _adapt(self, weights, gradient_of):
    """The inner loop; the shifts of batch normalisation stay as they are."""
    names = [n for n in weights if not n.startswith("norm")]
    for _ in range(self._num_updates):
      gradients = gradient_of(weights, names)
      if self._first_order:
        gradients = {n: g.detach() for n, g in gradients.items()}
      weights = weights | {n: weights[n] - self._inner_lr * gradients[n] for n in names}
    return weights
