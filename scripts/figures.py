"""Draws the paper's figures from run directories, and others from results files, as PNG and PDF.

python scripts/figures.py sinusoid --logdir=logs --output=results/figures
python scripts/figures.py images --output=results/figures   # learning curves
python scripts/figures.py rl --output=results/figures       # returns against steps, and 2D paths of pretrained/point
"""

import json
import pathlib
import sys

from absl import flags
from common import import_tensorflow, main_of

from maml_tf.errors import UserError

FLAGS = flags.FLAGS
flags.DEFINE_string("logdir", "logs", "folder of the run directories; sinusoid")
flags.DEFINE_string("results", "results", "folder of the results files; images and rl")
flags.DEFINE_string("output", "results/figures", "folder to write to")
flags.DEFINE_integer("seed", 0, "seed of the runs to draw; sinusoid")

FORMATS = ("png", "pdf")
POINT = pathlib.Path(__file__).parents[1] / "pretrained" / "point"
SINUSOID_COMMANDS = {
  "maml": "python scripts/main.py --datasource=sinusoid",
  "pretrain": "python scripts/main.py --datasource=sinusoid --baseline=pretrain",
  "oracle": "python scripts/main.py --datasource=sinusoid --baseline=oracle",
  "random": "python scripts/main.py --datasource=sinusoid --baseline=random",
}
# A panel for each: its title, and a label for each results file.
LEARNING_CURVES = {
  "Omniglot, 5-way 1-shot": {"omniglot_5way_1shot": "convolutional"},
  "Omniglot, 5-way 1-shot, no convolutions": {"omniglot_fc_5way_1shot": "fully connected"},
  "Omniglot, 20-way 1-shot": {
    "omniglot_20way_1shot_sum": "sum over classes",
    "omniglot_20way_1shot_mean": "mean over classes",
  },
  "miniImageNet, 5-way 1-shot": {"miniimagenet_5way_1shot": "convolutional"},
}


def find_runs(datasource, commands):
  """Method -> (run directory, its results), the newest of each method with the seed asked for."""
  folder = pathlib.Path(FLAGS.logdir)
  if not folder.is_dir():
    raise UserError(f"--logdir={folder}: no such folder; a training run makes it")
  runs = {}
  for path in sorted(folder.glob("*/results.json"), key=lambda path: path.stat().st_mtime):
    if ".old-" in path.parent.name:
      continue  # put aside by --resume=False
    try:
      results = json.loads(path.read_text(encoding="utf-8"))
      matches = results["datasource"] == datasource and results["seed"] == FLAGS.seed
      matches = matches and results["config"]["init_from"] is None  # somebody else's initialisation, only evaluated
      if matches and results["method"] in commands:
        runs[results["method"]] = (path.parent, results)
    except (ValueError, KeyError, TypeError) as error:
      raise UserError(f"{path}: not a results file of this package ({error!r}); remove it or the folder") from error
  missing = [f"{command} --logdir={folder} --seed={FLAGS.seed}" for m, command in commands.items() if m not in runs]
  if missing:
    raise UserError(f"--logdir={folder}: a run with seed {FLAGS.seed} is missing; make it with: {'; '.join(missing)}")
  return runs


def sinusoid():
  """Figure 2 (fits of MAML and of the pretrained network) and figure 3 (error against gradient steps)."""
  runs = find_runs("sinusoid", SINUSOID_COMMANDS)
  import_tensorflow()
  from maml_tf import export
  from maml_tf.experiments import figures
  from maml_tf.experiments.config import resolve
  from maml_tf.experiments.domains.sinusoid import plots as sinusoid_plots
  from maml_tf.experiments.domains.sinusoid.experiment import SinusoidExperiment

  fitted = {}
  for method in ("maml", "pretrain"):
    directory, content = runs[method]
    experiment = SinusoidExperiment(resolve(**content["config"]))
    weights, _ = export.load_initialization(directory / "saved_model", experiment.model.weight_shapes)
    fitted[method] = (experiment, weights, {int(k): r["inner_lr"] for k, r in content["results"].items()})
  drawn = {
    "sinusoid_figure_2": sinusoid_plots.figure_2(fitted),
    "sinusoid_figure_3": sinusoid_plots.mse_against_steps({m: content["results"] for m, (_, content) in runs.items()}),
  }
  for directory, _ in runs.values():
    print(f"from  {directory}")
  for path in figures.save_all(drawn, FLAGS.output, FORMATS):
    print(f"wrote {path}")


def images():
  """Learning curves, from the results files that are there."""
  panels = {title: panel for title, files in LEARNING_CURVES.items() if (panel := learning_curve(files)) is not None}
  if not panels:
    raise UserError(f"--results={FLAGS.results}: no results file of images here; scripts/collect.py makes them")
  import_tensorflow()
  from maml_tf.experiments import figures
  from maml_tf.experiments.domains.images import plots as image_plots

  for path in figures.save_all({"image_learning_curves": image_plots.learning_curves(panels)}, FLAGS.output, FORMATS):
    print(f"wrote {path}")


def learning_curve(files):
  """A panel: validation accuracy after the step at which the paper reads the test accuracy, and that in meta-training.

  None without a file.
  """
  paths = {label: pathlib.Path(FLAGS.results) / f"{name}.json" for name, label in files.items()}
  contents = {label: json.loads(path.read_text(encoding="utf-8")) for label, path in paths.items() if path.exists()}
  if not contents:
    return None
  curves = {}
  for label, content in contents.items():
    found = content["runs"][0]["learning_curve"]
    reached = f"{label}, {content['iterations']:,} of {content['of_iterations']:,}"
    names = {"validation": f"accuracy/step_{content['published']['step']}", "training": "query_accuracy/"}
    curves[reached] = {part: points(found[part], name) for part, name in names.items()}
  return {
    "curves": curves,
    "published": content["published"]["accuracy"],
    "iterations": max(iterations[-1] for curve in curves.values() for iterations, _ in curve.values() if iterations),
  }


def points(curve, name):
  """(iterations, values) of the metric whose name begins so; both empty where there is none yet."""
  values = next((values for metric, values in curve.items() if metric.startswith(name)), [])
  return curve["iteration"][: len(values)], values


def rl():
  """Returns against gradient steps beside the published curves, a panel for each task; and 2D paths."""
  found = {}
  for path in sorted(pathlib.Path(FLAGS.results).glob("rl_*.json")):
    content = json.loads(path.read_text(encoding="utf-8"))
    found.setdefault(content["datasource"], {})[content["method"]] = {"return": content["results"]}
  if not found:
    raise UserError(f"--results={FLAGS.results}: no results file of policies here; scripts/collect.py makes them")
  import_tensorflow()
  from maml_tf.experiments import figures
  from maml_tf.experiments.domains.policies import plots as rl_plots

  drawn = {"rl_returns": rl_plots.returns_of_tasks(found)}
  if POINT.is_dir():
    drawn["rl_point_trajectories"] = point_trajectories()
  for path in figures.save_all(drawn, FLAGS.output, FORMATS):
    print(f"wrote {path}")


def point_trajectories():
  """2D paths before and after one step, of the initialisation in pretrained/."""
  from maml_tf import export
  from maml_tf.experiments.config import resolve
  from maml_tf.experiments.domains.policies import plots as rl_plots
  from maml_tf.experiments.domains.policies.experiment import ReinforcementExperiment

  experiment = ReinforcementExperiment(resolve("point", seed=FLAGS.seed))
  weights, _ = export.load_initialization(POINT, experiment.model.weight_shapes)
  return rl_plots.trajectories(experiment.paths(weights, num_goals=4))


FIGURES = {"sinusoid": sinusoid, "images": images, "rl": rl}


def draw(arguments):
  if len(arguments) != 1 or arguments[0] not in FIGURES:
    raise UserError(f"expected one argument of {', '.join(FIGURES)}, got {' '.join(arguments) or 'none'}")
  FIGURES[arguments[0]]()


if __name__ == "__main__":
  sys.exit(main_of(draw, __doc__))
