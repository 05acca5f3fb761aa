"""The notebooks in examples/ run, with tiny settings, in this process: one start of TensorFlow for all of them."""

import json

import documents
import matplotlib
import pytest

NOTEBOOKS = sorted((documents.ROOT / "examples").glob("*.ipynb"))
# In place of the cell that is tagged `parameters`.
TINY = {
  "sinusoid": "iterations = 300",
  "own_images": "iterations, filters = 4, 4",
  "own_keras_model": "iterations = 60",
  "policy": "iterations, rollouts = 3, 4",
}


def cells(path):
  return [cell for cell in json.loads(documents.read(path))["cells"] if cell["cell_type"] == "code"]


def falling(namespace):
  """Of 600 waves."""
  return namespace["losses"][5] < namespace["losses"][0]


def labelled(namespace):
  """So few iterations teach nothing; the labels are some of the five, with probabilities."""
  found = namespace["found"]
  return found.probabilities.shape == (5, 5) and set(found.labels) <= set("AFOSX")


def better_than_chance(namespace):
  maml = namespace["maml"]
  return maml.evaluate(namespace["test"], num_updates=3, num_tasks=60)["accuracy"][3].mean() > 0.5


def finite(namespace):
  return namespace["returns"].shape == (2, 40) and (namespace["returns"] < 0).all()


SHOWS = {"sinusoid": falling, "own_images": labelled, "own_keras_model": better_than_chance, "policy": finite}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  matplotlib.use("Agg")
  namespace = {"__name__": "__main__"}
  for number, cell in enumerate(cells(path)):
    is_settings = "parameters" in cell["metadata"].get("tags", ())
    source = TINY[path.stem] if is_settings else "".join(cell["source"])
    exec(compile(source, f"{path.name}, cell {number}", "exec"), namespace)
  assert SHOWS[path.stem](namespace)


def test_each_notebook_is_looked_at_and_kept_without_outputs():
  assert {path.stem for path in NOTEBOOKS} == set(TINY) == set(SHOWS)
  for path in NOTEBOOKS:
    assert sum("parameters" in cell["metadata"].get("tags", ()) for cell in cells(path)) == 1
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in cells(path))
