"""A run's folder: one process at a time, nothing lost, nothing half-written left behind."""

import json
import os
import subprocess
import sys

import pytest

from maml_tf.errors import UserError
from maml_tf.training.run_directory import RunDirectory

HOLD = """
import fcntl, os, sys
lock = open(sys.argv[1], "a+")
fcntl.flock(lock, fcntl.LOCK_EX)
lock.truncate(0)
lock.write(f"{os.getpid()}\\n")
lock.flush()
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def directory(tmp_path):
  return RunDirectory(tmp_path / "run")


def test_locking_makes_the_folder_and_names_the_owner(directory):
  with directory.locked():
    assert (directory.path / "lock").read_text().strip() == str(os.getpid())


def test_a_second_process_is_refused_with_the_pid_of_the_first(directory):
  directory.path.mkdir()
  command = [sys.executable, "-c", HOLD, str(directory.path / "lock")]
  with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
    assert other.stdout.readline() == "held\n"
    with pytest.raises(UserError, match=f"pid {other.pid}") as error, directory.locked():
      pass
    assert str(directory.path) in str(error.value)
    assert (directory.path / "lock").read_text().strip() == str(other.pid)  # still says who
    other.kill()
    other.wait()
    with directory.locked():  # the kernel let go
      pass


def test_the_lock_is_let_go_after_an_error(directory):
  with pytest.raises(RuntimeError), directory.locked():
    raise RuntimeError
  with directory.locked():
    pass


@pytest.mark.parametrize("place", ["run", "parent", "lock"])
def test_something_else_in_the_way_is_an_error_that_names_flag_and_folder(tmp_path, place):
  directory = RunDirectory(tmp_path / "parent" / "run")
  if place == "parent":
    (tmp_path / "parent").write_text("a file")
  elif place == "run":
    directory.path.parent.mkdir()
    directory.path.write_text("a file")
  else:
    (directory.path / "lock").mkdir(parents=True)
  with pytest.raises(UserError, match="run: cannot write here") as error, directory.locked():
    pass
  assert str(directory.path) in str(error.value)


def test_putting_aside_moves_everything_but_the_lock(directory):
  with directory.locked():
    directory.checkpoints.mkdir()
    (directory.checkpoints / "model1.npz").write_text("1")
    directory.metrics.write_text("iteration\n")
    aside = directory.put_aside()
    assert os.listdir(directory.path) == ["lock"]
    assert sorted(os.listdir(aside)) == ["checkpoints", "metrics.csv"]
    assert (aside / "checkpoints" / "model1.npz").read_text() == "1"


def test_an_older_run_without_checkpoints_is_put_aside_too(directory):
  with directory.locked():
    directory.metrics.write_text("iteration\n")
    assert (directory.put_aside() / "metrics.csv").exists()


def test_two_runs_put_aside_within_a_second_both_stay(directory):
  with directory.locked():
    targets = set()
    for text in ("first", "second", "third"):
      directory.metrics.write_text(text)
      targets.add(directory.put_aside())
  assert sorted((t / "metrics.csv").read_text() for t in targets) == ["first", "second", "third"]


def test_nothing_to_put_aside(directory):
  with directory.locked():
    assert directory.put_aside() is None


def test_leftovers_of_a_killed_process_are_removed_and_nothing_else(directory):
  directory.checkpoints.mkdir(parents=True)
  (directory.checkpoints / ".model3.npz.tmp4711").write_text("half")
  (directory.path / ".results.json.tmp4711").write_text("half")
  (directory.path / ".saved_model.ab12cd_z" / "new").mkdir(parents=True)
  for keep in (".gitignore", ".notes.tmp", "results.json"):
    (directory.path / keep).write_text("mine")
  with directory.locked():
    assert os.listdir(directory.checkpoints) == []
    assert sorted(os.listdir(directory.path)) == [".gitignore", ".notes.tmp", "checkpoints", "lock", "results.json"]


def test_a_saved_model_caught_between_two_renames_comes_back(directory):
  older = directory.path / ".saved_model.ab12cd_z" / "old"
  older.mkdir(parents=True)
  (older / "saved_model.pb").write_text("older")
  with directory.locked():
    assert (directory.saved_model / "saved_model.pb").read_text() == "older"


def test_json_is_standard_json_whatever_the_numbers(directory):
  directory.path.mkdir()
  content = {
    "mean": [1.5, float("nan"), float("inf")],
    "nested": {"x": (float("-inf"), 2)},
    "text": "NaN",
    "flag": True,
  }
  directory.write_json(directory.results, content)

  def refuse(constant):
    raise AssertionError(constant)

  read = json.loads(directory.results.read_text(), parse_constant=refuse)
  assert read == {"mean": [1.5, None, None], "nested": {"x": [None, 2]}, "text": "NaN", "flag": True}
