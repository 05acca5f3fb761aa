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


# What takes longest and has a shorter sibling that looks at the same: a change runs without them in 20 minutes on two
# cores, `python -m pytest --long` has them too.
LONG_TESTS = (
  "test_benchmark.py::test_contenders_compute_the_same_and_are_compared",
  "test_benchmark.py::test_recomputing_is_compared_with_keeping",
  "test_contract.py::test_a_plug_in_has_no_flags_that_it_does_not_name",
  "test_datasets.py::test_real_omniglot_is_the_same_from_tfds_and_from_folders",
  "test_determinism.py::test_another_process_that_goes_on_from_a_checkpoint_ends_with_the_same_bits[sinusoid]",
  "test_determinism.py::test_another_process_that_goes_on_from_a_checkpoint_ends_with_the_same_bits[miniimagenet]",
  "test_every_layer.py::test_meta_gradients_through_every_layer[recurrent]",
  "test_first_order.py::test_it_trains_resumes_and_exports[boil]",
  "test_golden.py::test_policies",
  "test_images.py::test_a_killed_training_on_real_omniglot_continues_to_the_same_bits",
  "test_images.py::test_a_run_that_dies_continues_to_the_same_bits",
  "test_images.py::test_real_omniglot_trains_and_is_evaluated_with_five_shots[['--datasource=omniglot', "
  "'--meta_batch_size=2', '--num_updates=1'",
  "test_imaml.py::test_it_trains_resumes_and_exports",
  "test_keras_model.py::test_meta_gradients_in_a_graph_are_second_order_and_equal_the_eager_ones[recurrent]",
  "test_main.py::test_evaluations_leave_the_results_and_the_time_of_the_training",
  "test_maml.py::test_meta_gradient_equals_finite_differences[conv_max_pool-5]",
  "test_maml.py::test_same_loss_and_gradients_in_a_graph_and_compiled[conv_strided-True]",
  "test_mamlpp.py::test_it_trains_resumes_and_exports",
  "test_memories.py::test_it_learns_resumes_and_exports_the_four_functions[mann",
  "test_memory.py::test_recomputing_makes_memory_flat_in_the_steps_and_chunks_in_the_tasks",
  "test_multi_task.py::test_averaging_trains_resumes_and_exports",
  "test_online.py::test_trained_on_everything_there_is_a_head_for_each_task",
  "test_online.py::test_poses_walk_and_resume",
  "test_policies.py::test_a_killed_run_goes_on_to_the_same_curve[ant_vel]",
  "test_policies.py::test_tensorboard_shows_returns_and_a_video_of_what_was_learned",
  "test_policies.py::test_every_way_of_training[['--datasource=tabular'",
  "test_results.py::test_a_kept_checkpoint_continues_to_the_same_bits",
  "test_results.py::test_evaluations_of_one_checkpoint_gather_in_the_file",
  "test_results.py::test_evaluations_of_an_older_checkpoint_are_left_out",
  "test_results.py::test_learning_curves_are_drawn_from_the_results_files",
  "test_tf1_import.py::test_authors_checkpoint_is_at_chance_before_adapting_and_near_its_accuracy_after",
  "test_tf1_import.py::test_the_script_writes_a_saved_model_that_adapts",
  "test_tf1_import.py::test_the_script_names_what_it_cannot_convert",
  "test_trained_embeddings.py::test_it_goes_on_bit_for_bit[acai]",
  "test_trained_embeddings.py::test_it_goes_on_bit_for_bit[bigan]",
)


def pytest_addoption(parser):
  parser.addoption("--long", action="store_true", help="run the tests that take longest as well")


def pytest_collection_modifyitems(config, items):
  if not config.getoption("--long") and len({item.path for item in items}) > 1:  # one file is run as a whole
    left = [item for item in items if any(name in item.nodeid for name in LONG_TESTS)]
    config.hook.pytest_deselected(items=left)
    items[:] = [item for item in items if item not in left]
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
  keras.config.set_dtype_policy("float64")  # which counts for layers, once somebody has set it
  yield
  keras.config.set_floatx("float32")
  keras.config.set_dtype_policy("float32")
