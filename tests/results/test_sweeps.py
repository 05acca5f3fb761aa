"""Sweeps: the points of a grid, their plan, and the table with intervals over seeds."""

import json
import math
import pathlib
import subprocess
import sys

import pytest

from maml_tf.errors import UserError
from maml_tf.results import plan, sweeps

SCRIPT = pathlib.Path(__file__).parents[2] / "scripts" / "sweep.py"
SHARED = {"datasource": "sinusoid", "metatrain_iterations": 10}
GRID = {"update_lr": [0.01, 0.1], "num_updates": [1, 5]}


def test_a_grid_is_a_plan_with_a_row_for_each_point(tmp_path):
  rows = sweeps.rows(SHARED, GRID, [0, 3])
  assert [row.name for row in rows] == [
    f"update_lr_{rate}.num_updates_{steps}" for rate in (0.01, 0.1) for steps in (1, 5)
  ]
  assert rows[3].trainings[1].config.update_lr == 0.1 and rows[3].trainings[1].config.seed == 3
  assert len({training.name for row in rows for training in row.trainings}) == 8
  path = sweeps.write_plan(tmp_path, rows)
  assert [(r.name, r.settings, r.seeds) for r in plan.load(path)] == [(r.name, r.settings, r.seeds) for r in rows]
  sweeps.write_plan(tmp_path, rows)  # the same goes on
  with pytest.raises(UserError, match="there is another sweep of this name"):
    sweeps.write_plan(tmp_path, rows[:1])


@pytest.mark.parametrize(
  ("settings", "grid", "seeds", "message"),
  [
    (SHARED, {"metatrain_iterations": [1, 2]}, [0], r"metatrain_iterations=10: it is varied as well"),
    (SHARED, {"update_lr": [0.1, 0.1]}, [0], r"update_lr=0.1,0.1: expected values that differ"),
    (SHARED, GRID, [], "seed=: expected values that differ, at least one"),
    (SHARED, {"update_lr": [0.1, -1.0]}, [0], r"--update_lr=-1"),
    (SHARED, {"horizon": [5, 10]}, [0], r"--horizon=5: expected no"),
    (SHARED, {"eval_tasks": [5, 10]}, [0], "two points of the grid are the same training"),
  ],
)
def test_what_cannot_be_is_refused_before_anything_runs(settings, grid, seeds, message):
  with pytest.raises(UserError, match=message):
    sweeps.rows(settings, grid, seeds)


def test_the_table_has_the_last_step_and_students_interval(tmp_path):
  rows = sweeps.rows(SHARED, {"update_lr": [0.01, 0.1]}, [0, 1, 2])
  results = {"10": {"mean": [9, 2], "ci95": [1, 1], "of_each_seed": [[9.0, 1.0], [9.0, 2.0], [9.0, 3.0]]}}
  content = {"metric": "mean squared error after 0, 1, ... gradient steps", "results": results}
  (tmp_path / f"{rows[0].name}.json").write_text(json.dumps(content))
  done, missing = sweeps.table(tmp_path, rows)
  assert (done["mean"], done["seeds"], done["measured"]) == (2.0, 3, "mean squared error, 10")
  assert done["ci95"] == pytest.approx(4.302653 / math.sqrt(3))  # t of 2 degrees of freedom, a deviation of 1
  assert (missing["measured"], missing["mean"], missing["ci95"]) == ("not run", None, None)
  lines = sweeps.text([done, missing])
  assert lines[2] == "| update_lr_0.01 | mean squared error, 10 | 2 | ± 2.484 | 3 |"
  assert lines[3] == "| update_lr_0.1 | not run |  |  | 0 |"
  assert sweeps.interval([1.0]) is None


@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    (["--grid=speed=1,2"], "sweep.py: --speed: no such flag"),
    (["--grid=update_lr=fast"], "sweep.py: --update_lr=fast: expected a number"),
    (["--grid=update_lr=0.1", "--grid=update_lr=0.2"], "sweep.py: --grid=update_lr: it is there twice"),
  ],
)
def test_bad_flags_get_one_line(tmp_path, arguments, message):
  done = subprocess.run([sys.executable, SCRIPT, *arguments], cwd=tmp_path, capture_output=True, text=True)
  assert done.returncode == 1 and done.stderr.count("\n") == 1 and done.stderr.startswith(message), done.stderr
  assert not list(tmp_path.iterdir())
