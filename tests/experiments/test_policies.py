"""Reinforcement learning through the command line: settings, output, evaluation, killing and resuming."""

import csv
import json
import pathlib

import numpy as np
import pytest
import small_runs
import tensorflow as tf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from maml_tf.errors import UserError
from maml_tf.experiments.config import resolve, run_name
from maml_tf.experiments.domains.policies import plots, published
from maml_tf.experiments.domains.policies.experiment import PolicyExperiment
from maml_tf.results import policies
from maml_tf.rl.envs import published_test_goals
from maml_tf.training.trainer import Schedule

TINY = ("--metatrain_iterations=2", "--meta_batch_size=2", "--rollouts_per_task=3", "--horizon=6", "--eval_tasks=2")
TIMES = ("rollout_seconds", "step_seconds")


def only_run(folder):
  (run,) = (path for path in pathlib.Path(folder).iterdir() if ".old-" not in path.name)
  return run


def curve(run):
  """metrics.csv without what depends on the clock."""
  with open(run / "metrics.csv", newline="") as file:
    return [{n: v for n, v in row.items() if n not in TIMES} for row in csv.DictReader(file)]


def weights_of(run):
  with np.load(run / "checkpoints" / "model4.npz") as archive:
    return {n: archive[n] for n in archive.files if n != "__metadata__"}


@pytest.mark.parametrize("datasource", ["point", "ant_dir"])
def test_it_trains_evaluates_and_exports(script, capfd, tmp_path, datasource):
  assert script.main(["main.py", f"--datasource={datasource}", *TINY, "--eval_updates=1", f"--logdir={tmp_path}"]) == 0
  out, err = capfd.readouterr()
  assert err == ""
  assert f"Return, {datasource}, maml, 2 test goals" in out and "0 steps" in out
  assert "published" in out
  run = only_run(tmp_path)
  content = json.loads((run / "results.json").read_text())
  assert np.shape(content["results"]["return"]["of_each_task"]) == (2, 2)
  assert len(curve(run)) == 2 and (run / "plots" / "returns.png").stat().st_size > 5000
  assert (run / "plots" / "trajectories.png").exists() == (datasource == "point")
  module = tf.saved_model.load(str(run / "saved_model"))
  assert set(module.initialization()) >= {"dense_0/kernel", "dense_2/bias"}
  columns = set(curve(run)[0])
  assert {
    "return/step_0",
    "return/step_1",
    "surrogate_after",
    "kl",
    "cg_residual",
    "accepted_step",
    "entropy",
  } <= columns
  assert "diverged_simulations" in columns


def test_tensorboard_shows_returns_and_a_video_of_what_was_learned(script, capfd, tmp_path):
  flags = ["--datasource=point", *TINY, "--eval_updates=1", "--noexport", "--render", f"--logdir={tmp_path}"]
  assert script.main(["main.py", *flags]) == 0
  run = only_run(tmp_path)
  events = EventAccumulator(str(run / "events"), size_guidance={"tensors": 0}).Reload()
  for name in ("returns", "trajectories", "video"):
    (point,) = events.Tensors(f"final/{name}")
    assert point.step == 2
    path = run / "plots" / f"{name}.{'gif' if name == 'video' else 'png'}"
    assert tf.make_ndarray(point.tensor_proto)[2] == path.read_bytes()
  seconds = {"train/rollout_seconds", "train/step_seconds"}
  assert seconds | {"train/return/step_0", "train/return/step_1", "train/kl"} <= set(events.Tags()["tensors"])
  assert (run / "plots" / "video.mp4").stat().st_size > 1000
  before = sorted(path.name for path in (run / "events").iterdir())
  assert script.main(["main.py", *flags[:-2], f"--logdir={tmp_path}", "--train=False"]) == 0
  assert sorted(path.name for path in (run / "events").iterdir()) == before  # an evaluation adds nothing


@pytest.mark.parametrize("flags", [
  ["--datasource=tabular", "--inner=ratio", "--outer=vpg"],
  ["--datasource=bandit", "--outer=ppo", "--stop_grad"],
], ids=str)  # fmt: skip
def test_every_way_of_training(script, capfd, tmp_path, flags):
  more = ("--eval_updates=1", "--noexport", "--nolog", f"--logdir={tmp_path}")
  assert script.main(["main.py", *TINY, *more, *flags]) == 0
  out, err = capfd.readouterr()
  assert err == "" and "2 test goals" in out and "published" not in out
  run = only_run(tmp_path)
  assert len(curve(run)) == 2
  assert ("accepted_step" in curve(run)[0]) == (not any("outer" in flag for flag in flags))


def test_an_exported_policy_is_evaluated(script, capfd, tmp_path):
  flags = ["main.py", "--datasource=bandit", *TINY, "--eval_updates=1", "--nolog"]
  assert script.main([*flags, f"--logdir={tmp_path}/first"]) == 0
  artefact = only_run(tmp_path / "first") / "saved_model"
  again = [*flags, f"--logdir={tmp_path}/second", f"--init_from={artefact}", "--noexport"]
  assert script.main([*again, "--train=False"]) == 0
  first, second = (json.loads((only_run(tmp_path / n) / "results.json").read_text()) for n in ("first", "second"))
  assert first["results"]["return"] == second["results"]["return"]
  assert capfd.readouterr().err == ""


@pytest.mark.parametrize("datasource", ["point", "ant_vel"])
def test_a_killed_run_goes_on_to_the_same_curve(tmp_path, datasource):
  def train(folder, iterations, sim_threads):
    config = resolve(
      datasource, meta_batch_size=2, rollouts_per_task=3, horizon=6, eval_updates=0, sim_threads=sim_threads
    )
    experiment = PolicyExperiment(config)
    schedule = Schedule(iterations, log_every=1, validate_every=3, checkpoint_every=2, validation_tasks=1)
    small_runs.trainer(tmp_path / folder, schedule, experiment.learner()).train()
    experiment.close()

  train("whole", 4, 2)
  train("parts", 2, 1)
  # What a killed process leaves behind is its newest checkpoint and whatever it logged since.
  with open(tmp_path / "parts" / "metrics.csv", "a") as file:
    file.write("3,0.1,0.2\n4,0.")
  train("parts", 4, 2)
  assert curve(tmp_path / "whole") == curve(tmp_path / "parts")
  expected, got = weights_of(tmp_path / "whole"), weights_of(tmp_path / "parts")
  assert expected.keys() == got.keys()
  for name in expected:
    np.testing.assert_array_equal(got[name], expected[name])


def test_the_baselines_and_their_evaluation(script, capfd, tmp_path):
  flags = ["main.py", "--datasource=point", *TINY[1:], "--noexport", "--nolog", f"--logdir={tmp_path}"]
  for baseline in ("oracle", "random"):
    more = ["--eval_updates=1"] if baseline == "random" else ["--pretrain_iterations=2"]
    assert script.main([*flags, f"--baseline={baseline}", *more]) == 0
    out, err = capfd.readouterr()
    assert err == "" and f"Return, point, {baseline}," in out and "published" in out
  found = {path.name.split(".")[1]: json.loads((path / "results.json").read_text()) for path in tmp_path.iterdir()}
  assert len(found["oracle"]["results"]["return"]["mean"]) == 1  # it does not adapt
  assert found["random"]["results"]["step_sizes"] == [0.5, 0.25]
  contents = {run.name.split(".")[1]: policies.collect([run], tmp_path) for run in tmp_path.iterdir()}
  for method, content in contents.items():
    np.testing.assert_allclose(content["results"]["mean"], found[method]["results"]["return"]["mean"], atol=1e-3)
    np.testing.assert_allclose(content["results"]["ci95"], found[method]["results"]["return"]["ci95"], rtol=1e-2)
    assert content["published"]["mean"] == published.RETURNS["point"][method][0] and content["tasks"] == 2
  assert (contents["oracle"]["iterations"], contents["random"]["iterations"]) == (2, 0)
  figure = plots.returns_of_tasks({"point": {m: {"return": c["results"]} for m, c in contents.items()}})
  labels = figure.axes[0].get_legend_handles_labels()[1]
  assert {"oracle", "random initialisation", "oracle, published", "random initialisation, published"} <= set(labels), (
    labels
  )


def test_a_pretrained_cheetah(script, capfd, tmp_path):
  flags = ["--datasource=cheetah_vel", "--baseline=pretrain", "--pretrain_iterations=2", "--rollouts_per_task=4"]
  more = ["--horizon=5", "--eval_tasks=2", "--eval_updates=1", "--noexport", "--nolog", f"--logdir={tmp_path}"]
  assert script.main(["main.py", *flags, *more]) == 0
  out, err = capfd.readouterr()
  assert err == "" and "Return, cheetah_vel, pretrain, 2 test goals" in out
  content = json.loads((only_run(tmp_path) / "results.json").read_text())
  assert content["results"]["step_sizes"] == [0.02, 0.01] and content["results"]["diverged_simulations"] == 0


# cbfinn/maml_rl, maml_examples/maml_trpo_*.py, cluster_trpo_*.py and test_maml_*.py.
@pytest.mark.parametrize(("given", "expected"), [
  (dict(datasource="point"), dict(update_lr=0.5, horizon=100, rollouts_per_task=20, max_kl=0.01, num_updates=1)),
  (dict(datasource="cheetah_vel"), dict(update_lr=0.1, horizon=200, rollouts_per_task=20, meta_batch_size=40)),
  (dict(datasource="cheetah_dir"), dict(max_kl=0.02, metatrain_iterations=800)),
  (dict(datasource="ant_dir"), dict(rollouts_per_task=40, max_kl=0.01)),
  (dict(datasource="cheetah_vel", baseline="pretrain"),
   dict(update_lr=0.02, iterations=1000, rollouts_per_task=100, meta_batch_size=1)),
  (dict(datasource="ant_vel", baseline="oracle"), dict(iterations=2000, eval_updates=0)),
  (dict(datasource="cheetah_dir", baseline="pretrain"), dict(max_kl=0.01, update_lr=0.2)),
  (dict(datasource="cheetah_vel", baseline="random"), dict(update_lr=0.1, iterations=0)),
  (dict(datasource="point", pretrain_iterations=7, metatrain_iterations=0), dict(method="pretrain", iterations=7)),
])  # fmt: skip
def test_settings_are_the_published_ones(given, expected):
  config = resolve(**given)
  assert {name: getattr(config, name) for name in expected} == expected


def test_evaluation_is_on_the_published_goals_and_then_on_new_ones():
  experiment = PolicyExperiment(resolve("cheetah_vel", eval_tasks=45))
  goals = experiment.evaluation_goals()
  np.testing.assert_allclose(goals[:40], published_test_goals("cheetah_vel"), rtol=1e-6)
  assert goals.shape == (45, 1) and len(np.unique(goals)) == 45
  validation = PolicyExperiment(resolve("cheetah_vel", test_set=False)).evaluation_goals()
  assert not np.isin(validation, goals).any()


def test_later_steps_are_smaller_as_published():
  sizes = {d: PolicyExperiment(resolve(d)).learner().evaluation.eval_lr for d in ("point", "ant_vel", "ant_dir")}
  assert sizes == {"point": [0.5, 0.25], "ant_vel": [0.1, 0.05], "ant_dir": [0.1, 0.001]}


@pytest.mark.parametrize(("flag", "says"), [
  ({"hvp_subsample": 0.0}, "above 0 and at most 1"),
  ({"horizon": 0}, "--horizon=0"),
  ({"max_kl": -1.0}, "--max_kl"),
  ({"outer": "sgd"}, "trpo, vpg, ppo"),
  ({"inner": "sgd"}, "log_likelihood, ratio"),
  ({"baseline": "oracle", "inner": "ratio"}, "--inner=ratio: expected no .*--baseline=oracle has no such setting"),
  ({"hvp": "fisher"}, "exact, finite_difference"),
  ({"meta_lr": 0.1}, "--outer=vpg or ppo with it, which alone uses it"),
  ({"outer": "ppo", "hvp_subsample": 0.5}, "--outer=trpo with it, which alone uses it"),
  ({"baseline": "oracle", "num_updates": 3}, "--num_updates=3: expected no .*--baseline=oracle has no such setting"),
  ({"sim_threads": -1}, "--sim_threads=-1"),
  ({"num_filters": 3}, "--num_filters=3: expected no .*the domain policies has no such setting"),
  ({"learner": "reptile"}, "--learner=reptile: expected one of maml"),
  ({"jit_compile": True}, "--jit_compile=True: expected no .*the domain policies has no such setting"),
])  # fmt: skip
def test_what_makes_no_sense_is_refused(flag, says):
  with pytest.raises(UserError, match=says):
    resolve("cheetah_vel", **flag)


def test_settings_of_policies_are_refused_elsewhere():
  with pytest.raises(UserError, match=r"--horizon=5: expected no .*the domain images has no such setting"):
    resolve("omniglot", horizon=5)


def test_what_shapes_training_is_in_the_name_and_nothing_else():
  def name(**given):
    return run_name(resolve("cheetah_vel", **given))

  plain = name()
  assert plain.startswith("cheetah_vel.maml.mbs_40.rollouts20.numstep1.updatelr0.1.kl0.01.seed0-")
  for same in (dict(sim_threads=3), dict(eval_tasks=5), dict(metatrain_iterations=3), dict(render=True)):
    assert name(**same) == plain
  for other in (
    dict(hvp_subsample=0.5),
    dict(inner="ratio"),
    dict(horizon=9),
    dict(outer="ppo"),
    dict(hvp="finite_difference"),
  ):
    assert name(**other) != plain
