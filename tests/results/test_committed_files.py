"""What is committed under results/ and pretrained/ can be used, and says how it was made."""

import json
import pathlib

ROOT = pathlib.Path(__file__).parents[2]


def test_results_files_of_images_say_how_they_were_made():
  """Every one has its published figure, its commands, and what an unfinished training goes on from."""
  files = [path for path in sorted((ROOT / "results").glob("*.json")) if path.name.startswith(("omniglot", "mini"))]
  for path in files:
    content = json.loads(path.read_text(encoding="utf-8"))
    assert content["published"]["accuracy"] > 0.4, path
    for run in content["runs"]:
      assert all(evaluation["command"] and evaluation["commit"] for evaluation in run["evaluations"]), path
      if run["iterations"] < run["of_iterations"]:
        assert (ROOT / run["checkpoint"] / "checkpoints" / f"model{run['iterations']}.npz").is_file(), path
        assert run["checkpoint"] in run["continue_command"]


def test_committed_checkpoints_are_small_and_of_a_run_that_the_package_would_find():
  from maml_tf.experiments import run
  from maml_tf.experiments.config import from_record

  for folder in (ROOT / "results" / "checkpoints").glob("*/"):
    config = from_record(json.loads((folder / "config.json").read_text(encoding="utf-8")))
    assert run.run_directory(config).path.name == folder.name
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) < 2e6, folder


def test_pretrained_initialisations_can_be_used():
  """Each is of the network that its own settings make, and small."""
  from maml_tf import export, models
  from maml_tf.experiments.config import from_record
  from maml_tf.experiments.domains.images import experiment as images
  from maml_tf.experiments.domains.policies.experiment import PolicyExperiment

  for path in (ROOT / "pretrained").glob("*/saved_model.pb"):
    folder = path.parent
    weights, metadata = export.load_initialization(folder)
    config = from_record(metadata["config"])
    if config.domain.name == "policies":
      model = PolicyExperiment(config).model
    else:
      model = images.make_model(config) if config.domain.name == "images" else models.MLP()
    assert {name: tuple(w.shape) for name, w in weights.items()} == model.weight_shapes
    assert sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) < 1e6, folder
