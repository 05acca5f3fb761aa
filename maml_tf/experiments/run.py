"""Runs one experiment from its config: train, evaluate, export, report. `scripts/main.py` and a notebook call it."""

import contextlib
import dataclasses
import hashlib
import pathlib
import re
import time

import numpy as np
import tensorflow as tf

from maml_tf import export
from maml_tf.errors import DivergedError, UserError
from maml_tf.experiments import provenance
from maml_tf.experiments.config import run_name, train_command, with_flags
from maml_tf.experiments.settings import SETTINGS
from maml_tf.training import training_record
from maml_tf.training.checkpoints import CheckpointFolder, read, writing
from maml_tf.training.logging import TensorBoard
from maml_tf.training.run_directory import RunDirectory
from maml_tf.training.trainer import Trainer

RESULTS_FORMAT_VERSION = 1


def run(config, command=None, say=print):
  """Trains (unless config.train is False), evaluates and exports.

  Args:
    config: `Config`.
    command: the command line, kept in the results.
    say: function of one line of text.

  Returns:
    The content of the file of results that it writes, with "directory" added: results.json, or evaluation.json where
    that of the training is there already and this only evaluates.

  Raises:
    UserError: something that the user can mend.
  """
  return with_flags(_run_and_close, config, command, say)


def _run_and_close(config, command, say):
  began = time.perf_counter()
  experiment = config.domain.load()(config)
  try:
    return _run(config, experiment, command, say, began)
  finally:
    experiment.close()


def _run(config, experiment, command, say, began):
  initial, fingerprint = _initial_weights(config, experiment, say)
  directory = run_directory(config, fingerprint, experiment.data_fingerprint())
  # Both before the lock: nothing is created where there is nothing to evaluate, or to train on.
  if not config.train and _evaluates_checkpoint(config):
    _require_checkpoint(directory)
  with _failures_explained():
    experiment.load_data()
  for line in experiment.data_summary():
    say(line)
  with directory.locked(), _failures_explained():
    initial = _prepare(config, initial, directory, command, say)
    learner = experiment.learner(initial)
    if config.train:
      state, training = _train(config, experiment, learner, directory, command, say)
    else:
      state, training = _load(config, experiment, learner, directory, say)
    learned = _iterations_done(training) > 0
    training = training_record.add(directory, training, command)
    if config.train and _chooses_best(config, experiment):
      state, training["evaluated_iteration"] = _load_best(learner, config, directory, say)
    with np.errstate(all="ignore"):  # a table with inf or nan in it says enough
      results = experiment.evaluate_state(state)
    report = experiment.report(results)
    content = {
      **_settings_of_results(config),
      "results": results,
      "training": training,
      "command": command,
      **provenance.describe(),
      "config": config.to_dict(),
      "wall_seconds": time.perf_counter() - began,
    }
    path = _results_path(config, directory)
    directory.write_json(path, content)
    if config.export and config.train:
      with writing(directory.saved_model):
        learner = experiment.learner(initial, inner_lr=experiment.inner_lr(results))
        export.save(learner, state, directory.saved_model)
    with writing(directory.plots):
      plots = experiment.plots(state["weights"], results, directory.plots)
    if config.log and (learned or config.render):
      _show_in_tensorboard("final" if learned else "evaluation", directory, training, plots, report)
  for line in ["", *report.lines(), "", *_written(config, directory, path, training, plots)]:
    say(line)
  return {**content, "directory": str(directory.path)}


def _show_in_tensorboard(group, directory, training, plots, report):
  """What a training ended with, or an evaluation: its numbers, and the plots by the names of their files."""
  board = TensorBoard(directory.events)
  iteration = training.get("evaluated_iteration", training["iteration"])
  board.scalars(iteration, report.final(), group)  # and so a column of the HParams page
  for path in map(pathlib.Path, plots):
    if path.suffix in (".png", ".gif"):
      board.image_file(iteration, f"{group}/{path.stem}", path)
  board.close()


def _results_path(config, directory):
  """An evaluation, with whatever other settings, never replaces the results that a training ended with."""
  return directory.results if config.train or not directory.results.exists() else directory.evaluation


def _iterations_done(training):
  """Meta-iterations of this command; 0 for an evaluation, which resumes nothing."""
  return training["iteration"] - training.get("resumed_from", training["iteration"])


def run_directory(config, init_fingerprint=None, data_fingerprint=None):
  """The `RunDirectory` of a config; the fingerprints are those of `config.run_name`."""
  return RunDirectory(pathlib.Path(config.logdir) / run_name(config, init_fingerprint, data_fingerprint))


def _initial_weights(config, experiment, say):
  """(weights of --init_from or None, a hash of them or None)."""
  if config.init_from is None:
    return None, None
  fresh, optional = experiment.fresh_weights()
  expected = {name: tuple(value.shape) for name, value in fresh.items() if name not in optional}
  try:
    weights, metadata = export.load_initialization(
      config.init_from, expected, {name: tuple(fresh[name].shape) for name in optional}
    )
  except UserError as error:
    raise UserError(f"--init_from={error}") from error
  missing = [name for name in optional if name not in weights]
  if missing and not config.train:
    raise UserError(
      f"--init_from={config.init_from}: it has no {missing[0]}, which these settings evaluate with "
      f"({train_command(config)}); it was trained with other settings: name those"
    )
  weights |= {name: fresh[name] for name in missing}
  if not config.train:
    _say_differences(config, metadata.get("config", {}), say)
  digest = hashlib.sha256()
  for name, value in weights.items():
    digest.update(name.encode() + value.numpy().tobytes())
  return weights, digest.hexdigest()[:16]


def _say_differences(config, trained, say):
  """Names the settings of an artefact's training that shape adaptation and that the evaluation does not share."""
  for name in (s.name for s in SETTINGS.values() if s.topic in ("method", "network") and config.applies(s.name)):
    there, here = trained.get(name), getattr(config, name)
    if there is not None and there != here and name != "num_updates":
      say(f"--init_from={config.init_from} was trained with --{name}={there}, and is evaluated with --{name}={here}")


def _settings_of_results(config):
  shared = {
    "format_version": RESULTS_FORMAT_VERSION,
    "datasource": config.datasource,
    "method": config.method,
    "seed": config.seed,
  }
  if not config.applies("eval_tasks"):
    return shared
  return shared | {
    "split": "test" if config.test_set else "validation",
    "tasks": config.eval_tasks,
    "queries": config.eval_queries or config.update_batch_size,
  }


def _evaluates_checkpoint(config):
  return config.init_from is None and config.description.trains


def _prepare(config, initial, directory, command, say):
  """Readies the directory for training; returns the weights to start from (None: fresh ones)."""
  if not config.train:
    return initial
  if not config.resume:
    aside = directory.put_aside()
    if aside is not None:
      say(f"--resume=False: the older run was put aside, in {aside}")
  _refuse_shorter(config, directory)
  if directory.saved_model.is_file():
    raise UserError(f"{directory.saved_model}: this is a file where the run writes a folder; move it away")
  directory.write_json(directory.config, config.to_dict())
  return _pretrained_weights(config, initial, directory, command, say) if config.pretrains_first else initial


def _refuse_shorter(config, directory):
  """Results of a longer training must not pass for those of a shorter one."""
  there = CheckpointFolder(directory.checkpoints).iterations()
  if there and there[-1] > config.iterations:
    name = "metatrain_iterations" if config.metatrain_iterations else "pretrain_iterations"
    raise UserError(
      f"--{name}={getattr(config, name)}: the run in {directory.path} is already at iteration {there[-1]}; "
      "--train=False evaluates it, --resume=False puts it aside and starts anew, more iterations continue it"
    )


def _train(config, experiment, learner, directory, command, say):
  if not config.description.trains:
    return learner.initial_state(config.seed), {"iteration": 0}
  learner.check_tasks()
  say(f"training {config.method} for {config.iterations} iterations in {directory.path}")
  trainer = Trainer(
    learner,
    directory,
    config.seed,
    experiment.schedule(),
    config=config.portable(),
    jit_compile=config.jit_compile,
    tensorboard=config.log,
    on_start=lambda iteration: training_record.add_start(directory, iteration, command, provenance.commit()),
    on_validation=experiment.on_validation() if config.log else None,
    on_interrupt=lambda info: training_record.add(directory, info, command),
    say=say,
    hyperparameters=_hyperparameters(config),
  )
  return trainer.train()


def _hyperparameters(config):
  """What shapes this training: the settings that apply."""
  shaping = {name: getattr(config, name) for name, s in SETTINGS.items() if s.hashed and config.applies(name)}
  return {"method": config.method, **shaping}


def _chooses_best(config, experiment):
  """Whether the best checkpoint by validation is evaluated, rather than the newest."""
  return experiment.evaluates_best and _evaluates_checkpoint(config) and config.test_iter <= 0


def _load_best(learner, config, directory, say):
  """(state of the best checkpoint by validation, its iteration); the newest where none was validated yet."""
  folder = CheckpointFolder(directory.checkpoints, warn=say)
  initial = learner.initial_state(config.seed)
  there = folder.best_path.exists()
  state, metadata = read(folder.best_path, initial) if there else folder.load(like=initial)
  which = "the best on validation tasks" if there else "the newest, since none was validated"
  say(f"evaluating the checkpoint of iteration {metadata['iteration']}, {which}")
  return state, metadata["iteration"]


def _load(config, experiment, learner, directory, say):
  """The state to evaluate: a checkpoint's, or the initialisation of --init_from."""
  initial = learner.initial_state(config.seed)
  if not _evaluates_checkpoint(config):
    return initial, {"iteration": 0, "init_from": config.init_from}
  folder = CheckpointFolder(directory.checkpoints, warn=say)
  if _chooses_best(config, experiment) and folder.best_path.exists():
    state, best = _load_best(learner, config, directory, say)
    return state, {"iteration": (folder.iterations() or [best])[-1], "evaluated_iteration": best}
  loaded = folder.load(config.test_iter if config.test_iter > 0 else None, like=initial)
  if loaded is None:
    _require_checkpoint(directory)
  state, metadata = loaded
  say(f"evaluating {config.method} after {metadata['iteration']} iterations, from {folder.folder}")
  return state, {"iteration": metadata["iteration"]}


def _require_checkpoint(directory):
  folder = CheckpointFolder(directory.checkpoints)
  if not folder.iterations() and not folder.best_path.exists():
    raise UserError(
      f"--train=False: there is no checkpoint in {folder.folder}; train first, with the same flags without "
      "--train=False (--train_update_batch_size and --train_update_lr name settings of the training that differ)"
    )


def _pretrained_weights(config, initial, directory, command, say):
  """The weights of the pretraining that comes before meta-training: a run of its own, inside this one."""
  stage = dataclasses.replace(config, metatrain_iterations=0, update_lr=None)
  experiment = config.domain.load()(stage)
  state, _ = _train(stage, experiment, experiment.learner(initial), directory.pretraining, command, say)
  return state["weights"]


@contextlib.contextmanager
def _failures_explained():
  try:
    yield
  except (tf.errors.ResourceExhaustedError, MemoryError) as error:
    raise UserError(
      "out of memory; fewer tasks at a time (--task_chunk) and --checkpoint_inner_steps need less and give the same, "
      "smaller tasks (--meta_batch_size, --update_batch_size, --eval_queries, --num_updates) need less as well; "
      "of policies, --meta_batch_size, --rollouts_per_task and --hvp_subsample"
    ) from error
  except DivergedError as error:
    raise DivergedError(f"{error} (--update_lr; --meta_lr, with TRPO --max_kl)") from error
  except tf.errors.OpError as error:
    said = re.search(r"UserError: ([^\n]+)", error.message)  # by Python code inside of the graph: a simulator
    if said is None:
      raise
    raise UserError(said[1]) from error


def _written(config, directory, path, training, plots):
  lines = []
  rate = training.get("iterations_per_second")
  if rate and config.train:
    lines.append(
      f"{training['iteration']} iterations, {rate:.{0 if rate >= 10 else 1}f} per second, {training['seconds']:.0f} s"
    )
  lines.append(f"results       {path}")
  lines += [f"plot          {path}" for path in plots]
  if config.train and config.description.trains:
    lines.append(f"metrics       {directory.metrics}")
    if config.log:
      lines.append(f"TensorBoard   tensorboard --logdir={directory.events}")
  if config.export and config.train:
    lines.append(f"SavedModel    {directory.saved_model}")
  return lines
