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
    "cores": len(os.sched_getaffinity(0)),
    "accelerators": [
      tf.config.experimental.get_device_details(device).get("device_name", device.name)
      for device in tf.config.list_physical_devices("GPU")
    ],
  }


def _processor_name():
  try:
    for line in pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
      if line.startswith("model name"):
        return line.partition(":")[2].strip()
  except OSError:
    pass
  return platform.processor() or platform.machine()
