"""A handful of the campaign's cases. Its long form is `python -m tests.faults` (CONTRIBUTING.md).

Kills in the middle of a run are in test_trainer.py and test_main.py, two writers in test_run_directory.py.
"""

import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parent))

import campaign
import damage
import subjects


@pytest.fixture(scope="module")
def cases(tmp_path_factory):
  made = {}

  def case(name):
    if name not in made:
      made[name] = campaign.Case(subjects.SUBJECTS[name](), tmp_path_factory.mktemp(name))
    return made[name]

  return case


@pytest.mark.parametrize(
  ("subject", "file", "kind"),
  [
    ("training", "checkpoints/model20.npz", "flip_a_bit"),
    ("training", "checkpoints/model10.npz", "folder_instead"),
    ("training", "metrics.csv", "repeat"),
    ("online", "checkpoints/model20.npz", "truncate"),
    ("image_cache", None, "zero_a_page"),
    ("saved_model", "saved_model/variables/variables.data-00000-of-00001", "flip_a_bit"),
    ("queue", "results/plan.json", "pipe_instead"),
    ("queue", "results/waves.json", "other_json"),
    ("queue", "results/waves.json", "truncate"),
  ],
)
def test_damage_is_mended_or_said_in_one_line(cases, subject, file, kind):
  case = cases(subject)
  assert case.damaged(file or case.files()[0], kind) is None


def test_a_full_disk_is_said_and_afterwards_it_goes_on(cases):
  assert campaign.full_disk(cases("training"), 2000) is None


def test_the_campaign_notices_what_is_wrong(cases, monkeypatch):
  case = cases("saved_model")
  name = "saved_model/variables/variables.index"
  monkeypatch.setattr(case.subject, "use", lambda folder: (folder / name).read_bytes())
  assert case.damaged(name, "flip_a_bit") == "silently another result"
  assert "FileNotFoundError" in case.damaged(name, "remove")


def test_every_kind_of_damage_changes_a_file(tmp_path):
  for kind, function in damage.KINDS.items():
    path = tmp_path / kind
    path.write_bytes(bytes(range(1, 200)))
    function(path, damage.generator(kind))
    assert not path.is_file() or path.read_bytes() != bytes(range(1, 200)), kind
