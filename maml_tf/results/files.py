"""Files of runs and of results: read with errors that name them, written whole and without the machine's folders."""

import csv
import io
import json
import re

from maml_tf.errors import UserError
from maml_tf.regular_files import read_regular, read_table
from maml_tf.results.commands import without_paths


def read_json(path, hint="name run directories that main.py made"):
  """The content of a JSON file.

  Args:
    path: the file.
    hint: what to do where it is not there.

  Raises:
    UserError: it is not there, or damaged.
  """
  try:
    return read_table(path)
  except OSError as error:
    raise UserError(f"{path}: {error.strerror}; {hint}") from error
  except ValueError as error:
    raise UserError(f"{path}: damaged ({error})") from error


def write_results(path, content):
  """Writes a results file, each list of numbers on one line, whole or not at all."""
  from maml_tf.training.checkpoints import write_atomically

  write_atomically(path, _compact(json.dumps(without_paths(content), indent=1)) + "\n")


def rows_until(path, iterations):
  """The rows of a log up to the checkpoint: a run that was killed may have logged more."""
  if not path.exists():
    return []
  try:
    text = read_regular(path).decode("utf-8")
    table = csv.DictReader(io.StringIO(text, newline=""))
    rows = [{name: float(value) for name, value in row.items() if value} for row in table]
    return [row for row in rows if row["iteration"] <= iterations]
  except (KeyError, OSError, TypeError, ValueError, csv.Error) as error:
    raise UserError(f"{path}: damaged ({error}); train on, which drops what is no row") from error


def _compact(text):
  """Puts each list of numbers on one line."""
  return re.sub(r"\[[-+.\de,\s]+\]", lambda match: f"[{' '.join(match[0][1:-1].split())}]", text)
