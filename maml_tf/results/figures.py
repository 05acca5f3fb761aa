"""The paper's figures from run directories, and others from results files."""

import pathlib

from maml_tf.errors import UserError
from maml_tf.experiments.config import from_record, resolve
from maml_tf.regular_files import read_table
from maml_tf.results import descriptions, published
from maml_tf.results.commands import command_for
from maml_tf.results.files import read_json
from maml_tf.results.store import ResultsFile

FIGURE_2 = ("maml", "pretrain")
FIGURE_3 = (*FIGURE_2, "oracle", "random")


def newest_runs(datasource, methods, logdir, seed):
  """Method -> (run directory, its results): the newest of each method with a seed.

  Args:
    datasource: its name.
    methods: the methods that there must be; others that there are come too.
    logdir: folder of run directories.
    seed: of the runs.

  Raises:
    UserError: one is missing, with the command that makes it; or damaged.
  """
  folder = pathlib.Path(logdir)
  if not folder.is_dir():
    raise UserError(f"logdir={folder}: no such folder; a training run makes it")
  runs = {}
  for path in sorted(folder.glob("*/results.json"), key=lambda path: path.stat().st_mtime):
    if ".old-" in path.parent.name:
      continue  # put aside by resume=False
    try:
      results = read_table(path)
      matches = results["datasource"] == datasource and results["seed"] == seed
      if matches and results["config"]["init_from"] is None:  # else somebody else's initialisation, only evaluated
        runs[results["method"]] = (path.parent, results)
    except (OSError, ValueError, KeyError, TypeError) as error:
      raise UserError(f"{path}: not a results file of this package ({error!r}); remove it or the folder") from error
  missing = [
    f"{command_for(datasource, method)} --logdir={folder} --seed={seed}" for method in methods if method not in runs
  ]
  if missing:
    raise UserError(f"logdir={folder}: a run with seed {seed} is missing; make it with: {'; '.join(missing)}")
  return runs


def sinusoid(runs):
  """Figure 2 (fits of MAML and of the pretrained network) and figure 3 (error against gradient steps).

  Args:
    runs: of `newest_runs`.

  Returns:
    Name -> figure.
  """
  from maml_tf import export
  from maml_tf.experiments.domains.sinusoid import plots
  from maml_tf.experiments.domains.sinusoid.experiment import SinusoidExperiment

  fitted = {}
  for method in FIGURE_2:
    directory, content = runs[method]
    experiment = SinusoidExperiment(from_record(content["config"]))
    weights, _ = export.load_initialization(directory / "saved_model", experiment.model.weight_shapes)
    fitted[method] = (experiment, weights, {int(k): r["inner_lr"] for k, r in content["results"].items()})
  return {
    "sinusoid_figure_2": plots.figure_2(fitted),
    "sinusoid_figure_3": plots.mse_against_steps({m: content["results"] for m, (_, content) in runs.items()}),
  }


def images(results):
  """Learning curves of the results files of images that were trained here, a panel for each task and network.

  Args:
    results: folder of results files.

  Returns:
    Name -> figure.

  Raises:
    UserError: there is none.
  """
  from maml_tf.experiments.domains.images import plots

  files = [f for f in _files(results) if f.domain == "images" and f.content["iterations"] and _of_its_training(f)]
  if not files:
    raise UserError(f"results={results}: no results file of images here; scripts/collect.py makes them")
  panels = {}
  for file in sorted(files, key=_order):
    panels.setdefault(_panel_of(file), []).append(file)
  return {"image_learning_curves": plots.learning_curves({title: _curves(panel) for title, panel in panels.items()})}


def _files(results):
  contents = {path: read_json(path) for path in sorted(pathlib.Path(results).glob("*.json"))}
  return [ResultsFile(path, content) for path, content in contents.items() if "runs" in content]


def _of_its_training(file):
  """Not of one with other shots, whose learning curve is that of another file."""
  return file.content["shots"] == file.config.training_shots


def _order(file):
  """Data sets and tasks as the paper lists them, then the rest."""
  order = [(cell.datasource, cell.ways, cell.shots, cell.conv) for cell in published.accuracies()]
  key = (file.config.datasource, file.config.num_classes, file.content["shots"], file.config.conv)
  return order.index(key) if key in order else len(order), *key, file.rank, file.label


def _panel_of(file):
  config = file.config
  title = f"{descriptions.data_set(config.datasource)}, {config.num_classes}-way {file.content['shots']}-shot"
  return title if config.conv else f"{title}, no convolutions"


def _curves(files):
  """A panel: validation accuracy after the step at which the paper reads the test accuracy, and in meta-training."""
  curves, printed = {}, [f.content["published"] for f in files if f.content["published"] is not None]
  step = printed[0]["step"] if printed else None
  for file in files:
    found, content = file.content["runs"][0]["learning_curve"], file.content
    label = file.label.replace("`", "")
    reached = f"{label}, {content['iterations']:,} of {content['of_iterations']:,}"
    curves[reached] = {
      "validation": points(found["validation"], "accuracy/step_", step),
      "training": points(found["training"], "query_accuracy/"),
    }
  return {
    "curves": curves,
    "published": printed[0]["accuracy"] if printed else None,
    "iterations": max(iterations[-1] for curve in curves.values() for iterations, _ in curve.values() if iterations),
  }


def points(curve, beginning, step=None):
  """(iterations, values) of the metric whose name begins so, after that step or, where it has none, the last one.

  Both are empty where there is none yet.
  """
  named = [values for name, values in curve.items() if name.startswith(beginning)]
  values = curve.get(f"{beginning}{step}", named[-1] if named else [])
  return curve["iteration"][: len(values)], values


def policies(results, initialization=None, seed=0):
  """Returns against gradient steps beside the published curves, a panel for each task; and 2D paths.

  Args:
    results: folder of results files.
    initialization: SavedModel of a policy for 2D navigation whose paths are drawn; None: none are.
    seed: of the goals of these paths.

  Returns:
    Name -> figure.

  Raises:
    UserError: there is no results file of policies.
  """
  from maml_tf.experiments.domains.policies import plots

  found = {}
  for file in _files(results):
    if file.domain == "policies":
      found.setdefault(file.content["datasource"], {})[file.content["method"]] = {"return": file.content["results"]}
  if not found:
    raise UserError(f"results={results}: no results file of policies here; scripts/collect.py makes them")
  drawn = {"rl_returns": plots.returns_of_tasks(found)}
  if initialization is not None:
    drawn["rl_point_trajectories"] = _trajectories(initialization, seed)
  return drawn


def online(results):
  """The paper's curves by task, and the regret of quadratics, of the results files there are; a curve for each file.

  Args:
    results: folder of results files.

  Returns:
    Name -> figure.

  Raises:
    UserError: there is none.
  """
  from maml_tf.experiments.domains.online import plots

  files = [file for file in _files(results) if file.domain == "online"]
  if not files:
    raise UserError(f"results={results}: no results file of streams here; scripts/collect.py makes them")
  found = {}
  for file in files:
    label = file.label.replace("`", "")
    if sum(other.label == file.label and _stream_of(other) == _stream_of(file) for other in files) > 1:
      label += f" ({file.path.stem})"
    curve = plots.Curve(label, file.content["method"], [run["results"] for run in file.content["runs"]])
    found.setdefault(_stream_of(file), []).append(curve)
  regret = {"online_regret": plots.regret(found.pop("quadratics"))} if "quadratics" in found else {}
  return {name: plots.of_images(curves) for name, curves in found.items()} | regret


def _stream_of(file):
  """What has a figure of its own: the datasource, and whose images where there are several."""
  config = file.config
  return f"{config.datasource}_{config.images}" if config.applies("images") else config.datasource


def _trajectories(initialization, seed):
  """2D paths before and after one step."""
  from maml_tf import export
  from maml_tf.experiments.domains.policies import plots
  from maml_tf.experiments.domains.policies.experiment import PolicyExperiment

  experiment = PolicyExperiment(resolve("point", seed=seed))
  weights, _ = export.load_initialization(initialization, experiment.model.weight_shapes)
  return plots.trajectories(experiment.paths(weights, num_goals=4))
