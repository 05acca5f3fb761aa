"""The training loop: one trace, the same bits through kills, NaN by its step, and what it leaves behind."""

import io
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import small_runs
import tensorflow as tf
from matplotlib.figure import Figure
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from maml_tf import randomness
from maml_tf.errors import UserError
from maml_tf.training import checkpoints
from maml_tf.training.learner import Learner
from maml_tf.training.trainer import Schedule, validation_score


def checkpoint_names(path):
  return sorted(os.listdir(path / "checkpoints"))


class Scripted(Learner):
  """A learner whose loss at each step is a function of the step, which is its only weight."""

  compiles = True

  def __init__(self, loss=lambda step: 1.0 / step, validation=None):
    self.loss, self.validation = loss, validation or loss

  def initial_state(self, seed):
    return {"weights": {"step": tf.constant(0.0)}}

  def train_step(self, state, seed):
    step = state["weights"]["step"] + 1.0
    return {"weights": {"step": step}}, {"loss": tf.convert_to_tensor(self.loss(step))}

  def evaluate(self, state, seed, num_tasks):
    return {"loss": tf.fill([2, num_tasks], self.validation(state["weights"]["step"]))}


class WithNanWeights(Scripted):
  """Its loss stays finite while a weight does not: a gradient that is NaN, and no metric that tells."""

  def train_step(self, state, seed):
    step = state["weights"]["step"] + 1.0
    bad = tf.where(step >= 25.0, np.float32("nan"), step)
    return {"weights": {"step": bad}}, {"loss": tf.constant(1.0)}


def table(values):
  """step -> value of a list, inside the graph; the last repeats."""
  tensor = tf.constant(values, tf.float32)
  return lambda step: tf.gather(tensor, tf.minimum(tf.cast(step, tf.int32), len(values) - 1))


def test_what_a_run_leaves_behind(tmp_path):
  state, info = small_runs.trainer(tmp_path, config={"meta_lr": 0.001}).train()
  assert (info["iteration"], info["resumed_from"]) == (60, 0)
  assert info["iterations_per_second"] > 0
  assert checkpoint_names(tmp_path) == ["best.npz", "model20.npz", "model40.npz", "model60.npz"]
  saved, metadata = checkpoints.read(tmp_path / "checkpoints" / "model60.npz", state)
  tf.nest.map_structure(np.testing.assert_array_equal, saved, state)
  assert metadata["config"] == {"meta_lr": 0.001}
  assert metadata["iteration"] == 60
  metrics = small_runs.rows(tmp_path / "metrics.csv", without=())
  assert [row["iteration"] for row in metrics] == ["10", "20", "30", "40", "50", "60"]
  names = {"iteration", "loss", "gradient_norm", "support_loss/step_0", "query_loss/step_1", "step_seconds"}
  assert names <= set(metrics[0])
  assert np.isfinite([[float(v) for v in row.values()] for row in metrics]).all()
  validation = small_runs.rows(tmp_path / "validation.csv")
  assert [row["iteration"] for row in validation] == ["20", "40", "60"]
  assert set(validation[0]) == {"iteration", "loss/step_0", "loss/step_1", "loss/step_2"}


@pytest.mark.parametrize("jit_compile", [False, True])
def test_one_trace_for_a_whole_run_with_odd_chunks_and_its_continuation(tmp_path, jit_compile):
  odd = Schedule(17, log_every=7, validate_every=5, checkpoint_every=3, validation_tasks=4)
  first = small_runs.trainer(tmp_path, odd, jit_compile=jit_compile)
  first.train()
  longer = Schedule(41, log_every=7, validate_every=5, checkpoint_every=3, validation_tasks=4)
  second = small_runs.trainer(tmp_path, longer, jit_compile=jit_compile)
  _, info = second.train()
  assert (first.num_traces, second.num_traces) == (1, 1)
  assert (info["resumed_from"], info["iteration"]) == (17, 41)


def test_extending_a_run_gives_the_weights_of_a_longer_one(tmp_path):
  for iterations in (13, 60):
    schedule = Schedule(iterations, log_every=10, validate_every=20, checkpoint_every=20, validation_tasks=20)
    extended, _ = small_runs.trainer(tmp_path / "extended", schedule).train()
  whole, _ = small_runs.trainer(tmp_path / "whole").train()
  tf.nest.map_structure(np.testing.assert_array_equal, extended, whole)


def test_how_often_python_looks_in_does_not_change_the_weights(tmp_path):
  often = Schedule(60, log_every=3, validate_every=7, checkpoint_every=11, validation_tasks=4)
  left, _ = small_runs.trainer(tmp_path / "often", often).train()
  right, _ = small_runs.trainer(tmp_path / "seldom").train()
  tf.nest.map_structure(np.testing.assert_array_equal, left, right)


@pytest.mark.parametrize("terminal", [True, False])
def test_a_progress_bar_with_rate_and_time_left_on_terminals_only(tmp_path, monkeypatch, terminal):
  stream = io.StringIO()
  stream.isatty = lambda: terminal
  monkeypatch.setattr(sys, "stderr", stream)
  small_runs.trainer(tmp_path, who=Scripted()).train()
  if terminal:
    assert "60/60" in stream.getvalue()
    assert "it/s" in stream.getvalue()
    assert stream.getvalue().endswith("\n")
  else:
    assert stream.getvalue() == ""


def test_the_seed_decides_the_run(tmp_path):
  for name, seed in (("a", 3), ("b", 3), ("c", 4)):
    small_runs.trainer(tmp_path / name, seed=seed).train()
  small_runs.assert_same_run(tmp_path / "a", tmp_path / "b", 60)
  assert small_runs.rows(tmp_path / "a" / "metrics.csv") != small_runs.rows(tmp_path / "c" / "metrics.csv")


def test_a_finished_run_is_not_trained_again(tmp_path):
  small_runs.trainer(tmp_path).train()
  before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*") if p.is_file()}
  said = []
  again = small_runs.trainer(tmp_path, say=said.append, tensorboard=True)
  _, info = again.train()
  assert info["iteration"] == info["resumed_from"] == 60
  assert again.num_traces == 0
  assert said == ["already trained to iteration 60"]
  assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*") if p.is_file()} == before


def test_graph_and_xla_see_the_same_tasks_and_losses(tmp_path):
  learner = small_runs.learner()
  seed = randomness.make_seed(5)
  plain = tf.function(lambda s: learner.train_tasks.sample(s, 4))(seed)
  compiled = tf.function(lambda s: learner.train_tasks.sample(s, 4), jit_compile=True)(seed)
  np.testing.assert_allclose(plain.support_x, compiled.support_x, atol=1e-6)  # XLA fuses multiply and add
  np.testing.assert_allclose(plain.support_y, compiled.support_y, atol=1e-5)
  steps = Schedule(20, log_every=1, validate_every=20, checkpoint_every=20, validation_tasks=4)
  losses = []
  for jit_compile in (False, True):
    path = tmp_path / str(jit_compile)
    small_runs.trainer(path, steps, jit_compile=jit_compile).train()
    losses.append([float(row["loss"]) for row in small_runs.rows(path / "metrics.csv")])
  np.testing.assert_allclose(*losses, rtol=1e-4)


def test_tasks_that_run_python_are_refused_under_xla(tmp_path):
  learner = Scripted()
  learner.compiles = False
  with pytest.raises(UserError, match="use jit_compile=False"):
    small_runs.trainer(tmp_path, who=learner, jit_compile=True)


@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize("value", ["nan", "inf"])
def test_a_loss_that_is_not_finite_stops_the_run_at_its_step(tmp_path, value, jit_compile):
  losses = [1.0] * 47 + [float(value)] + [1.0] * 20
  with pytest.raises(UserError, match=r"at meta-iteration 47; the checkpoint of iteration 40 is kept"):
    small_runs.trainer(tmp_path, who=Scripted(table([0.0, *losses[1:]])), jit_compile=jit_compile).train()
  assert checkpoint_names(tmp_path) == ["best.npz", "model20.npz", "model40.npz"]
  state, _ = checkpoints.read(tmp_path / "checkpoints" / "model40.npz")
  assert float(state["weights"]["step"]) == 40.0
  assert [row["iteration"] for row in small_runs.rows(tmp_path / "metrics.csv")] == ["10", "20", "30", "40"]


def test_weights_that_are_not_finite_stop_the_run_before_they_are_saved(tmp_path):
  with pytest.raises(UserError, match="between meta-iterations 21 and 30; the checkpoint of iteration 20 is kept"):
    small_runs.trainer(tmp_path, who=WithNanWeights()).train()
  assert checkpoint_names(tmp_path) == ["best.npz", "model20.npz"]


def test_a_step_size_that_diverges_stops_and_says_that_nothing_is_kept(tmp_path):
  with pytest.raises(UserError, match=r"at meta-iteration \d+; there is no checkpoint yet.*Smaller steps"):
    small_runs.trainer(tmp_path, who=small_runs.learner(meta_lr=1e30)).train()
  assert not (tmp_path / "checkpoints").exists()


def test_large_losses_are_averaged_without_overflow(tmp_path):
  small_runs.trainer(tmp_path, who=Scripted(lambda step: 0.0 * step + 3e38)).train()
  assert float(small_runs.rows(tmp_path / "metrics.csv")[-1]["loss"]) == pytest.approx(3e38, rel=1e-5)


def test_metrics_are_means_over_the_iterations_since_the_last_row(tmp_path):
  small_runs.trainer(tmp_path, who=Scripted(lambda step: step)).train()
  losses = [float(row["loss"]) for row in small_runs.rows(tmp_path / "metrics.csv")]
  np.testing.assert_allclose(losses, [5.5, 15.5, 25.5, 35.5, 45.5, 55.5], rtol=1e-6)


SIX = Schedule(6, log_every=1, validate_every=1, checkpoint_every=1, validation_tasks=3)


@pytest.mark.parametrize(("losses", "best"), [
  ([9, 5, 3, 4, 6, 8], 3),
  ([3, 5, 9, 4, 6, 8], 1),
  ([9, 5, 3, 3, 6, 2], 6),
  ([float("nan"), 5, 3, float("nan"), 6, 8], 3),
  ([float("inf"), 5, 3, float("-inf"), 6, 8], 3),
])  # fmt: skip
def test_pruning_keeps_three_and_the_best_by_validation(tmp_path, losses, best):
  learner = Scripted(validation=table([0.0, *map(float, losses)]))
  small_runs.trainer(tmp_path, SIX, who=learner).train()
  assert checkpoint_names(tmp_path) == ["best.npz", "model4.npz", "model5.npz", "model6.npz"]
  state, metadata = checkpoints.read(tmp_path / "checkpoints" / "best.npz")
  assert float(state["weights"]["step"]) == metadata["iteration"] == best
  validation = {int(r["iteration"]): float(r["loss/step_1"]) for r in small_runs.rows(tmp_path / "validation.csv")}
  finite = {i: v for i, v in validation.items() if np.isfinite(v)}
  assert best == min(finite, key=finite.get)
  _, newest = checkpoints.read(tmp_path / "checkpoints" / "model6.npz")
  assert newest["best"] == {"iteration": best, "metric": "loss/step_1", "score": -validation[best]}


def test_no_finite_validation_is_no_best(tmp_path):
  small_runs.trainer(tmp_path, SIX, who=Scripted(validation=lambda step: step * float("nan"))).train()
  assert "best.npz" not in checkpoint_names(tmp_path)


def test_a_best_by_another_metric_does_not_compare(tmp_path):
  shorter = Schedule(3, log_every=1, validate_every=1, checkpoint_every=1, validation_tasks=3)
  small_runs.trainer(tmp_path, shorter, who=Scripted(validation=lambda step: step * 0.0)).train()

  class MoreSteps(Scripted):
    def evaluate(self, state, seed, num_tasks):
      return {"loss": tf.fill([3, num_tasks], 10.0 - state["weights"]["step"])}

  small_runs.trainer(tmp_path, SIX, who=MoreSteps()).train()
  assert checkpoints.read(tmp_path / "checkpoints" / "best.npz")[1]["iteration"] == 6
  assert small_runs.rows(tmp_path / "validation.csv")[0]["loss/step_2"] == ""


def test_what_checkpoints_are_compared_by():
  assert validation_score({"loss": [3.0, 2.0]}) == ("loss/step_1", -2.0)
  assert validation_score({"loss": [3.0, 2.0], "accuracy": [0.2, 0.5, 0.9]}) == ("accuracy/step_2", 0.9)
  assert validation_score({"return": [-5.0, -1.0]}) == ("return/step_1", -1.0)


def test_a_truncated_checkpoint_costs_its_iterations_and_nothing_else(tmp_path):
  small_runs.trainer(tmp_path / "whole").train()
  shorter = Schedule(40, log_every=10, validate_every=20, checkpoint_every=20, validation_tasks=20)
  small_runs.trainer(tmp_path / "damaged", shorter).train()
  newest = tmp_path / "damaged" / "checkpoints" / "model40.npz"
  newest.write_bytes(newest.read_bytes()[:200])
  said = []
  _, info = small_runs.trainer(tmp_path / "damaged", say=said.append).train()
  assert info["resumed_from"] == 20
  assert "model40.npz: damaged" in said[0]
  assert "model20.npz" in said[0]
  assert said[1] == "resuming from iteration 20"
  small_runs.assert_same_run(tmp_path / "whole", tmp_path / "damaged", 60)


def test_a_checkpoint_of_another_model_is_refused_by_name(tmp_path):
  small_runs.trainer(tmp_path).train()
  longer = Schedule(80)
  with pytest.raises(UserError, match=r"model60\.npz: .*(lacks|is float32|not expected)"):
    small_runs.trainer(tmp_path, longer, who=small_runs.learner(hidden=(8, 8))).train()
  with pytest.raises(UserError, match=r"model60\.npz: .* is float32 \[1, 8\], float32 \[1, 9\] is expected"):
    small_runs.trainer(tmp_path, longer, who=small_runs.learner(hidden=(9,))).train()


def test_tensorboard_has_what_the_readme_promises(tmp_path):
  def draw(iteration, state, board):
    figure = Figure()
    figure.subplots().plot([0, float(state["weights"]["step"]) if "step" in state["weights"] else 1])
    board.figure(iteration, "fits", figure)

  small_runs.trainer(tmp_path, tensorboard=True, on_validation=draw, config={"meta_lr": 0.001}).train()
  events = EventAccumulator(str(tmp_path / "events"), size_guidance={"tensors": 0}).Reload()
  steps = {tag: [point.step for point in events.Tensors(tag)] for tag in events.Tags()["tensors"]}
  every_ten, every_twenty = [10, 20, 30, 40, 50, 60], [20, 40, 60]
  for name in ("loss", "support_loss/step_0", "query_loss/step_1", "gradient_norm", "step_seconds"):
    assert steps[f"train/{name}"] == every_ten
  for step in (0, 1, 2):
    assert steps[f"validation/loss/step_{step}"] == every_twenty
  assert steps["fits"] == every_twenty
  assert steps["compile/seconds"] == [0]
  assert "_hparams_/session_start_info" in events.summary_metadata
  logged = [float(tf.make_ndarray(point.tensor_proto)) for point in events.Tensors("train/loss")]
  written = [float(row["loss"]) for row in small_runs.rows(tmp_path / "metrics.csv")]
  np.testing.assert_allclose(logged, written, rtol=1e-6)


def test_a_branch_on_a_tensor_needs_a_decorator_of_its_own(tmp_path):
  """Only what asks for it is rewritten by AutoGraph, which takes seconds."""

  def loss(step):
    return 2.0 / step if step < 4.0 else 1.0 / step

  with pytest.raises(TypeError, match=r"@tf\.function"):  # TensorFlow's own words name the way out
    small_runs.trainer(tmp_path / "plain", SIX, who=Scripted(loss, validation=lambda step: step)).train()
  small_runs.trainer(tmp_path / "own", SIX, who=Scripted(tf.function(loss))).train()
  written = [float(row["loss"]) for row in small_runs.rows(tmp_path / "own" / "metrics.csv")]
  np.testing.assert_allclose(written, [2, 2 / 2, 2 / 3, 1 / 4, 1 / 5, 1 / 6], rtol=1e-6)


# Loads TensorFlow once, then forks a training at a time and kills it: the parent never runs an operation.
KILLER = """
import os, pathlib, random, signal, sys, time
sys.path.insert(0, sys.argv[1])
import small_runs
path, schedule, chance = pathlib.Path(sys.argv[2]), small_runs.Schedule(**eval(sys.argv[3])), random.Random(7)

def newest():
  return max((int(p.stem[5:]) for p in (path / "checkpoints").glob("model*.npz")), default=0)

for _ in range(4):
  before, child = newest(), os.fork()
  if child == 0:
    small_runs.trainer(path, schedule).train()
    os._exit(0)
  while newest() < before + 10 and os.waitpid(child, os.WNOHANG) == (0, 0):
    time.sleep(0.002)
  time.sleep(chance.uniform(0, 0.05))
  os.kill(child, signal.SIGKILL)
  assert os.waitpid(child, 0)[1] == signal.SIGKILL
  print(newest(), flush=True)
"""
# A checkpoint after every iteration: most of the time goes into writing, so that is when most of the kills fall.
BUSY = dict(iterations=120, log_every=5, validate_every=20, checkpoint_every=1, validation_tasks=20)


def test_killed_again_and_again_it_ends_with_the_same_bits(tmp_path):
  small_runs.trainer(tmp_path / "whole", Schedule(**BUSY)).train()
  path = tmp_path / "killed"
  command = [sys.executable, "-c", KILLER, os.path.dirname(small_runs.__file__), str(path), repr(BUSY)]
  done = subprocess.run(command, capture_output=True, text=True, timeout=120)
  assert done.returncode == 0, done.stderr
  reached = [int(line) for line in done.stdout.split()]
  assert len(set(reached)) == 4, reached
  # What a kill in the middle of a write leaves: half a file under a temporary name, half a row.
  (path / "checkpoints" / ".model120.npz.tmp1").write_bytes(b"PK\x03\x04 half")
  with open(path / "metrics.csv", "a", encoding="utf-8") as file:
    file.write("39")
  _, info = small_runs.trainer(path, Schedule(**BUSY)).train()
  assert info["resumed_from"] == reached[-1] < 120
  small_runs.assert_same_run(tmp_path / "whole", path, 120)


def test_metadata_of_a_checkpoint_is_standard_json(tmp_path):
  small_runs.trainer(tmp_path, SIX, who=Scripted(validation=lambda step: step * float("nan"))).train()

  def refuse(constant):
    raise AssertionError(constant)

  text = str(small_runs.arrays(tmp_path / "checkpoints" / "model6.npz")["__metadata__"])
  assert json.loads(text, parse_constant=refuse)["best"] is None
