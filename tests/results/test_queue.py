"""reproduce.py: the plan, how far its rows have come, and a tiny plan through kill, resume and collection."""

import fcntl
import itertools
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import time

import pytest

from maml_tf.errors import UserError
from maml_tf.results import plan, publishing, queue
from maml_tf.results.children import Child
from maml_tf.results.state import Places, newest, pace

ROOT = pathlib.Path(__file__).parents[2]
SCRIPT = ROOT / "scripts" / "reproduce.py"
WAVES = {"datasource": "sinusoid", "metatrain_iterations": 5000, "eval_tasks": 40, "jit_compile": False, "log": False}


def write_plan(folder, *rows):
  path = folder / "results" / "plan.json"
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text(json.dumps({"rows": [{"priority": 1, "why": "a test", **row} for row in rows]}))
  return path


def arguments(path, *more):
  return [sys.executable, str(SCRIPT), f"--plan={path}", f"--logdir={path.parents[1] / 'logs'}", *more]


def start(path, *more):
  return subprocess.Popen(arguments(path, *more), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def reproduce(path, *more, timeout=300):
  return subprocess.run(arguments(path, *more), capture_output=True, text=True, timeout=timeout)


def wait_until(holds, seconds=200):
  end = time.monotonic() + seconds
  while not holds():
    assert time.monotonic() < end
    time.sleep(0.05)


def is_held(lock):
  with open(lock, "a") as file:
    try:
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      return True
  return False


# A tiny plan ----------------------------------------------------------------------------------------------------------


def test_a_killed_queue_goes_on_from_its_checkpoint_and_then_from_the_committed_one(tmp_path):
  path = write_plan(tmp_path, {"name": "waves", "settings": WAVES})
  (row,) = plan.load(path)
  places = Places(path, tmp_path / "logs", ROOT)
  run = places.run(row, row.trainings[0])

  killed = start(path)
  wait_until(lambda: newest(run) > 0)
  killed.kill()
  killed.wait()
  wait_until(lambda: not is_held(places.own / f"{run.name}.lock"), seconds=60)  # its child keeps a checkpoint and ends
  assert not is_held(run / "lock")
  reached = newest(run)
  assert 0 < reached < 5000 and not places.file(row).exists()

  kept = reproduce(path, "--notrain")
  assert kept.returncode == 0, kept.stderr
  assert newest(places.kept / run.name) == reached and not places.file(row).exists()

  elsewhere = reproduce(path, f"--logdir={tmp_path / 'other'}")  # another machine, with what was committed alone
  assert elsewhere.returncode == 0, elsewhere.stdout + elsewhere.stderr
  assert f"training from iteration {reached}" in elsewhere.stdout
  assert "trained to iteration 5000 of 5000" in elsewhere.stdout
  (collected,) = json.loads(places.file(row).read_text())["runs"]
  assert collected["training"]["iteration"] == 5000
  assert collected["training"]["starts"][-1]["iteration"] == reached
  assert not (places.kept / run.name).exists()
  assert "done" in reproduce(path, "--list").stdout


def test_two_queues_share_a_plan_and_a_failing_row_stops_neither(tmp_path):
  bad = {"name": "bad", "settings": {**WAVES, "init_from": str(tmp_path / "nowhere")}, "priority": 0}
  path = write_plan(tmp_path, bad, {"name": "waves", "settings": WAVES})
  first = start(path, "--parallel=1")
  for line in first.stdout:
    if line.startswith("waves: training"):
      break
  second = reproduce(path, "--parallel=1")
  assert second.returncode == 1
  assert "waves: another queue has it" in second.stdout
  assert f"bad: FAILED: main.py: --init_from={tmp_path / 'nowhere'}: no such folder" in second.stdout
  assert second.stderr == "reproduce.py: 1 of 2 rows failed: bad; see above\n"

  first.send_signal(signal.SIGTERM)
  rest = first.communicate(timeout=200)[0]
  assert first.returncode == 130 and "interrupted" in rest
  assert not is_held(next((tmp_path / "logs" / ".queue").glob("sinusoid.*.lock")))


# Flags and plans ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
  ("flag", "said"),
  [
    ("--for=soon", "--for=soon: expected a time, such as 2h30m"),
    ("--for=", "--for=: expected a time"),
    ("--shard=5/4", "--shard=5/4: expected a part"),
    ("--shard=1", "--shard=1: expected a part"),
    ("--only=nothing", "--only=nothing: no such row; there are waves"),
    ("--parallel=0", "parallel"),
    ("--colour=red", "colour"),
    ("waves", "unexpected argument 'waves'"),
  ],
)
def test_flags_that_make_no_sense_are_refused_in_one_line(flag, said, tmp_path):
  done = reproduce(write_plan(tmp_path, {"name": "waves", "settings": WAVES}), "--list", flag, timeout=60)
  assert done.returncode == 1 and not done.stdout
  assert len(done.stderr.splitlines()) == 1 and said in done.stderr


@pytest.mark.parametrize(
  ("row", "said"),
  [
    ({"settings": WAVES}, "row 0: it has no name"),
    ({"name": "waves"}, "row waves: it has no settings"),
    ({"name": "waves", "settings": {"datasource": "cosine"}}, "row waves: --datasource=cosine"),
    ({"name": "waves", "settings": WAVES, "colour": 1}, "colour: no such field"),
    ({"name": "waves", "settings": WAVES, "priority": "high"}, "priority: expected a int, got 'high'"),
    ({"name": "../waves", "settings": WAVES}, "name: expected letters"),
    ({"name": "waves", "settings": WAVES, "after": "rain"}, "after: there is no row rain"),
    ({"name": "waves", "settings": WAVES, "seeds": []}, "expected at least one"),
    ({"name": "waves", "settings": WAVES, "evaluations": [{"update_batch_size": 5}]}, "is of another training"),
  ],
)
def test_rows_that_make_no_sense_are_refused(row, said, tmp_path):
  with pytest.raises(UserError) as refused:
    plan.load(write_plan(tmp_path, row))
  assert said in str(refused.value)


def test_files_that_are_no_plan_are_refused(tmp_path):
  for content, said in {"{": "not JSON", "[]": "expected", '{"rows": [1]}': "row 0: expected an object"}.items():
    (tmp_path / "plan.json").write_text(content)
    with pytest.raises(UserError, match=said):
      plan.load(tmp_path / "plan.json")
  with pytest.raises(UserError, match="No such file"):
    plan.load(tmp_path / "none.json")
  twice = write_plan(tmp_path, *2 * [{"name": "waves", "settings": WAVES}])
  with pytest.raises(UserError, match="two rows have the name waves"):
    plan.load(twice)


# The committed plan ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def committed():
  return plan.load(ROOT / "results" / "plan.json")


def test_run_directories_have_the_names_that_main_gives_them(committed):
  from maml_tf.experiments import run

  for row in committed:
    for training in row.trainings:
      assert training.name == run.run_directory(training.config).path.name


def test_the_plan_has_a_row_for_each_results_file_and_trains_nothing_twice(committed, tmp_path):
  files = {path.stem for path in (ROOT / "results").glob("*.json")} - {"plan"}
  others = ("benchmark", "unsupervised")  # of scripts/benchmark.py and scripts/compare.py, which train nothing
  assert {name for name in files if not name.startswith(others)} <= {row.name for row in committed}
  # On a fresh clone: what is finished there needs no training, so that no time is lost on it.
  places = Places(ROOT / "results" / "plan.json", tmp_path, ROOT)
  for row in committed:
    content = places.content(row)
    if content and row.trains and places.finished(row):
      assert not places.missing(row), row.name


def test_committed_checkpoints_are_of_rows_that_go_on_or_of_results_that_are_still_there(committed):
  names = {training.name for row in committed for training in row.trainings}
  named = set()
  for path in (ROOT / "results").glob("*.json"):
    named |= publishing.unfinished(json.loads(path.read_text()))
  assert {folder.name for folder in (ROOT / "results" / "checkpoints").glob("*/")} <= names | named


def test_shards_share_the_plan_out_by_trainings(committed):
  parts = [queue.shard(committed, index, 4) for index in (1, 2, 3, 4)]
  assert sorted(row.name for part in parts for row in part) == sorted(row.name for row in committed)
  for one, other in itertools.combinations(parts, 2):
    assert not {t.name for r in one for t in r.trainings if r.trains} & {
      t.name for r in other for t in r.trainings if r.trains
    }
  where = {row.name: index for index, part in enumerate(parts) for row in part}
  assert all(where[row.name] == where[row.after] for row in committed if row.after)
  assert max(map(len, parts)) <= 2 * min(map(len, parts))


# How far rows have come -----------------------------------------------------------------------------------------------


@pytest.fixture
def omniglot(tmp_path):
  """(places, 1-shot row, 5-shot row) of one training."""
  settings = {"datasource": "omniglot", "test_set": True}
  five = {"update_batch_size": 5, "train_update_batch_size": 1}
  path = write_plan(
    tmp_path,
    {"name": "one", "settings": settings, "evaluations": [{"eval_queries": 1}, {"eval_tasks": 6000}]},
    {"name": "five", "settings": settings, "evaluations": [five]},
  )
  return Places(path, tmp_path / "logs", ROOT), *plan.load(path)


def checkpoint(folder, iteration, best=False):
  (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
  for name in (f"model{iteration}.npz", *(["best.npz"] if best else [])):
    (folder / "checkpoints" / name).write_text(f"of {iteration}")
  (folder / "metrics.csv").write_text(f"iteration,step_seconds\n{iteration},0.5\n")


def results_file(places, row, iterations, labels, **settings):
  config = row.trainings[0].config.portable() | settings
  content = {"runs": [{"config": config, "iterations": iterations, "evaluations": []}], "results": labels}
  content["of_iterations"] = row.iterations
  places.file(row).write_text(json.dumps(content))


def test_evaluations_are_missing_until_the_results_file_has_them_of_the_newest_checkpoint(omniglot):
  places, one, five = omniglot
  assert (places.reached(one), places.missing(one), places.may_publish(one)) == (0, one.evaluations[:1], False)
  checkpoint(places.run(one, one.trainings[0]), 500)
  assert places.reached(one) == places.reached(five) == 500
  assert places.may_publish(one) and places.missing(one) == ({"eval_queries": 1},)
  results_file(places, one, 400, {"600": {"1": {}}})
  assert places.missing(one) == ({"eval_queries": 1},)
  results_file(places, one, 500, {"600": {"1": {}}})
  assert places.missing(one) == () and not places.done(one) and places.missing(five) == five.evaluations
  checkpoint(places.run(one, one.trainings[0]), 60000)
  results_file(places, one, 60000, {"600": {"1": {}}})
  assert places.missing(one) == ({"eval_tasks": 6000},)
  results_file(places, one, 60000, {"600": {"1": {}, "15": {}}, "6000": {"1": {}, "15": {}}})
  assert places.done(one) and not places.done(five)


def test_a_younger_training_does_not_replace_the_results_of_another(omniglot):
  places, one, _ = omniglot
  checkpoint(places.run(one, one.trainings[0]), 500)
  results_file(places, one, 700, {"600": {"1": {}}}, meta_batch_size=16)
  assert places.reached(one) == 500 and not places.may_publish(one)
  checkpoint(places.run(one, one.trainings[0]), 700)
  assert places.may_publish(one) and places.missing(one) == one.evaluations[:1]


def test_an_evaluation_in_the_run_directory_counts_if_it_is_of_the_newest_checkpoint(omniglot):
  places, one, five = omniglot
  training = one.trainings[0]
  run = places.run(one, training)
  checkpoint(run, 500)
  config = training.evaluated({"eval_queries": 1}).to_dict()
  content = {"training": {"iteration": 500}, "config": config, "results": {"1": {}}}
  (run / "evaluation.json").write_text(json.dumps(content))
  assert places.has(one, training, {"eval_queries": 1})
  assert not places.has(one, training, {"eval_queries": 15})
  assert not places.has(one, training, {"eval_queries": 1, "eval_tasks": 6000})
  assert not places.has(five, training, five.evaluations[0] | {"eval_queries": 1})
  checkpoint(run, 1000)
  assert not places.has(one, training, {"eval_queries": 1})


def test_the_newer_of_run_directory_and_kept_checkpoint_is_gone_on_from(omniglot):
  places, one, _ = omniglot
  training = one.trainings[0]
  run, kept = places.run(one, training), places.kept / training.name
  checkpoint(kept, 500, best=True)
  publishing.install(places, one, training)
  assert newest(run) == 500 and (run / "checkpoints" / "best.npz").read_text() == "of 500"
  checkpoint(run, 1000)
  publishing.install(places, one, training)
  assert newest(run) == 1000 and "1000" in (run / "metrics.csv").read_text()
  checkpoint(kept, 1500, best=True)
  publishing.install(places, one, training)
  assert newest(run) == 1500 and (run / "checkpoints" / "best.npz").read_text() == "of 1500"
  assert not list(run.rglob(".*"))


def test_kept_checkpoints_go_when_no_results_file_is_about_them_and_the_training_has_ended(omniglot):
  places, one, five = omniglot
  name = one.trainings[0].name
  checkpoint(places.kept / name, 500)
  checkpoint(places.kept / "another", 500)
  results_file(places, five, 500, {})
  publishing._forget(places, one, {"another"})
  assert [path.name for path in places.kept.iterdir()] == [name]  # it goes on
  checkpoint(places.run(one, one.trainings[0]), 60000)
  publishing._forget(places, one, set())
  assert (places.kept / name).exists()  # the 5-shot file is still about it
  places.file(five).unlink()
  publishing._forget(places, one, set())
  assert not (places.kept / name).exists()


def test_pace_is_read_from_the_last_whole_lines(tmp_path):
  assert pace(tmp_path, 100) is None
  (tmp_path / "metrics.csv").write_text("iteration,loss,step_seconds\n10,1.0,2.0\n20,1.0,4.0\n")
  assert pace(tmp_path, 100) == (20, 3.0, 240.0)
  with open(tmp_path / "metrics.csv", "a") as file:
    file.write("30,1")
  assert pace(tmp_path, 100) is None
  assert [queue.duration(s) for s in (12.3, 200, 7505)] == ["12s", "3m20s", "2h05m"]


# Children -------------------------------------------------------------------------------------------------------------


def child(tmp_path, code, **settings):
  (tmp_path / "script.py").write_text(code)
  return Child([tmp_path / "script.py"], tmp_path / "log", tmp_path, **settings)


def test_a_child_says_what_went_wrong_in_its_last_line(tmp_path):
  (tmp_path / "log").write_text("an older line\n")
  failed = child(tmp_path, "import sys\nprint('first')\nsys.exit('script: no such flag')")
  wait_until(failed.ended, 30)
  assert failed.error() == "script: no such flag"
  silent = child(tmp_path, "import os\nos.kill(os.getpid(), 9)")
  wait_until(silent.ended, 30)
  assert silent.error() == "killed by signal 9 (it said nothing)"


def test_a_child_that_is_stopped_may_save_and_holds_its_lock_until_then(tmp_path):
  code = (
    "import pathlib, signal, sys, time\n"
    "def save(*_):\n  time.sleep(0.5)\n  pathlib.Path('saved').touch()\n  sys.exit(143)\n"
    "signal.signal(signal.SIGTERM, save)\npathlib.Path('ready').touch()\ntime.sleep(60)\n"
  )
  with open(tmp_path / "row.lock", "a") as lock:
    fcntl.flock(lock, fcntl.LOCK_EX)
    stopped = child(tmp_path, code, locks=(lock.fileno(),))
  wait_until((tmp_path / "ready").exists, 30)
  assert is_held(tmp_path / "row.lock")
  os.kill(stopped._process.pid, signal.SIGSTOP)  # as someone does who needs the processor for a while
  stopped.stop()
  wait_until(stopped.ended, 30)
  assert (tmp_path / "saved").exists() and stopped.error() is None and not is_held(tmp_path / "row.lock")


def test_a_child_that_does_not_stop_is_killed(tmp_path, monkeypatch):
  monkeypatch.setattr("maml_tf.results.children.GRACE_SECONDS", 0.3)
  code = "import pathlib, signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
  code += "pathlib.Path('ready').touch()\ntime.sleep(60)"
  deaf = child(tmp_path, code)
  wait_until((tmp_path / "ready").exists, 30)
  deaf.stop()
  wait_until(deaf.ended, 30)
  assert deaf.error() is None


@pytest.mark.skipif(not pathlib.Path("/proc/self/autogroup").exists(), reason="nice means the same in all sessions")
def test_a_child_is_as_nice_as_its_queue_in_a_session_of_its_own(tmp_path):
  code = "import time\nfrom maml_tf.results.children import Child\n"
  code += "child = Child(['child.py'], 'log', '.')\nwhile not child.ended():\n  time.sleep(0.1)"
  (tmp_path / "child.py").write_text("print(open('/proc/self/autogroup').read())")
  subprocess.run(
    ["nice", "-n", "7", sys.executable, "-c", code], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}
  )
  assert (tmp_path / "log").read_text().split()[-2:] == ["nice", "7"]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux tells a child that its parent died")
def test_children_end_with_a_queue_that_is_killed(tmp_path):
  (tmp_path / "child.py").write_text(
    "import os, pathlib, time\npathlib.Path('pid').write_text(str(os.getpid()))\ntime.sleep(60)"
  )
  parent = subprocess.Popen(
    [
      sys.executable,
      "-c",
      "import time\nfrom maml_tf.results.children import Child\nChild(['child.py'], 'log', '.')\ntime.sleep(60)",
    ],
    cwd=tmp_path,
    env={**os.environ, "PYTHONPATH": str(ROOT)},
  )
  wait_until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text(), 30)
  pid = int((tmp_path / "pid").read_text())
  parent.kill()
  parent.wait()
  wait_until(
    lambda: not pathlib.Path(f"/proc/{pid}").exists() or "zombie" in pathlib.Path(f"/proc/{pid}/status").read_text(), 30
  )


# The page about it ----------------------------------------------------------------------------------------------------


def test_the_commands_and_the_plan_on_the_page_work(tmp_path):
  page = (ROOT / "docs" / "reproducing.md").read_text(encoding="utf-8")
  commands = re.findall(r"^python scripts/reproduce.py(.*)$", page, re.MULTILINE)
  assert len(commands) >= 6
  for flags in commands:  # with --list none of them trains
    listed = reproduce(ROOT / "results" / "plan.json", f"--logdir={tmp_path}", "--list", *flags.split(), timeout=60)
    assert listed.returncode == 0 and "priority" in listed.stdout, listed.stderr
  (tmp_path / "plan.json").write_text(re.search(r"```\n({.*?)```", page, re.DOTALL)[1])
  (row,) = plan.load(tmp_path / "plan.json")
  assert [training.config.seed for training in row.trainings] == [0, 1]
  assert set(re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE)) == set(plan.FIELDS)
