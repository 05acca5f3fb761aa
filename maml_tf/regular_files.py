"""Reading files that may be anything: a pipe is not waited on, and what is endless is not read to its end."""

import contextlib
import json
import os
import stat


@contextlib.contextmanager
def opened(path):
  """`path` for reading bytes: a regular file, since a pipe would be waited on for ever.

  Raises:
    OSError: it cannot be opened, or is none.
  """
  with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
      raise OSError(None, "not a regular file", str(path))
    yield file


def read_regular(path, limit=2**28):
  """The bytes of a regular file of at most `limit` of them.

  Raises:
    OSError: as `opened`, or it is larger.
  """
  with opened(path) as file:
    data = file.read(limit + 1)
  if len(data) > limit:
    raise OSError(None, f"larger than {limit >> 20} MiB, which no file of this kind is", str(path))
  return data


def read_table(path):
  """The content of a JSON file that is an object, a dict.

  Raises:
    OSError: as `read_regular`.
    ValueError: it is no JSON, or no object.
  """
  try:
    content = json.loads(read_regular(path).decode("utf-8"))
  except RecursionError as error:
    raise ValueError("nested without end") from error
  if not isinstance(content, dict):
    raise ValueError(f"it holds {type(content).__name__}, an object is expected")
  return content
