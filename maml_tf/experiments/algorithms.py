"""The algorithm that a config names: MAML or one of its relatives."""

import pathlib

import tensorflow as tf

from maml_tf import MAML
from maml_tf.algorithms.anil import head_only
from maml_tf.algorithms.reptile import Reptile
from maml_tf.errors import UserError
from maml_tf.maml import LearnedStepSizes

CPU_FLAGS = ("avx512_bf16", "amx_bf16")  # what the Linux kernel calls bfloat16 arithmetic on x86
GPU_CAPABILITY = (8, 0)  # NVIDIA: since Ampere


def make_algorithm(config, model, loss, inner_lr):
  """`MAML`, or the relative that `config.learner` names, on a model.

  Args:
    config: `Config`.
    model: an `ExplicitModel`.
    loss: as of `MAML`.
    inner_lr: a float; where step sizes are learned, what they start from.

  Raises:
    UserError: mixed precision without the hardware for it.
  """
  rates = {
    "anil": lambda: head_only(model, inner_lr),
    "metasgd": lambda: LearnedStepSizes(inner_lr, per="element"),
  }
  settings = dict(
    inner_lr=rates.get(config.learner, lambda: inner_lr)(),
    num_updates=config.num_updates,
    loss_reduction=config.loss_reduction,
    bn_mode=config.bn_mode,
    checkpoint_inner_steps=config.checkpoint_inner_steps,
    compute_dtype=tf.bfloat16 if config.mixed_precision else None,
  )
  if config.mixed_precision:
    check_bfloat16()
  if config.learner == "reptile":
    return Reptile(model, loss, **settings)
  return MAML(model, loss, first_order=config.stop_grad, **settings)


def check_bfloat16():
  """Refuses mixed precision where bfloat16 would be emulated, slower than float32 by far.

  Raises:
    UserError: the message says what this machine has.
  """
  gpus = tf.config.list_physical_devices("GPU")
  if gpus:
    details = tf.config.experimental.get_device_details(gpus[0])
    if details.get("compute_capability", (0, 0)) >= GPU_CAPABILITY:
      return
    found = f"{details.get('device_name', 'the GPU')} has no bfloat16 arithmetic (NVIDIA GPUs have it since Ampere)"
  else:
    if any(flag in _cpu_flags() for flag in CPU_FLAGS):
      return
    found = f"this machine has no GPU and its processor none of {', '.join(CPU_FLAGS)}"
  raise UserError(f"--mixed_precision: {found}; leave the flag out")


def _cpu_flags():
  try:
    lines = pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
  except OSError:  # not Linux
    return set()
  return {flag for line in lines if line.startswith("flags") for flag in line.split(":", 1)[1].split()}
