"""CSV tables that survive a kill, and TensorBoard files."""

import os

import pytest
import tensorflow as tf
from matplotlib.figure import Figure
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
from tensorboard.compat.proto.event_pb2 import Event

from maml_tf.errors import UserError
from maml_tf.training.logging import CsvLog, TensorBoard, rewind_events


@pytest.fixture
def path(tmp_path):
  return tmp_path / "metrics.csv"


def write(path, rows):
  log = CsvLog(path)
  for iteration, values in rows:
    log.write(iteration, values)
  log.close()


def test_rows_have_one_header_and_nine_digits(path):
  write(path, [(1, {"loss": 1 / 3, "norm": 2.0}), (2, {"loss": 1e-12, "norm": float("nan")})])
  assert path.read_text() == "iteration,loss,norm\n1,0.333333333,2\n2,1e-12,nan\n"


def test_rows_are_in_the_file_at_once(path):
  log = CsvLog(path)
  log.write(1, {"loss": 1.0})
  assert path.read_text() == "iteration,loss\n1,1\n"
  log.close()


def test_reopening_appends_under_the_same_header(path):
  write(path, [(1, {"loss": 1.0})])
  write(path, [(2, {"loss": 0.5})])
  assert path.read_text() == "iteration,loss\n1,1\n2,0.5\n"


def test_rewinding_drops_later_rows_and_an_unfinished_one(path):
  path.write_text("iteration,loss\n10,1\n20,2\n30,3\n1")
  CsvLog(path).rewind(20)
  assert path.read_text() == "iteration,loss\n10,1\n20,2\n"


def test_rewinding_to_the_beginning_starts_a_fresh_table(path):
  write(path, [(1, {"loss": 1.0})])
  CsvLog(path).rewind(0)
  write(path, [(1, {"loss": 2.0, "norm": 3.0})])
  assert path.read_text() == "iteration,loss,norm\n1,2,3\n"


@pytest.mark.parametrize("content", [b"", b"iterat", b"\xff\xfe\x00garbage\n\x80,1\n", b"nonsense\n"])
def test_rewinding_a_table_that_is_none_starts_a_fresh_one(path, content):
  path.write_bytes(content)
  CsvLog(path).rewind(50)
  write(path, [(60, {"loss": 1.0})])
  assert path.read_text() == "iteration,loss\n60,1\n"


def test_rewinding_drops_lines_that_are_no_rows(path):
  path.write_bytes(b"iteration,loss\n10,1\n\nwhat,2\n-5,1\n\xff\n20,2\n")
  CsvLog(path).rewind(20)
  assert path.read_text() == "iteration,loss\n10,1\n20,2\n"


def test_rewinding_without_a_file_is_nothing(path):
  CsvLog(path).rewind(10)
  assert not path.exists()


def test_another_set_of_columns_leaves_empty_cells_rather_than_shifted_ones(path):
  write(path, [(1, {"a": 1.0, "b": 2.0})])
  write(path, [(2, {"b": 3.0}), (3, {"c": 4.0, "a": 5.0})])
  assert path.read_text() == "iteration,a,b,c\n1,1,2,\n2,,3,\n3,5,,4\n"


def test_a_folder_in_its_place_is_an_error_that_names_it(path):
  path.mkdir()
  with pytest.raises(UserError, match=r"metrics\.csv: cannot be written"):
    CsvLog(path).rewind(10)
  with pytest.raises(UserError, match=r"metrics\.csv: cannot be written"):
    CsvLog(path).write(10, {"loss": 1.0})


def test_tensorboard_has_scalars_figures_and_hyperparameters(tmp_path):
  board = TensorBoard(tmp_path / "events")
  board.hyperparameters({"meta_lr": 0.001, "norm": "None", "log": True, "update_lr": None})
  board.scalars(10, {"loss": 0.5}, "train")
  board.scalars(20, {"loss": tf.constant(0.25)}, "train")
  figure = Figure()
  figure.subplots().plot([0, 1])
  board.figure(20, "fits", figure)
  board.close()
  events = EventAccumulator(str(tmp_path / "events"), size_guidance={"tensors": 0}).Reload()
  points = events.Tensors("train/loss")
  assert [(p.step, float(tf.make_ndarray(p.tensor_proto))) for p in points] == [(10, 0.5), (20, 0.25)]
  assert [p.step for p in events.Tensors("fits")] == [20]
  assert "_hparams_/session_start_info" in events.summary_metadata


def test_tensorboard_shows_an_image_file_byte_by_byte(tmp_path):
  path = tmp_path / "video.gif"
  frames = [Image.new("RGB", (6, 4), colour) for colour in ("red", "blue")]
  frames[0].save(path, save_all=True, append_images=frames[1:])
  board = TensorBoard(tmp_path / "events")
  board.image_file(20, "final/video", path)
  board.close()
  events = EventAccumulator(str(tmp_path / "events"), size_guidance={"tensors": 0}).Reload()
  (point,) = events.Tensors("final/video")
  assert point.step == 20
  assert tf.make_ndarray(point.tensor_proto).tolist() == [b"6", b"4", path.read_bytes()]
  assert events.SummaryMetadata("final/video").plugin_data.plugin_name == "images"


def test_tensorboard_that_is_off_writes_nothing(tmp_path):
  board = TensorBoard(tmp_path / "events", enabled=False)
  board.hyperparameters({"meta_lr": 0.001})
  board.scalars(10, {"loss": 0.5}, "train")
  board.figure(20, "fits", None)
  board.flush()
  board.close()
  assert not (tmp_path / "events").exists()


def test_a_file_in_the_place_of_the_event_folder_is_an_error_that_names_it(tmp_path):
  (tmp_path / "events").write_text("a file")
  with pytest.raises(UserError, match="events: cannot be written"):
    board = TensorBoard(tmp_path / "events")
    board.scalars(1, {"loss": 1.0}, "train")
    board.flush()


def written_twice(folder, iteration):
  """Event files of a run that was killed after iteration 5, when it had gone on from `iteration`."""
  for first, last in ((0, 5), (iteration, 7)):
    rewind_events(folder, first)
    board = TensorBoard(folder)
    board.hyperparameters({"seed": 3})
    board.scalars(first, {"seconds": 1.5}, "compile")
    for i in range(first + 1, last + 1):
      board.scalars(i, {"loss": 10.0 * first + i}, "train")
      board.figure(i, "episode", Figure(figsize=(1, 1)))
    board.close()


@pytest.mark.parametrize("iteration", [0, 3])
def test_after_a_resume_tensorboard_shows_each_step_once(tmp_path, iteration):
  written_twice(tmp_path, iteration)
  shown = EventAccumulator(str(tmp_path), size_guidance={"tensors": 0}, purge_orphaned_data=False).Reload()
  multiplexer = EventMultiplexer(tensor_size_guidance={"scalars": 0, "images": 0}).AddRunsFromDirectory(str(tmp_path))
  multiplexer.Reload()
  for tensors in (shown.Tensors, lambda tag: multiplexer.Tensors(".", tag)):
    losses = {event.step: float(tf.make_ndarray(event.tensor_proto)) for event in tensors("train/loss")}
    assert [event.step for event in tensors("train/loss")] == [1, 2, 3, 4, 5, 6, 7]
    assert losses[5] == 10.0 * iteration + 5
    assert [event.step for event in tensors("episode")] == [1, 2, 3, 4, 5, 6, 7]
    assert [event.step for event in tensors("compile/seconds")] == sorted({0, iteration})
  raw = [r for path in sorted(tmp_path.iterdir()) for r in tf.data.TFRecordDataset(str(path)).as_numpy_iterator()]
  tags = [value.tag for record in raw for value in Event.FromString(record).summary.value]
  assert tags.count("_hparams_/session_start_info") == 1


def test_half_a_record_at_the_end_of_an_event_file_goes(tmp_path):
  board = TensorBoard(tmp_path)
  board.scalars(1, {"loss": 1.0}, "train")
  board.close()
  (path,) = tmp_path.iterdir()
  whole = path.read_bytes()
  path.write_bytes(whole + b"\x18\x00\x00\x00 half")
  rewind_events(tmp_path, 1)
  assert path.read_bytes() == whole
  assert list(tmp_path.iterdir()) == [path]


def test_what_is_no_event_file_is_left_alone(tmp_path):
  rewind_events(tmp_path / "none", 3)
  (tmp_path / "notes.txt").write_text("mine")
  os.mkfifo(tmp_path / "events.out.tfevents.pipe")
  rewind_events(tmp_path, 3)
  assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("content", [
  "iteration,loss\n10,nan\n20,inf\n1e400,1\n" + "9" * 5000 + ",2\n-10,3\ntrue,4\n",
  'iteration,loss\n10,nan\n20,inf\n30,"never closed\n',
])  # fmt: skip
def test_cells_of_another_kind_or_without_end_are_no_rows(path, content):
  path.write_text(content)
  log = CsvLog(path)
  log.rewind(20)
  log.write(30, {"loss": 1.0, "other": 2.0})
  log.close()
  assert path.read_text() == "iteration,loss,other\n10,nan,\n20,inf,\n30,1,2\n"


def test_a_cell_without_end_begins_the_table_anew(path):
  path.write_text("iteration,loss\n10," + "7" * 200_000 + "\n")
  log = CsvLog(path)
  log.rewind(20)
  log.write(30, {"loss": 1.0, "other": 2.0})
  log.close()
  assert path.read_text().splitlines()[-1] == "30,1,2"


def test_a_pipe_in_its_place_is_an_error_and_not_waited_on(path):
  os.mkfifo(path)
  with pytest.raises(UserError, match="not a regular file"):
    CsvLog(path).rewind(3)
