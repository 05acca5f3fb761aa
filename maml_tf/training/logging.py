"""Where numbers go while a run is under way: CSV files and TensorBoard."""

import contextlib
import csv
import io
import pathlib

import tensorflow as tf

from maml_tf.regular_files import read_regular
from maml_tf.training.checkpoints import temporary_name, write_atomically, writing


class CsvLog:
  """A table with one row per logged iteration, which a resumed run continues without a gap or a repeated row."""

  def __init__(self, path):
    self.path = pathlib.Path(path)
    self._file = None
    self._columns = []

  def rewind(self, iteration):
    """Drops rows after `iteration`, and whatever a killed process left that is no row.

    Returns:
      How many rows were damaged, and are dropped too: not of numbers, or out of order.
    """
    self.close()
    with writing(self.path):
      if not self.path.exists():
        return 0
      lines = read_regular(self.path).decode(errors="replace").splitlines(keepends=True)
    header = [line for line in lines[:1] if line.startswith("iteration") and line.endswith("\n")]
    rows, damaged, before = [], 0, 0
    for line in (line for line in lines[1:] if line.endswith("\n")):
      number = _iteration_of(line)
      whole = number is not None and number > before and _is_row(line, header)
      damaged += not whole
      if whole and number <= iteration:
        rows.append(line)
      before = number if whole else before
    write_atomically(self.path, "".join(header + rows if header else []))
    return damaged

  def write(self, iteration, values):
    """Appends a row; a new column, or one that is missing, leaves empty cells rather than shifted ones."""
    with writing(self.path):
      if self._file is None or not set(values) <= set(self._columns):
        self._open(values)
      cells = {name: f"{value:.9g}" for name, value in values.items()}
      self._file.write(_row([iteration, *(cells.get(name, "") for name in self._columns)]))
      self._file.flush()

  def close(self):
    if self._file is not None:
      with writing(self.path):
        self._file.close()
      self._file = None

  def _open(self, values):
    """Opens the file for appending, with a column for each value; an older file gets the columns that it lacks."""
    self.close()
    rows = []
    if self.path.exists():
      text = read_regular(self.path).decode("utf-8", errors="replace").replace("\0", "")
      with contextlib.suppress(csv.Error):  # a cell of endless length: the table begins anew
        rows = [row for row in csv.DictReader(io.StringIO(text, newline="")) if _is_iteration(row.get("iteration"))]
        self._columns = [name for name in (rows[0] if rows else []) if name not in (None, "iteration")]
    added = [name for name in values if name not in self._columns]
    if added:
      self._columns += added
      lines = [[row["iteration"], *(row.get(name) or "" for name in self._columns)] for row in rows]
      write_atomically(self.path, "".join(map(_row, [["iteration", *self._columns], *lines])))
    self._file = open(self.path, "a", newline="", encoding="utf-8")  # noqa: SIM115


def rewind_events(folder, iteration):
  """Drops from a run's event files what training from `iteration` writes again, so that TensorBoard shows it once.

  That is what belongs to later iterations, and what a start writes: hyperparameters, and the time of compiling. What a
  killed process left at the end of a file that is no record goes too.
  """
  for path in sorted(pathlib.Path(folder).glob("*tfevents*")) if pathlib.Path(folder).is_dir() else []:
    with writing(path):
      if not path.is_file():
        continue
      records, whole = _records(path)
      kept = [record for record in records if _before(record, iteration)]
      if whole and len(kept) == len(records):
        continue
      temporary = temporary_name(path)
      try:
        with tf.io.TFRecordWriter(str(temporary)) as writer:
          for record in kept:
            writer.write(record)
        temporary.replace(path)
      finally:
        temporary.unlink(missing_ok=True)


def _records(path):
  """(the records of an event file, whether they are all of it)."""
  records = []
  with contextlib.suppress(tf.errors.OpError):  # damaged from here on
    for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
      records.append(record)
  # Each has 8 bytes of length and two checksums of 4.
  return records, sum(16 + len(record) for record in records) == path.stat().st_size


def _before(record, iteration):
  """Whether an event is of what was trained before `iteration`, or at it."""
  from google.protobuf.message import DecodeError
  from tensorboard.compat.proto.event_pb2 import Event

  try:
    event = Event.FromString(record)
  except DecodeError:
    return False
  if not event.HasField("summary"):
    return event.step <= iteration
  tags = [value.tag for value in event.summary.value]
  if any(tag.startswith("_hparams_/") for tag in tags):
    return False
  return event.step < iteration + (not any(tag.startswith("compile/") for tag in tags))


class TensorBoard:
  """Event files of a run; with enabled=False nothing is written."""

  def __init__(self, folder, enabled=True):
    self.enabled = enabled
    self._folder = folder
    with writing(folder):
      self._writer = tf.summary.create_file_writer(str(folder)) if enabled else None

  def scalars(self, iteration, values, prefix):
    """One record for all of them: `tf.summary.scalar` costs half a millisecond each, as much as a meta-iteration."""
    if self.enabled:
      from tensorboard.compat.proto.summary_pb2 import Summary
      from tensorboard.plugins.scalar.summary import scalar_pb

      record = Summary()
      for name, value in values.items():
        record.MergeFrom(scalar_pb(f"{prefix}/{name}", value))
      with writing(self._folder), self._writer.as_default():
        tf.summary.experimental.write_raw_pb(record.SerializeToString(), step=iteration)

  def figure(self, iteration, name, figure):
    """Writes a matplotlib figure as an image."""
    if self.enabled:
      buffer = io.BytesIO()
      figure.savefig(buffer, format="png", dpi=80)
      self._image(iteration, name, buffer.getvalue())

  def image_file(self, iteration, name, path):
    """Writes a PNG or GIF file, a `pathlib.Path`, as it is; browsers play the latter."""
    if self.enabled:
      self._image(iteration, name, path.read_bytes())

  def _image(self, iteration, name, encoded):
    """As `tf.summary.image`, of bytes that are a PNG or GIF already."""
    from PIL import Image
    from tensorboard.plugins.image import metadata

    with Image.open(io.BytesIO(encoded)) as image:
      size = [str(pixels).encode() for pixels in image.size]
    described = metadata.create_summary_metadata(display_name=None, description=None)
    with writing(self._folder), self._writer.as_default():
      tf.summary.write(name, tf.constant([*size, encoded]), step=iteration, metadata=described)

  def hyperparameters(self, values):
    """The HParams page: plain values only."""
    if self.enabled:
      from tensorboard.plugins.hparams import api

      with writing(self._folder), self._writer.as_default(step=0):
        api.hparams({n: v if isinstance(v, (bool, int, float, str)) else str(v) for n, v in values.items()})

  def flush(self):
    if self.enabled:
      with writing(self._folder):
        self._writer.flush()

  def close(self):
    if self.enabled:
      with writing(self._folder):
        self._writer.close()


def _row(cells):
  text = io.StringIO()
  csv.writer(text, lineterminator="\n").writerow(cells)
  return text.getvalue()


def _is_row(line, header):
  """Whether a line has a number, or nothing, in each of the header's columns."""
  cells = line.rstrip("\n").split(",")
  if not header or len(cells) != len(header[0].split(",")):
    return False
  with contextlib.suppress(ValueError):
    return [float(cell) for cell in cells if cell] != []
  return False


def _iteration_of(line):
  number = line.partition(",")[0]
  return int(number) if _is_iteration(number) else None


def _is_iteration(cell):
  return isinstance(cell, str) and cell.isascii() and cell.isdigit() and len(cell) < 11
