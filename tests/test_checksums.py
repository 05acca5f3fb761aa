"""Checksums of folders: whatever happens to a file is noticed, and nothing hangs."""

import hashlib
import json
import os
import pathlib

import pytest

from maml_tf import checksums

PRETRAINED = pathlib.Path(__file__).parents[1] / "pretrained"


@pytest.fixture
def folder(tmp_path):
  (tmp_path / "inside").mkdir()
  (tmp_path / "one").write_bytes(bytes(range(256)) * 5000)  # more than one chunk
  (tmp_path / "inside" / "two").write_bytes(b"abc")
  (tmp_path / "empty").write_bytes(b"")
  checksums.write(tmp_path)
  return tmp_path


def test_they_are_sha256(folder):
  assert json.loads((folder / checksums.NAME).read_text()) == {
    "empty": hashlib.sha256(b"").hexdigest(),
    # FIPS 180-2, appendix B.1
    "inside/two": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
    "one": hashlib.sha256(bytes(range(256)) * 5000).hexdigest(),
  }
  assert checksums.problem(folder / "inside", required=False) is None  # it has no checksums of its own


def test_an_unchanged_folder_has_no_problem_and_later_files_do_not_count(folder):
  (folder / "later").write_text("new")
  assert checksums.problem(folder) is None
  checksums.write(folder)
  assert checksums.problem(folder) is None
  assert sorted(os.listdir(folder)) == ["checksums.json", "empty", "inside", "later", "one"]


def flip(path):
  content = bytearray(path.read_bytes())
  content[len(content) // 2] ^= 1
  path.write_bytes(content)


def pipe(path):
  path.unlink()
  os.mkfifo(path)


def folder_instead(path):
  path.unlink()
  path.mkdir()


@pytest.mark.parametrize(("change", "message"), [
  (flip, "one is not what was written"),
  (lambda path: path.write_bytes(path.read_bytes()[:-1]), "one is not what was written"),
  (lambda path: path.write_bytes(b""), "one is not what was written"),
  (lambda path: os.replace(path.parent / "inside" / "two", path), "inside/two cannot be read (No such file or direct"),
  (os.remove, "one cannot be read (No such file or directory)"),
  (pipe, "one cannot be read (not a regular file)"),
  (folder_instead, "one cannot be read (not a regular file)"),
], ids=["flipped bit", "truncated", "emptied", "another's", "missing", "pipe", "folder"])  # fmt: skip
def test_what_happened_to_a_file_is_said(folder, change, message):
  change(folder / "one")
  assert checksums.problem(folder).startswith(message)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b'{"one": 1}', b"\xff", b"null", 100_000 * b"["])
def test_damaged_checksums_are_a_problem_too(folder, content):
  (folder / checksums.NAME).write_bytes(content)
  assert checksums.problem(folder).startswith("checksums.json cannot be read (")


def test_no_checksums_or_a_pipe_in_their_place_is_a_problem(folder):
  pipe(folder / checksums.NAME)
  for required in (True, False):
    assert checksums.problem(folder, required) == "checksums.json cannot be read (not a regular file)"
  (folder / checksums.NAME).unlink()
  assert checksums.problem(folder, required=False) is None
  assert checksums.problem(folder) == "checksums.json cannot be read (No such file or directory)"
  os.mkfifo(folder / "inside" / "pipe")
  assert checksums.problem(folder, required=False) == "inside/pipe cannot be read (not a regular file)"


@pytest.mark.parametrize("path", sorted(PRETRAINED.glob("*/saved_model.pb")), ids=lambda path: path.parent.name)
def test_the_committed_saved_models_are_what_was_written(path):
  assert checksums.problem(path.parent, required=False) is None
