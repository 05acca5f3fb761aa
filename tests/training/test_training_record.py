"""training.json: what commands trained, and files of another kind in its place."""

import json
import os

import pytest

from maml_tf.training import training_record
from maml_tf.training.run_directory import RunDirectory

DONE = {"iteration": 60, "resumed_from": 0, "seconds": 2.0, "compile_seconds": 1.0, "validation_seconds": 0.5}


@pytest.fixture
def directory(tmp_path):
  return RunDirectory(tmp_path)


def test_commands_add_up(directory):
  training_record.add_start(directory, 0, "first", "abc")
  training_record.add(directory, DONE, "first")
  training_record.add_start(directory, 60, "second", None)
  record = training_record.add(directory, DONE | {"iteration": 100, "resumed_from": 60}, "second")
  assert record == training_record.read(directory.training) == {
    "iteration": 100, "seconds": 4.0, "compile_seconds": 2.0, "validation_seconds": 1.0, "timed_iterations": 100,
    "iterations_per_second": 25.0, "commands": ["first", "second"],
    "starts": [
      {"iteration": 0, "command": "first", "commit": "abc"}, {"iteration": 60, "command": "second", "commit": None},
    ],
  }  # fmt: skip


def test_an_evaluation_changes_nothing(directory):
  training_record.add(directory, DONE, "first")
  before = directory.training.read_text()
  record = training_record.add(directory, {"iteration": 60, "evaluated_iteration": 40}, "evaluation")
  assert (record["evaluated_iteration"], record["commands"]) == (40, ["first"])
  assert directory.training.read_text() == before


@pytest.mark.parametrize("content", [
  "", "{", "[]", "7", "null", "[" * 100_000, '{"seconds": "many"}', '{"seconds": Infinity}', '{"seconds": NaN}',
  '{"seconds": -1}', '{"seconds": 1e400}', '{"seconds": [1]}', '{"seconds": true}', '{"seconds": ' + "9" * 400 + "}",
  '{"timed_iterations": "60"}', '{"commands": 7}', '{"commands": "text"}', '{"commands": [1, {}]}', '{"starts": 7}',
  '{"starts": {"a": 1}}', '{"starts": [1, "a", null]}', '{"iterations_per_second": []}', '{"compile_seconds": {}}',
])  # fmt: skip
def test_fields_of_another_kind_count_as_missing(directory, content):
  directory.training.write_text(content)
  training_record.add_start(directory, 0, "first", "abc")
  record = training_record.add(directory, DONE, "first")
  assert (record["seconds"], record["timed_iterations"], record["commands"]) == (2.0, 60, ["first"])
  assert len(record["starts"]) == 1
  assert json.loads(directory.training.read_text()) == record


def test_a_pipe_or_a_folder_in_its_place_is_not_waited_on(tmp_path):
  os.mkfifo(tmp_path / "training.json")
  assert training_record.read(tmp_path / "training.json") == {}
  assert training_record.read(tmp_path) == {}
