"""Where numbers go while a run is under way: CSV files and TensorBoard."""

import csv
import io
import pathlib

import tensorflow as tf

from maml_tf.training.checkpoints import write_atomically


class CsvLog:
  """A table with one row per logged iteration, which a resumed run continues without a gap or a repeated row."""

  def __init__(self, path):
    self.path = pathlib.Path(path)
    self._file = None

  def rewind(self, iteration):
    """Drops rows after `iteration`, and a last row that a killed process left unfinished."""
    self.close()
    if not self.path.exists():
      return
    lines = self.path.read_text(encoding="utf-8").splitlines(keepends=True)
    kept = [
      line for i, line in enumerate(lines) if line.endswith("\n") and (i == 0 or int(line.split(",")[0]) <= iteration)
    ]
    write_atomically(self.path, "".join(kept))

  def write(self, iteration, values):
    if self._file is None:
      self.path.parent.mkdir(parents=True, exist_ok=True)
      new = not self.path.exists() or self.path.stat().st_size == 0
      self._file = open(self.path, "a", newline="", encoding="utf-8")  # noqa: SIM115
      if new:
        self._line(["iteration", *values])
    self._line([iteration, *(f"{value:.9g}" for value in values.values())])

  def close(self):
    if self._file is not None:
      self._file.close()
      self._file = None

  def _line(self, cells):
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(cells)
    self._file.write(text.getvalue())
    self._file.flush()


class TensorBoard:
  """Event files of a run; with enabled=False nothing is written."""

  def __init__(self, folder, enabled=True):
    self.enabled = enabled
    self._writer = tf.summary.create_file_writer(str(folder)) if enabled else None

  def scalars(self, iteration, values, prefix):
    if self.enabled:
      with self._writer.as_default(step=iteration):
        for name, value in values.items():
          tf.summary.scalar(f"{prefix}/{name}", value)

  def figure(self, iteration, name, figure):
    """Writes a matplotlib figure as an image."""
    if self.enabled:
      buffer = io.BytesIO()
      figure.savefig(buffer, format="png", dpi=80)
      image = tf.io.decode_png(buffer.getvalue(), channels=4)[tf.newaxis]
      with self._writer.as_default(step=iteration):
        tf.summary.image(name, image)

  def hyperparameters(self, values):
    """The HParams page: plain values only."""
    if self.enabled:
      from tensorboard.plugins.hparams import api

      with self._writer.as_default(step=0):
        api.hparams({n: v if isinstance(v, (bool, int, float, str)) else str(v) for n, v in values.items()})

  def flush(self):
    if self.enabled:
      self._writer.flush()

  def close(self):
    if self.enabled:
      self._writer.close()
