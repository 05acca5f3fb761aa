"""What a queue does when, with scripts that only pretend: a training of theirs takes a second."""

import json
import pathlib
import re
import shutil
import time

import pytest

from maml_tf.results import plan
from maml_tf.results.queue import Queue
from maml_tf.results.state import Places, newest

ROOT = pathlib.Path(__file__).parents[2]
MAIN = """
import json, pathlib, sys, time
sys.path.insert(0, {root!r})
from maml_tf.results.plan import Training
from maml_tf.results.state import newest

def value(text):
  try:
    return json.loads(text.lower())
  except ValueError:
    return text

flags = {{name: value(text) for name, text in (part[2:].split("=", 1) for part in sys.argv[1:])}}
training = Training(flags)
if flags.get("seed") == 13:
  sys.exit("main.py: --seed=13: no luck")
run = pathlib.Path(flags["logdir"]) / training.name
(run / "checkpoints").mkdir(parents=True, exist_ok=True)
(run / "config.json").write_text(json.dumps(training.config.to_dict()))
if flags.get("train", True):
  for iteration in range(newest(run) + 1, training.iterations + 1):
    time.sleep(0.02)
    (run / "checkpoints" / f"model{{iteration}}.npz").touch()
    (run / "checkpoints" / f"model{{iteration - 3}}.npz").unlink(missing_ok=True)
  (run / "saved_model").mkdir(exist_ok=True)
  (run / "saved_model" / "saved_model.pb").write_text(str(training.iterations))
content = {{"training": {{"iteration": newest(run)}}, "config": training.config.to_dict(), "results": {{}}}}
(run / "evaluation.json").write_text(json.dumps(content))
"""
COLLECT = """
import json, pathlib, sys
output, *runs = map(pathlib.Path, sys.argv[1:])
contents = [json.loads((run / "evaluation.json").read_text()) for run in runs]
entries = [{"config": c["config"], "iterations": c["training"]["iteration"]} for c in contents]
entries[0]["evaluation"] = {"wall_seconds": 0.5}
of = entries[0]["config"]["metatrain_iterations"]
output.write_text(json.dumps({"runs": entries, "of_iterations": of, "results": {}}))
"""
CHECKPOINT = """
import pathlib, shutil, sys
output, run = pathlib.Path(sys.argv[1].partition("=")[2]), pathlib.Path(sys.argv[2])
target = output / run.name
shutil.rmtree(target, ignore_errors=True)
shutil.copytree(run, target)
for path in sorted(target.glob("checkpoints/*"), key=lambda path: int(path.stem[5:]))[:-1]:
  path.unlink()
"""


@pytest.fixture
def work(tmp_path, monkeypatch):
  """A function that runs a queue over rows: (queue, places, what it said until now, rows by name)."""
  for name, budget in {
    "ENDING_SECONDS": 0.5,
    "PUBLISHING_SECONDS": 1,
    "EVALUATION_SECONDS": 1,
    "LEAST_SECONDS": 1,
  }.items():
    monkeypatch.setattr(f"maml_tf.results.queue.{name}", budget)
  monkeypatch.setattr("maml_tf.results.queue.POLL_SECONDS", 0.02)
  (tmp_path / "scripts").mkdir()
  for name, code in {"main": MAIN.format(root=str(ROOT)), "collect": COLLECT, "checkpoint": CHECKPOINT}.items():
    (tmp_path / "scripts" / f"{name}.py").write_text(code)
  # Not `results`: the tables are the repository's.
  path = tmp_path / "published" / "plan.json"
  path.parent.mkdir()
  places, said = Places(path, tmp_path / "logs", tmp_path), []

  def run(rows, chosen=None, **settings):
    path.write_text(json.dumps({"rows": [_entry(name, **row) for name, row in rows.items()]}))
    loaded = plan.load(path)
    chosen = None if chosen is None else [row for row in loaded if row.name in chosen]
    made = Queue(places, loaded, say=said.append, report_seconds=0.2, chosen=chosen, **settings)
    made.run()
    return made, places, said, {row.name: row for row in loaded}

  return run


def starts(said):
  """Names of the rows, in the order in which their trainings were started."""
  return [line.partition(":")[0] for line in said if re.search(r": training from iteration \d+$", line)]


def _entry(name, iterations=30, settings=None, **row):
  settings = {"datasource": "bandit", "metatrain_iterations": iterations, **(settings or {})}
  return {"name": name, "settings": settings, "priority": 1, "why": "a test", **row}


def test_rows_are_finished_evaluated_and_published_by_priority(work):
  made, places, said, rows = work(
    {"later": dict(priority=2, settings={"seed": 1}), "first": {"pretrained": {"folder": "bandit", "what": "a test"}}}
  )
  assert not made.failed and all(places.done(row) for row in rows.values())
  assert starts(said) == ["first", "later"]
  assert (places.root / "pretrained" / "bandit" / "saved_model.pb").read_text() == "30"
  index = json.loads((places.root / "pretrained" / "index.json").read_text())
  assert index["bandit"]["what"] == "a test" and index["bandit"]["results"] == "first.json"
  assert "--datasource=bandit --metatrain_iterations=30" in index["bandit"]["command"]
  assert not list(places.kept.glob("*"))


def test_an_initialisation_whose_export_was_cut_short_is_made_up_for(work):
  row = {"first": {"pretrained": {"folder": "bandit", "what": "a test"}}}
  _, places, said, rows = work(row)
  for folder in (places.run(rows["first"], rows["first"].trainings[0]) / "saved_model", places.root / "pretrained"):
    shutil.rmtree(folder)
  assert places.done(rows["first"])
  work(row, trains=False)
  assert starts(said) == ["first"]
  work(row)
  assert starts(said) == 2 * ["first"] and (places.root / "pretrained" / "bandit" / "saved_model.pb").exists()
  work(row)
  assert starts(said) == 2 * ["first"]


def test_a_budget_ends_a_training_and_publishes_what_it_reached(work):
  began = time.monotonic()
  _, places, said, rows = work({"long": dict(iterations=100000)}, seconds=8)
  assert time.monotonic() - began < 10
  reached = places.reached(rows["long"])
  assert 0 < reached == newest(places.kept / rows["long"].trainings[0].name) < 100000
  assert places.content(rows["long"])["runs"][0]["iterations"] == reached and not places.missing(rows["long"])
  assert any(line.startswith("long: training from iteration 0, of 100000") for line in said)
  _, places, said, rows = work({"long": dict(iterations=100000)}, seconds=6)
  assert f"long: training from iteration {reached}" in said and places.reached(rows["long"]) > reached
  assert len(list(places.kept.glob("*/checkpoints/*"))) == 1


def test_a_failing_row_is_reported_and_the_others_go_on(work):
  made, places, said, rows = work({"bad": dict(settings={"seed": 13}, priority=0), "good": {}})
  assert made.failed == {"bad": "main.py: --seed=13: no luck"}
  assert "bad: FAILED: main.py: --seed=13: no luck" in said and places.done(rows["good"])


def test_rows_beside_each_other(work):
  rows = {name: dict(iterations=100, settings={"seed": seed}) for seed, name in enumerate("abc")}
  _, places, said, rows = work(rows, parallel=2)
  assert all(places.done(row) for row in rows.values())
  first_end = next(index for index, line in enumerate(said) if "trained to" in line)
  assert starts(said[:first_end]) == ["a", "b"] and starts(said) == ["a", "b", "c"]


def test_rows_of_one_training_are_published_together_even_if_one_was_chosen(work):
  _, places, said, rows = work({"one": {}, "other": {}, "third": dict(settings={"seed": 1})}, chosen=["one"])
  assert places.done(rows["one"]) and places.done(rows["other"]) and not places.reached(rows["third"])
  assert starts(said) == ["one"]


def test_a_row_waits_for_the_one_that_it_comes_after(work):
  rows = {"then": dict(settings={"seed": 1}, after="first", priority=0), "first": {}}
  _, places, said, rows = work(rows)
  assert starts(said) == ["first", "then"] and places.done(rows["then"])


def test_without_training_it_evaluates_and_keeps_what_was_reached(work):
  row = {"long": dict(iterations=100000)}
  _, places, said, rows = work(row, trains=False)
  assert said == []
  run = places.run(rows["long"], rows["long"].trainings[0])
  (run / "checkpoints").mkdir(parents=True)
  (run / "checkpoints" / "model70.npz").touch()
  _, places, said, rows = work(row, trains=False)
  assert starts(said) == []
  assert places.content(rows["long"])["runs"][0]["iterations"] == 70
  assert newest(places.kept / run.name) == 70
  before = len(said)
  assert len(work(row, trains=False)[2]) == before  # nothing is left to do


def test_several_seeds_are_collected_when_all_have_ended(work):
  row = {"seeds": dict(seeds=[0, 1], iterations=60)}
  _, places, _, rows = work(row, seconds=4)
  assert places.content(rows["seeds"]) is None or places.done(rows["seeds"])
  _, places, _, rows = work(row)
  assert [run["iterations"] for run in places.content(rows["seeds"])["runs"]] == [60, 60]


def test_an_interrupted_queue_ends_its_children_and_publishes_nothing(work, monkeypatch):
  def interrupt(job):
    job.queue.interrupt()
    return "interrupted"

  monkeypatch.setattr("maml_tf.results.queue.Job.progress", interrupt)
  made, places, said, rows = work({"long": dict(iterations=100000), "later": dict(settings={"seed": 1})})
  assert made.interrupted and not made.failed and starts(said) == ["long"]
  assert said[-1].startswith("long: trained to iteration") and places.content(rows["long"]) is None
