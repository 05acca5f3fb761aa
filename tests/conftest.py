"""Shared by all tests: TensorFlow without its start-up messages, and Keras back in float32 after every test."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")  # as the scripts do: other kernels give other bits
os.environ["https_proxy"] = "http://127.0.0.1:9"  # no test downloads anything

import importlib.util
import pathlib
import signal

import keras
import pytest


def pytest_configure():
  # A shell's background jobs ignore Ctrl-C, and so would the commands that their tests start.
  signal.signal(signal.SIGINT, signal.default_int_handler)
  if "PYTEST_XDIST_WORKER" in os.environ and hasattr(os, "sched_setaffinity"):
    # Each process of the tests on cores of its own: TensorFlow's threads wait for one another by spinning.
    cores = sorted(os.sched_getaffinity(0))
    worker, workers = int(os.environ["PYTEST_XDIST_WORKER"][2:]), int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
    os.sched_setaffinity(0, cores[worker::workers] or cores)


# A file goes to one process as a whole: a long one that began last would leave the other process idle.
LONG_FILES = (
  "test_examples",
  "test_images",
  "test_keras_model",
  "test_main",
  "test_maml",
  "test_policies",
  "test_results",
  "test_trainer",
)


def pytest_collection_modifyitems(items):
  items.sort(key=lambda item: item.path.stem not in LONG_FILES)


@pytest.fixture(scope="session")
def script():
  """scripts/main.py as a module."""
  path = pathlib.Path(__file__).parents[1] / "scripts" / "main.py"
  spec = importlib.util.spec_from_file_location("main_script", path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


@pytest.fixture(scope="session")
def without_tensorflow(tmp_path_factory):
  """An environment in which importing TensorFlow, Keras or NumPy is a traceback: seconds depend on the machine."""
  folder = tmp_path_factory.mktemp("slow")
  for name in ("tensorflow", "keras", "numpy"):
    (folder / f"{name}.py").write_text("raise AssertionError(__name__)")
  paths = [str(folder), *filter(None, [os.environ.get("PYTHONPATH")])]
  return os.environ | {"PYTHONPATH": os.pathsep.join(paths)}


@pytest.fixture
def float64():
  """Keras variables and initial weights in float64, for finite differences."""
  keras.config.set_floatx("float64")
  yield
  keras.config.set_floatx("float32")
