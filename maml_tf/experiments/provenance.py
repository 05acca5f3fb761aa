"""What made a result: commit, versions, hardware."""

import os
import pathlib
import platform
import subprocess
from importlib import metadata


def describe():
  """JSON-able dict of the commit, the versions and the machine."""
  return {"commit": commit(), "versions": _versions(), "hardware": _hardware()}


def commit():
  """The commit of the checkout that this file is in, with `+changes` where the tree differs; None outside of one."""
  folder = pathlib.Path(__file__).parent

  def git(*arguments):
    return subprocess.run(
      ["git", *arguments], cwd=folder, capture_output=True, text=True, check=True, timeout=10
    ).stdout.strip()

  try:
    # An installed copy may lie inside somebody else's repository.
    git("ls-files", "--error-unmatch", pathlib.Path(__file__).name)
    return git("rev-parse", "HEAD") + ("+changes" if git("status", "--porcelain", "--untracked-files=no") else "")
  except (OSError, subprocess.SubprocessError):
    return None


def _versions():
  versions = {"python": platform.python_version()}
  for package in ("maml_tf", "tensorflow", "keras", "numpy"):
    try:
      versions[package] = metadata.version(package)
    except metadata.PackageNotFoundError:
      versions[package] = None
  return versions


def _hardware():
  import tensorflow as tf

  return {
    "processor": _processor_name(),
    "instruction_set": instruction_set(),
    "cores": len(os.sched_getaffinity(0)),
    "accelerators": [
      tf.config.experimental.get_device_details(device).get("device_name", device.name)
      for device in tf.config.list_physical_devices("GPU")
    ],
  }


# What the Linux kernel calls the extensions that decide how fast, and with which rounding, products are computed; from
# the weakest to the strongest.
_INSTRUCTION_SETS = (
  "sse4_2",
  "avx",
  "avx2",
  "avx512f",
  "avx512_vnni",
  "avx512_bf16",
  "avx512_fp16",
  "amx_bf16",
  "asimd",
  "sve",
)


def instruction_set():
  """The processor's extensions, as in "avx2 avx512f avx512_bf16"; None where there is no /proc/cpuinfo."""
  found = cpuinfo("flags") or cpuinfo("Features")  # x86, ARM
  return None if found is None else " ".join(name for name in _INSTRUCTION_SETS if name in found.split())


def _processor_name():
  return cpuinfo("model name") or platform.processor() or platform.machine()


def cpuinfo(name):
  """What Linux says of the first processor under that name; None elsewhere."""
  try:
    lines = pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
  except OSError:
    return None
  return next((line.partition(":")[2].strip() for line in lines if line.partition(":")[0].strip() == name), None)
