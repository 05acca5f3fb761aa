"""Runs one experiment from its config: train, evaluate, export, report. `scripts/main.py` and a notebook call it."""

import dataclasses
import hashlib
import pathlib
import time

from maml_tf import export
from maml_tf.errors import UserError
from maml_tf.experiments import provenance
from maml_tf.experiments.config import readable_name, training_settings
from maml_tf.experiments.sinusoid import SinusoidExperiment
from maml_tf.training.checkpoints import CheckpointFolder
from maml_tf.training.run_directory import RunDirectory, name_of
from maml_tf.training.trainer import Trainer

EXPERIMENTS = {"sinusoid": SinusoidExperiment}
RESULTS_FORMAT_VERSION = 1


def run(config, command=None, say=print):
  """Trains (unless config.train is False), evaluates and exports.

  Args:
    config: `Config`.
    command: the command line, kept in the results.
    say: function of one line of text.

  Returns:
    The content of the run directory's results.json, with "directory" added.

  Raises:
    UserError: something that the user can mend.
  """
  began = time.perf_counter()
  experiment = EXPERIMENTS[config.datasource](config)
  initial, fingerprint = _initial_weights(config, experiment)
  directory = run_directory(config, fingerprint)
  with directory.locked():
    if config.train and not config.resume:
      aside = directory.put_aside()
      if aside is not None:
        say(f"--resume=False: the older run was put aside, in {aside}")
    if config.train and config.pretrains_first:
      initial = _pretrained_weights(config, say)
    learner = experiment.learner(initial)
    if config.train:
      directory.write_json(directory.config, config.to_dict())
      state, training = _train(config, experiment, learner, directory, say)
    else:
      state, training = _load(config, learner, directory)
    results = experiment.evaluate(state["weights"])
    content = {
      "format_version": RESULTS_FORMAT_VERSION,
      "datasource": config.datasource,
      "method": config.method,
      "seed": config.seed,
      "split": "test" if config.test_set else "validation",
      "tasks": config.eval_tasks,
      "queries": config.eval_queries,
      "results": results,
      "training": training,
      "command": command,
      **provenance.describe(),
      "config": config.to_dict(),
      "wall_seconds": time.perf_counter() - began,
    }
    directory.write_json(directory.results, content)
    plots = experiment.plots(state["weights"], results, directory.plots)
    if config.export and config.train:
      rate = results[str(config.update_batch_size)]["inner_lr"]
      export.save(experiment.learner(initial, inner_lr=rate), state, directory.saved_model)
  for line in ["", *experiment.table(results), "", *_written(config, directory, training, plots)]:
    say(line)
  return {**content, "directory": str(directory.path)}


def run_directory(config, fingerprint=None):
  """The `RunDirectory` of a config."""
  name = name_of(readable_name(config), training_settings(config, fingerprint))
  return RunDirectory(pathlib.Path(config.logdir) / name)


def _initial_weights(config, experiment):
  """(weights of --init_from or None, a hash of them or None)."""
  if config.init_from is None:
    return None, None
  try:
    weights, _ = export.load_initialization(config.init_from, experiment.model.weight_shapes)
  except UserError as error:
    raise UserError(f"--init_from={error}") from error
  digest = hashlib.sha256()
  for name, value in weights.items():
    digest.update(name.encode() + value.numpy().tobytes())
  return weights, digest.hexdigest()[:16]


def _train(config, experiment, learner, directory, say):
  if config.method == "random":
    return learner.initial_state(config.seed), {"iteration": 0}
  say(f"training {config.method} for {config.iterations} iterations in {directory.path}")
  trainer = Trainer(
    learner,
    directory,
    config.seed,
    experiment.schedule(),
    config=config.to_dict(),
    jit_compile=config.jit_compile,
    tensorboard=config.log,
    on_validation=experiment.on_validation() if config.log else None,
    say=say,
  )
  return trainer.train()


def _load(config, learner, directory):
  """The state to evaluate: a checkpoint's, or the initialisation of --init_from."""
  if config.init_from is not None or config.method == "random":
    return learner.initial_state(config.seed), {"iteration": 0, "init_from": config.init_from}
  folder = CheckpointFolder(directory.checkpoints)
  loaded = folder.load(config.test_iter if config.test_iter > 0 else None)
  if loaded is None:
    raise UserError(
      f"--train=False: there is no checkpoint in {folder.folder}; train first, with the same flags without --train"
    )
  state, metadata = loaded
  return state, {"iteration": metadata["iteration"]}


def _pretrained_weights(config, say):
  """The weights of the pretraining that comes before meta-training: a run of its own, trained once."""
  stage = dataclasses.replace(config, baseline="None", metatrain_iterations=0)
  experiment = EXPERIMENTS[config.datasource](stage)
  directory = run_directory(stage)
  with directory.locked():
    state, _ = _train(stage, experiment, experiment.learner(), directory, say)
  return state["weights"]


def _written(config, directory, training, plots):
  lines = []
  rate = training.get("iterations_per_second")
  if rate:
    lines.append(f"{training['iteration']} iterations, {rate:.0f} per second, {training['seconds']:.0f} s")
  lines.append(f"results       {directory.results}")
  lines += [f"plot          {path}" for path in plots]
  if config.train and config.method != "random":
    lines.append(f"metrics       {directory.metrics}")
    if config.log:
      lines.append(f"TensorBoard   tensorboard --logdir={directory.events}")
  if config.export and config.train:
    lines.append(f"SavedModel    {directory.saved_model}")
  return lines
