"""CSV tables that survive a kill, and TensorBoard files."""

import pytest
import tensorflow as tf
from matplotlib.figure import Figure
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from maml_tf.errors import UserError
from maml_tf.training.logging import CsvLog, TensorBoard


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
