"""Ctrl-C and kill: heard at once, what was trained is kept, and the run goes on with the same bits and rows."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import small_runs
import tensorflow as tf

from maml_tf.training import checkpoints, interrupts, trainer
from maml_tf.training.learner import Learner
from maml_tf.training.trainer import Schedule

LONG = Schedule(220, log_every=100, validate_every=60, checkpoint_every=1000, validation_tasks=20)


class Stopped(KeyboardInterrupt):
  """In place of a signal, at an iteration that the test knows."""


def stop_at(monkeypatch, iteration):
  """Ctrl-C while the loop is at `iteration`, of which nothing is written yet; every chunk is one iteration."""
  monkeypatch.setattr(trainer, "SECONDS_IN_GRAPH", 0.0)
  advance = trainer.Trainer._advance_to

  def advance_or_stop(self, until, bar):
    if until == iteration + 1:
      raise Stopped
    return advance(self, until, bar)

  monkeypatch.setattr(trainer.Trainer, "_advance_to", advance_or_stop)


@pytest.mark.parametrize("iteration", [137, 100, 60, 1])
def test_the_last_iteration_is_kept_and_the_run_goes_on_with_the_same_bits_and_rows(tmp_path, monkeypatch, iteration):
  whole, stopped = tmp_path / "whole", tmp_path / "stopped"
  small_runs.trainer(whole, LONG).train()
  told = []
  with monkeypatch.context() as patch, pytest.raises(Stopped, match=f"iteration {iteration} is kept"):
    stop_at(patch, iteration)
    small_runs.trainer(stopped, LONG, on_interrupt=told.append).train()
  assert (told[0]["iteration"], told[0]["resumed_from"]) == (iteration, 0)
  assert told[0]["seconds"] > 0
  assert (stopped / "checkpoints" / f"model{iteration}.npz").exists()
  _, info = small_runs.trainer(stopped, LONG).train()
  assert info["resumed_from"] == iteration
  small_runs.assert_same_run(whole, stopped, 220)


def test_interrupted_again_and_again_within_a_row_it_is_the_same_row(tmp_path, monkeypatch):
  small_runs.trainer(tmp_path / "whole", LONG).train()
  for iteration in (101, 137, 150, 199):
    with monkeypatch.context() as patch, pytest.raises(Stopped):
      stop_at(patch, iteration)
      small_runs.trainer(tmp_path / "stopped", LONG).train()
  small_runs.trainer(tmp_path / "stopped", LONG).train()
  small_runs.assert_same_run(tmp_path / "whole", tmp_path / "stopped", 220)


def test_a_row_that_another_schedule_has_moved_is_still_a_mean(tmp_path, monkeypatch):
  class Counting(Learner):
    def initial_state(self, seed):
      return {"weights": {"step": tf.constant(0.0)}}

    def train_step(self, state, seed):
      step = state["weights"]["step"] + 1.0
      return {"weights": {"step": step}}, {"loss": step}

    def evaluate(self, state, seed, num_tasks):
      return {"loss": tf.zeros([2, num_tasks])}

  with monkeypatch.context() as patch, pytest.raises(Stopped):
    stop_at(patch, 7)
    small_runs.trainer(tmp_path, Schedule(20, log_every=10), Counting()).train()
  small_runs.trainer(tmp_path, Schedule(20, log_every=9), Counting()).train()
  losses = [float(row["loss"]) for row in small_runs.rows(tmp_path / "metrics.csv")]
  np.testing.assert_allclose(losses, [5.0, 14.0, 19.5], rtol=1e-6)  # of iterations 1 to 9, 10 to 18, 19 and 20


def test_a_validation_that_was_interrupted_is_made_up_for(tmp_path, monkeypatch):
  whole, stopped = tmp_path / "whole", tmp_path / "stopped"
  for iterations in (60, 220):
    schedule = Schedule(iterations, log_every=100, validate_every=60, checkpoint_every=1000, validation_tasks=40)
    small_runs.trainer(whole / str(iterations), schedule).train()

    def stop(self, state, num_tasks, label=None, original=trainer.Trainer._validate_all):
      if label is not None:
        raise Stopped
      return original(self, state, num_tasks)

    with monkeypatch.context() as patch, pytest.raises(Stopped, match="iteration 60 is kept"):
      patch.setattr(trainer.Trainer, "_validate_all", stop)
      small_runs.trainer(stopped / str(iterations), schedule).train()
    _, info = small_runs.trainer(stopped / str(iterations), schedule).train()
    assert info["resumed_from"] == 60
    small_runs.assert_same_run(whole / str(iterations), stopped / str(iterations), iterations)


def test_checkpoints_by_time_change_nothing_else(tmp_path, monkeypatch):
  small_runs.trainer(tmp_path / "whole", LONG).train()
  monkeypatch.setattr(trainer, "SECONDS_IN_GRAPH", 0.0)
  often = Schedule(220, 100, 60, 1000, 20, checkpoint_seconds=0.0)
  written, save = [], checkpoints.CheckpointFolder.save
  with monkeypatch.context() as patch:
    patch.setattr(
      checkpoints.CheckpointFolder, "save", lambda *args: written.append(args[2]["iteration"]) or save(*args)
    )
    small_runs.trainer(tmp_path / "often", often).train()
  assert written == list(range(1, 221))
  small_runs.assert_same_run(tmp_path / "whole", tmp_path / "often", 220)
  # Killed with nothing more recent than a checkpoint by time in the middle of a row:
  killed = tmp_path / "killed"
  shutil.copytree(tmp_path / "often", killed)
  _, metadata = checkpoints.read(killed / "checkpoints" / "model219.npz")
  assert (metadata["interval"]["begun"], metadata["interval"]["length"]) == (200, 20)
  (killed / "checkpoints" / "model220.npz").unlink()
  small_runs.trainer(killed, LONG).train()
  small_runs.assert_same_run(tmp_path / "whole", killed, 220)


@pytest.mark.parametrize(("count", "seconds", "expected"), [
  (1, 0.0005, 8),  # the first: no faster than eightfold
  (1600, 0.8, 2000),
  (2000, 4.0, 500),  # the machine became slower
  (1, 25.0, 1),
])  # fmt: skip
def test_the_loop_comes_back_after_a_second_whatever_an_iteration_costs(count, seconds, expected):
  assert trainer.next_chunk(count, seconds) == expected


class Busy:
  """Code for a process whose one iteration takes a minute inside the graph."""

  code = """
import os, sys, time
sys.path.insert(0, sys.argv[1])
import numpy as np, tensorflow as tf
import small_runs
from maml_tf.training import interrupts
from maml_tf.training.learner import Learner
from maml_tf.training.trainer import Schedule
interrupts.GRACE, interrupts._SAME = float(sys.argv[3]), 0.1
class Stuck(Learner):
  def initial_state(self, seed):
    return {"weights": {"step": tf.constant(0.0)}}
  def train_step(self, state, seed):
    def wait(step):
      if step == 3:
        print("stuck", flush=True)
        time.sleep(60)
      return np.float32(step + 1)
    step = tf.ensure_shape(tf.numpy_function(wait, [state["weights"]["step"]], tf.float32), [])
    return {"weights": {"step": step}}, {"loss": step}
  def evaluate(self, state, seed, num_tasks):
    return {"loss": tf.zeros([2, num_tasks])}
def tell(info):
  print(info["iteration"])
with interrupts.heard():
  small_runs.trainer(sys.argv[2], Schedule(9, 1, 9, 9, 4), Stuck(), on_interrupt=tell).train()
"""

  def __init__(self, path, grace):
    arguments = [sys.executable, "-c", self.code, os.path.dirname(small_runs.__file__), str(path), str(grace)]
    self.process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert self.process.stdout.readline() == "stuck\n", self.process.communicate()[1]

  def ends(self):
    began = time.monotonic()
    out, err = self.process.communicate(timeout=50)
    return out, err, time.monotonic() - began


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_iteration_of_a_minute_is_not_waited_for(tmp_path, number, status):
  busy = Busy(tmp_path, grace=1.0)
  busy.process.send_signal(number)
  out, err, seconds = busy.ends()
  assert busy.process.returncode == status, err
  assert seconds < 20
  assert f"{number.name}: stopping" in err
  assert "iteration 3 is kept" in err
  assert out == "3\n"
  assert checkpoints.CheckpointFolder(tmp_path / "checkpoints").iterations() == [3]


def test_a_second_signal_ends_it_at_once(tmp_path):
  busy = Busy(tmp_path, grace=60.0)
  busy.process.send_signal(signal.SIGINT)
  assert any("SIGINT: stopping" in busy.process.stderr.readline() for _ in range(20))
  time.sleep(0.3)
  busy.process.send_signal(signal.SIGTERM)
  *_, seconds = busy.ends()
  assert busy.process.returncode == 143
  assert seconds < 20
  assert checkpoints.CheckpointFolder(tmp_path / "checkpoints").iterations() == []


def test_what_belongs_together_is_done_together_and_the_signal_comes_after():
  done = []
  with pytest.raises(KeyboardInterrupt), interrupts.held():
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(0.01)
    done.append(1)
  assert done == [1]
  assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_heard_says_so_at_once_and_leaves_the_handlers_as_they_were():
  said, before = [], [signal.getsignal(number) for number in interrupts.SIGNALS]
  with pytest.raises(interrupts.Interrupted) as caught, interrupts.heard(said.append):
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(1)
  assert caught.value.status == 143
  for _ in range(100):
    if said:
      break
    time.sleep(0.01)
  assert "SIGTERM: stopping" in said[0]
  assert [signal.getsignal(number) for number in interrupts.SIGNALS] == before
  assert not [thread for thread in threading.enumerate() if thread.name == "interrupts"]


def test_an_ignored_signal_stays_ignored():
  signal.signal(signal.SIGINT, signal.SIG_IGN)
  try:
    with interrupts.heard(lambda line: None):
      os.kill(os.getpid(), signal.SIGINT)
      time.sleep(0.01)
  finally:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def main(*flags, **options):
  script = os.path.join(os.path.dirname(small_runs.__file__), "..", "scripts", "main.py")
  return subprocess.Popen(
    [sys.executable, script, *flags], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options
  )


def test_the_command_ends_with_143_says_what_is_kept_and_records_its_time(tmp_path):
  flags = ("--jit_compile=False", "--metatrain_iterations=1000000", "--log=False", f"--logdir={tmp_path}")
  process = main(*flags)
  assert "training" in process.stdout.readline()
  deadline = time.monotonic() + 60
  while not list(tmp_path.glob("*/metrics.csv")) and time.monotonic() < deadline:
    time.sleep(0.05)
  process.send_signal(signal.SIGTERM)
  _, err = process.communicate(timeout=60)
  assert process.returncode == 143, err
  (run,) = tmp_path.iterdir()
  (kept,) = (run / "checkpoints").glob("model*.npz")
  iteration = int(kept.stem[5:])
  assert f"main.py: interrupted; iteration {iteration} is kept, and the same command goes on from there" in err
  record = json.loads((run / "training.json").read_text())
  assert record["iteration"] == record["timed_iterations"] == iteration
  assert record["seconds"] > 0
  assert len(record["commands"]) == len(record["starts"]) == 1
