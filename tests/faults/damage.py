"""What disks, copies and half-finished writes do to a file."""

import os
import random


def flip_a_bit(path, rng):
  content = bytearray(path.read_bytes())
  if content:
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
  path.write_bytes(content)


def truncate(path, rng):
  os.truncate(path, rng.randrange(max(1, path.stat().st_size)))


def zero_a_page(path, rng):
  content = bytearray(path.read_bytes())
  first = rng.randrange(max(1, len(content)))
  content[first : first + 512] = bytes(len(content[first : first + 512]))
  path.write_bytes(content)


def empty(path, rng):
  path.write_bytes(b"")


def other_json(path, rng):
  """Well-formed, and of another kind than anybody expects."""
  path.write_text(rng.choice(["[]", "null", "1", '"text"', "{}", '{"iteration": []}', 100_000 * "["]))


def repeat(path, rng):
  """A part of it twice."""
  content = path.read_bytes()
  first = rng.randrange(max(1, len(content)))
  path.write_bytes(content[:first] + content[first // 2 :])


def remove(path, rng):
  path.unlink()


def pipe_instead(path, rng):
  path.unlink()
  os.mkfifo(path)


def folder_instead(path, rng):
  path.unlink()
  path.mkdir()


KINDS = {
  function.__name__: function
  for function in (
    flip_a_bit, truncate, zero_a_page, empty, other_json, repeat, remove, pipe_instead, folder_instead
  )
}  # fmt: skip


def generator(*names):
  """A `random.Random` of its own for each case, so that a case can be repeated by itself."""
  return random.Random("/".join(map(str, names)))
