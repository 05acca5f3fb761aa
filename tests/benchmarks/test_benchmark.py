"""scripts/benchmark.py, at sizes of a few seconds, with what this machine has; and its count of the work."""

import dataclasses
import json
import pathlib
import subprocess
import sys

import pytest

from benchmarks import images, online
from maml_tf.errors import UserError
from maml_tf.results import benchmark_tables

SCRIPT = pathlib.Path(__file__).parents[2] / "scripts" / "benchmark.py"
SMALL = ["--tasks=2", "--filters=4", "--rounds=1", "--seconds=0.01"]


def benchmark(*arguments, timeout=600):
  command = [sys.executable, str(SCRIPT), *map(str, arguments)]
  return subprocess.run(command, capture_output=True, text=True, timeout=timeout)


def has_torch():
  try:
    import torch  # noqa: F401
  except ImportError:
    return False
  return True


@pytest.mark.skipif(not has_torch(), reason="PyTorch is an extra of its own")
@pytest.mark.parametrize(
  ("name", "extra", "contenders"),
  [
    ("omniglot", [], "graph,map_fn,loop,vmap"),
    ("miniimagenet", ["--queries=1", "--num_updates=2", "--tasks=1"], "graph,loop,vmap"),
  ],
)
def test_contenders_compute_the_same_and_are_compared(name, extra, contenders, tmp_path):
  output = tmp_path / "benchmark.json"
  done = benchmark(name, *SMALL, *extra, f"--contenders={contenders}", f"--output={output}")
  assert done.returncode == 0, done.stderr
  measured = json.loads(output.read_text())
  names = [images.CONTENDERS[short] for short in contenders.split(",")]
  assert measured["benchmark"] == name and list(measured["milliseconds"]) == names
  for key in ("over_loop", "over_vmap", "times_floor", "peak_memory_bytes"):
    assert list(measured[key]) == names and all(value > 0 for value in measured[key].values())
  assert measured["over_loop"]["PyTorch, loop over tasks"] == 1
  assert all(shown in done.stdout for shown in names)


def test_recomputing_is_compared_with_keeping_and_needs_no_pytorch(tmp_path):
  output = tmp_path / "benchmark.json"
  done = benchmark("memory", *SMALL, "--tasks=1", "--queries=1", "--num_updates=2", f"--output={output}")
  assert done.returncode == 0, done.stderr
  (measured,) = json.loads(output.read_text())["by_inner_steps"].values()
  assert measured["setting"]["num_updates"] == 2
  assert "instruction_set" in json.loads(output.read_text())["hardware"]
  names = ["maml_tf, graph", "maml_tf, steps recomputed"]
  assert list(measured["milliseconds"]) == list(measured["peak_memory_bytes"]) == names


def test_an_evaluation_at_once_is_compared_with_one_in_parts(monkeypatch, capsys):
  class Here:
    """A contender in this process."""

    def __init__(self, name, *arguments):
      self.name, self.milliseconds, self.times = name, 1.0, [1.0]
      loss, _ = images.make_step(name, *arguments)()
      self.first = {"loss": float(loss), "norm": 0.0, "first_call_s": 0.0}

    def run(self, seconds):
      self.times.append(seconds)

    def close(self):
      return 10**9

  monkeypatch.setattr(images, "Worker", Here)
  small = images.Setting(20, 2, 1, 1, (16, 16, 1), 2, 1, 0.01, False)
  monkeypatch.setitem(images.SETTINGS, "evaluation", small)
  results = images.run_evaluation({"filters": 3}, 1, 0.01)
  assert list(results["milliseconds_of_a_block"]) == [images.AT_ONCE, images.AS_FITS]
  assert f"{images.AS_FITS} " in capsys.readouterr().out


@pytest.mark.skipif(not has_torch(), reason="PyTorch is an extra of its own")
def test_sinusoid_measures_all_ratios(tmp_path):
  output = tmp_path / "benchmark.json"
  done = benchmark("sinusoid", "--rounds=1", "--seconds=0.2", "--main_iterations=0", f"--output={output}")
  assert done.returncode == 0, done.stderr
  measured = json.loads(output.read_text())
  assert measured["over_loop"]["maml_tf, XLA"] > 5
  assert measured["over_vmap"]["maml_tf, XLA"] > 1


@pytest.mark.skipif(has_torch(), reason="PyTorch is there")
@pytest.mark.parametrize("name", ["sinusoid", "omniglot"])
def test_without_pytorch_the_message_says_what_to_install(name):
  done = benchmark(name, *SMALL)
  assert done.returncode == 1 and "PyTorch is not installed" in done.stderr and "bench" in done.stderr


def test_unknown_contenders_are_named():
  done = benchmark("omniglot", *SMALL, "--contenders=graph,jax")
  assert done.returncode == 1 and "contenders=graph,jax" in done.stderr
  assert len(done.stderr.strip().splitlines()) == 1


def test_different_work_is_not_compared():
  same = [{"loss": 1.0, "norm": 2.0}, {"loss": 1.0005, "norm": 2.01}]
  images.check_same(same, ["a", "b"])
  with pytest.raises(UserError, match="b has another loss than a"):
    images.check_same([same[0], {"loss": 1.01, "norm": 2.0}], ["a", "b"])
  with pytest.raises(UserError, match="b has another norm than a"):
    images.check_same([same[0], {"loss": 1.0, "norm": 2.1}], ["a", "b"])


def test_flops_are_those_counted_by_hand():
  """One task of one image each way, one step, one channel and filter: 9 products per position, 2 operations each."""
  setting = dataclasses.replace(images.OMNIGLOT, tasks=1, ways=1, shots=1, queries=1, filters=1, num_updates=1)
  positions = [14 * 14, 7 * 7, 4 * 4, 2 * 2]
  expected = 2 * 9 * (6 * positions[0] + 12 * sum(positions[1:])) + 2 * 12
  assert images.count_flops(setting) == expected
  assert images.count_flops(dataclasses.replace(setting, tasks=3)) == 3 * expected
  assert images.count_flops(images.OMNIGLOT) == pytest.approx(10.0e9, rel=0.01)
  assert images.count_flops(images.MINIIMAGENET) == pytest.approx(88.7e9, rel=0.01)


def test_rounds_of_a_stream_are_timed():
  measured = online.run(num_tasks=4)
  assert measured["rounds"] == list(range(1, 21)) and len(measured["milliseconds_of_a_round"]) == 20
  assert measured["data_bytes"] == 4 * 120 * (64 + 1) * 4 and min(measured["resident_bytes"]) > measured["data_bytes"]
  (table,) = (make() for make in benchmark_tables.makers({"online": measured}).values())
  assert [row[0] for row in table.rows] == ["first tenth", "last tenth"]
  assert online.report(measured)[0] == "20 rounds, 0.1 MB of data"
