"""The algorithm that a config names, made from the method's description."""

import tensorflow as tf

from maml_tf.errors import UserError
from maml_tf.experiments import provenance
from maml_tf.experiments.settings import SETTINGS
from maml_tf.training import optimizers

CPU_FLAGS = ("avx512_bf16", "amx_bf16")  # what the Linux kernel calls bfloat16 arithmetic on x86
GPU_CAPABILITY = (8, 0)  # NVIDIA: since Ampere

LEAST_META_LR = 0.01  # of the first: AntreasAntoniou/HowToTrainYourMAMLPytorch, from 1e-3 to 1e-5


def make_algorithm(config, model, loss, inner_lr, of_data=None):
  """The method's class on a model, with the settings that it has.

  Args:
    config: `Config`.
    model: an `ExplicitModel`.
    loss: "mse" or "crossentropy".
    inner_lr: of the inner loop, where the method has one; where step sizes are learned, what they start from.
    of_data: name -> function of nothing that tells a fact of the data (`Algorithm.of_data`).

  Returns:
    An `algorithms.base.Algorithm`.

  Raises:
    UserError: mixed precision without the hardware for it.
  """
  if config.mixed_precision:
    check_bfloat16()
  arguments = {}
  for setting in (SETTINGS[name] for name in config.description.settings if config.applies(name)):
    if setting.argument is not None:
      value = getattr(config, setting.name)
      arguments[setting.argument] = value if setting.convert is None else setting.convert(value)
  if "inner_lr" in arguments:
    arguments["inner_lr"] = inner_lr
  made = config.description.load()
  facts = {name: (of_data or {})[name]() for name in getattr(made, "of_data", ())}
  return made(model, loss, **arguments, **facts)


def meta_optimizer(config, clip_value=None):
  """The optimiser of the meta-parameters, of `training.optimizers`: Adam, or what the method chooses.

  Args:
    config: `Config`.
    clip_value: as of `optimizers.Adam`.
  """
  descends = config.applies("meta_optimizer") and config.meta_optimizer == "sgd"
  kind = optimizers.SGD if descends else optimizers.Adam
  return kind(meta_lr(config), clip_value=clip_value)


def meta_lr(config):
  """The step size of the meta-optimiser, or its schedule, as `training.optimizers` take either."""
  if not config.applies("meta_lr_schedule") or config.meta_lr_schedule == "constant":
    return config.meta_lr
  import keras

  schedules, iterations = keras.optimizers.schedules, config.schedule_iterations
  if config.meta_lr_schedule == "linear":
    return schedules.PolynomialDecay(config.meta_lr, iterations, end_learning_rate=0.0)
  return schedules.CosineDecay(config.meta_lr, iterations, alpha=LEAST_META_LR)


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
  return set((provenance.cpuinfo("flags") or "").split())
