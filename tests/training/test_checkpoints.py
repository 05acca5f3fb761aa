"""Checkpoint files: whole or not there, and never mistaken for what they are not."""

import json
import os

import numpy as np
import pytest
import tensorflow as tf

from maml_tf import regular_files
from maml_tf.errors import UserError
from maml_tf.training import checkpoints
from maml_tf.training.checkpoints import CheckpointFolder, DamagedCheckpointError


def make_state(value=1.0):
  return {
    "weights": {"layer/kernel": tf.fill([2, 3], value), "layer/bias": tf.zeros([3])},
    "optimizer": {"first": {"layer/kernel": tf.ones([2, 3])}, "step": tf.constant(7)},
  }


def meta(iteration, **more):
  return {"iteration": iteration, "best": None, "config": {}, **more}


def assert_equal(left, right):
  tf.nest.assert_same_structure(left, right)
  tf.nest.map_structure(lambda a, b: np.testing.assert_array_equal(a, b), left, right)


@pytest.fixture
def folder(tmp_path):
  warnings = []
  folder = CheckpointFolder(tmp_path / "checkpoints", warn=warnings.append)
  folder.warnings = warnings
  return folder


def damage(path, size=100):
  path.write_bytes(path.read_bytes()[:size])


def test_round_trip_keeps_values_dtypes_and_metadata(tmp_path):
  checkpoints.write(tmp_path / "c.npz", make_state(), meta(3, best={"iteration": 2, "score": -0.5}))
  state, metadata = checkpoints.read(tmp_path / "c.npz")
  assert_equal(state, make_state())
  assert state["optimizer"]["step"].dtype == tf.int32
  assert metadata["iteration"] == 3
  assert metadata["best"] == {"iteration": 2, "score": -0.5}
  assert metadata["format_version"] == checkpoints.FORMAT_VERSION


@pytest.mark.parametrize("name", ["kernel:0", "100%", "%3A", "a/b:c%25", "über"])
def test_names_with_separators_survive(tmp_path, name):
  checkpoints.write(tmp_path / "c.npz", {"weights": {name: tf.ones([1])}}, meta(1))
  assert list(checkpoints.read(tmp_path / "c.npz")[0]["weights"]) == [name]


def test_the_template_decides_the_order_and_keeps_empty_groups(tmp_path):
  checkpoints.write(tmp_path / "c.npz", {"weights": {"b": tf.ones([]), "a": tf.ones([])}}, meta(1))
  like = {"slots": {}, "weights": {"a": tf.zeros([]), "b": tf.zeros([])}}
  state, _ = checkpoints.read(tmp_path / "c.npz", like)
  assert list(state) == ["slots", "weights"]
  assert list(state["weights"]) == ["a", "b"]


def _without(state, name):
  return {**state, "weights": {n: w for n, w in state["weights"].items() if n != name}}


@pytest.mark.parametrize(
  ("foreign", "named"),
  [
    (lambda s: _without(s, "layer/bias"), "weights/layer/bias"),
    (lambda s: {**s, "weights": {**s["weights"], "extra": tf.ones([])}}, "weights/extra"),
    (lambda s: {**s, "weights": {**s["weights"], "layer/bias": tf.ones([4])}}, "weights/layer/bias"),
    (lambda s: {**s, "weights": {**s["weights"], "layer/bias": tf.zeros([3], tf.float64)}}, "float64"),
    (lambda s: {**s, "weights": tf.ones([])}, "weights"),
    (lambda s: {**s, "optimizer": {**s["optimizer"], "step": {"x": tf.ones([])}}}, "optimizer/step"),
  ],
)
def test_a_foreign_structure_is_refused_by_name_and_not_skipped(folder, foreign, named):
  folder.save(make_state(), meta(1))
  folder.save(foreign(make_state()), meta(2))
  with pytest.raises(UserError, match=named) as error:
    folder.load(like=make_state())
  assert "model2.npz" in str(error.value)
  assert not isinstance(error.value, DamagedCheckpointError)


def test_every_truncation_and_every_flipped_byte_is_noticed(tmp_path):
  path = tmp_path / "c.npz"
  checkpoints.write(path, make_state(), meta(1))
  whole = path.read_bytes()
  expected, _ = checkpoints.read(path)
  for size in range(0, len(whole), 7):
    path.write_bytes(whole[:size])
    with pytest.raises(DamagedCheckpointError, match=r"c\.npz"):
      checkpoints.read(path)
  for index in range(0, len(whole), 3):
    path.write_bytes(whole[:index] + bytes([whole[index] ^ 0xFF]) + whole[index + 1 :])
    try:
      state, _ = checkpoints.read(path)
    except UserError as error:
      assert "\n" not in str(error)
    else:  # a byte that means nothing, a date say
      assert_equal(state, expected)


@pytest.mark.parametrize("content", [b"", b"not a zip", b"PK\x03\x04" + b"\0" * 100])
def test_files_of_another_kind_are_damaged_checkpoints(tmp_path, content):
  (tmp_path / "c.npz").write_bytes(content)
  with pytest.raises(DamagedCheckpointError):
    checkpoints.read(tmp_path / "c.npz")


def test_an_archive_without_metadata_is_a_damaged_checkpoint(tmp_path):
  np.savez(tmp_path / "c.npz", a=np.ones(3))
  with pytest.raises(DamagedCheckpointError):
    checkpoints.read(tmp_path / "c.npz")


def test_a_newer_format_stops_rather_than_falls_back(folder):
  folder.save(make_state(), meta(1))
  folder.save(make_state(), meta(2, format_version=checkpoints.FORMAT_VERSION + 1))
  with pytest.raises(UserError, match="format version"):
    folder.load()


def test_pruning_keeps_the_newest_three_and_the_best(folder):
  for iteration in (5, 10, 15, 100, 20):
    folder.save(make_state(iteration), meta(iteration))
    if iteration == 10:
      folder.save_best(make_state(iteration), meta(iteration))
  assert folder.iterations() == [15, 20, 100]
  assert checkpoints.read(folder.best_path)[1]["iteration"] == 10


def test_nothing_saved_loads_as_none(folder):
  assert folder.iterations() == []
  assert folder.load() is None


def test_one_iteration_can_be_loaded_the_best_one_too(folder):
  folder.save_best(make_state(1.0), meta(1))
  for iteration in (2, 3, 4, 5):
    folder.save(make_state(float(iteration)), meta(iteration))
  assert folder.load(4)[1]["iteration"] == 4
  assert folder.load(1)[1]["iteration"] == 1


def test_a_missing_iteration_is_named_with_those_that_there_are(folder):
  folder.save(make_state(), meta(5))
  folder.save_best(make_state(), meta(2))
  with pytest.raises(UserError, match=r"iteration=3: .*\(there: 2, 5\)"):
    folder.load(3)
  with pytest.raises(UserError, match="there: none"):
    CheckpointFolder(folder.folder / "nothing").load(3)


def test_a_damaged_file_asked_for_by_name_is_not_replaced_by_another(folder):
  for iteration in (1, 2):
    folder.save(make_state(), meta(iteration))
  damage(folder.folder / "model2.npz")
  with pytest.raises(DamagedCheckpointError, match=r"model2\.npz"):
    folder.load(2)


def test_damage_falls_back_to_the_previous_one_and_says_so(folder):
  for iteration in (1, 2, 3):
    folder.save(make_state(float(iteration)), meta(iteration))
  damage(folder.folder / "model3.npz")
  damage(folder.folder / "model2.npz", 0)
  assert folder.load()[1]["iteration"] == 1
  assert len(folder.warnings) == 2
  assert "model3.npz" in folder.warnings[0]
  assert "model2.npz" in folder.warnings[0]  # what comes next
  assert "model1.npz" in folder.warnings[1]


def test_the_best_is_the_last_to_fall_back_to(folder):
  folder.save_best(make_state(1.0), meta(1))
  folder.save(make_state(2.0), meta(2))
  damage(folder.folder / "model2.npz")
  assert folder.load()[1]["iteration"] == 1


def test_all_damaged_is_an_error_that_names_the_folder(folder):
  folder.save(make_state(), meta(1))
  folder.save_best(make_state(), meta(1))
  damage(folder.folder / "model1.npz")
  damage(folder.best_path)
  with pytest.raises(UserError, match="every checkpoint is damaged") as error:
    folder.load()
  assert str(folder.folder) in str(error.value)


def test_rewinding_sets_damaged_files_aside_so_that_pruning_spares_the_good_ones(folder):
  for iteration in (4, 5, 6):
    folder.save(make_state(), meta(iteration))
    damage(folder.folder / f"model{iteration}.npz")
  folder.rewind(3)
  folder.save(make_state(), meta(3))
  assert folder.iterations() == [3]
  assert sorted(p.name for p in folder.folder.glob("*.damaged")) == [f"model{i}.npz.damaged" for i in (4, 5, 6)]


def test_other_files_do_not_count_as_checkpoints(folder):
  folder.save(make_state(), meta(2))
  for name in (".model3.npz.tmp123", "model4.npz.tmp", "model.npz", "modelx.npz", "notes.txt"):
    (folder.folder / name).write_text("half")
  assert folder.iterations() == [2]
  assert folder.load()[1]["iteration"] == 2


def test_a_failing_write_leaves_the_old_file_and_no_temporary_one(tmp_path, monkeypatch):
  path = tmp_path / "results.json"
  checkpoints.write_atomically(path, "old")

  def full(_):
    raise OSError(28, "No space left on device")

  monkeypatch.setattr(os, "fsync", full)
  with pytest.raises(UserError, match="No space left") as error:
    checkpoints.write_atomically(path, "new")
  assert str(path) in str(error.value)
  assert path.read_text() == "old"
  assert os.listdir(tmp_path) == ["results.json"]


def test_a_folder_in_the_place_of_a_file_is_an_error_that_names_it(tmp_path):
  (tmp_path / "results.json").mkdir()
  with pytest.raises(UserError, match=r"results\.json: cannot be written"):
    checkpoints.write_atomically(tmp_path / "results.json", "new")
  assert os.listdir(tmp_path) == ["results.json"]


def test_metadata_is_readable_without_this_package(tmp_path):
  checkpoints.write(tmp_path / "c.npz", make_state(), meta(9))
  with np.load(tmp_path / "c.npz", allow_pickle=False) as archive:
    assert json.loads(str(archive["__metadata__"]))["iteration"] == 9
    assert archive["weights:layer/kernel"].shape == (2, 3)


@pytest.mark.parametrize(("field", "value"), [
  ("format_version", '"1"'), ("format_version", "NaN"), ("format_version", "true"), ("format_version", "[1]"),
  ("iteration", '"7"'), ("iteration", "-1"), ("iteration", "1e400"), ("iteration", "null"), ("iteration", "9" * 30),
  ("iteration", "9" * 5000), ("tensors", "{}"), ("tensors", "Infinity"),
])  # fmt: skip
def test_metadata_of_another_type_is_a_damaged_checkpoint(tmp_path, field, value):
  path = tmp_path / "model7.npz"
  fields = {"format_version": "1", "iteration": "7", "tensors": "1"} | {field: value}
  text = "{" + ", ".join(f'"{n}": {v}' for n, v in fields.items()) + "}"
  np.savez(path, __metadata__=np.array(text), w=np.zeros(2))
  with pytest.raises(checkpoints.DamagedCheckpointError, match=r"model7\.npz: damaged checkpoint"):
    checkpoints.read(path)


@pytest.mark.parametrize("text", ["[" * 100_000, "[]", "7", '"text"', ""])
def test_metadata_that_is_no_table_is_a_damaged_checkpoint(tmp_path, text):
  np.savez(tmp_path / "model7.npz", __metadata__=np.array(text), w=np.zeros(2))
  with pytest.raises(checkpoints.DamagedCheckpointError):
    checkpoints.read(tmp_path / "model7.npz")


def test_a_pipe_in_the_place_of_a_checkpoint_is_damaged_and_not_waited_on(tmp_path):
  os.mkfifo(tmp_path / "model7.npz")
  with pytest.raises(checkpoints.DamagedCheckpointError, match="not a regular file"):
    checkpoints.read(tmp_path / "model7.npz")


def test_files_without_end_are_not_read_to_it(tmp_path):
  path = tmp_path / "large"
  path.write_bytes(b"x" * 11)
  assert regular_files.read_regular(path, limit=11) == b"x" * 11
  with pytest.raises(OSError, match="larger"):
    regular_files.read_regular(path, limit=10)
