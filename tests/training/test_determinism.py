"""The same bits on two threads, in every process and after a kill, at the sizes of the domains' presets."""

import shutil
import subprocess
import sys

import preset_runs
import pytest
import small_runs


def train(folder, domains):
  command = [sys.executable, preset_runs.__file__, str(folder), *domains]
  done = subprocess.run(command, capture_output=True, text=True)
  assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def runs(tmp_path_factory, request):
  """Folders of a whole run of each domain, and of one that another process went on with from the first checkpoint."""
  chosen = {item.callspec.params["domain"] for item in request.session.items if item.path == request.path}
  domains = [domain for domain in preset_runs.LEARNERS if domain in chosen]
  whole, resumed = tmp_path_factory.mktemp("whole"), tmp_path_factory.mktemp("resumed")
  train(whole, domains)
  for domain in domains:
    kept = resumed / domain / "checkpoints"
    kept.mkdir(parents=True)
    oldest = min((whole / domain / "checkpoints").glob("model*.npz"), key=lambda file: int(file.stem[5:]))
    shutil.copy(oldest, kept)
    for table in ("metrics.csv", "validation.csv"):
      shutil.copy(whole / domain / table, resumed / domain)
  train(resumed, domains)
  return whole, resumed


@pytest.mark.parametrize("domain", preset_runs.LEARNERS)
def test_another_process_that_goes_on_from_a_checkpoint_ends_with_the_same_bits(runs, domain):
  whole, resumed = runs
  small_runs.assert_same_run(whole / domain, resumed / domain, preset_runs.ITERATIONS[domain])
