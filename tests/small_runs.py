"""Small trainings that several test modules share, and the loop that is killed in `test_trainer.py`."""

import csv
import pathlib

import numpy as np

from maml_tf import MAML, models, tasks
from maml_tf.training import optimizers
from maml_tf.training.learner import SupervisedLearner
from maml_tf.training.run_directory import RunDirectory
from maml_tf.training.trainer import Schedule, Trainer

SCHEDULE = Schedule(60, log_every=10, validate_every=20, checkpoint_every=20, validation_tasks=20)


def learner(meta_lr=0.001, hidden=(8,)):
  model = models.MLP(output_dim=1, hidden=hidden, input_shape=(1,))
  return SupervisedLearner(
    MAML(model, loss="mse", inner_lr=0.01),
    train_tasks=tasks.Sinusoid(5, 5),
    meta_batch_size=4,
    optimizer=optimizers.Adam(meta_lr),
    eval_updates=2,
  )


def trainer(path, schedule=SCHEDULE, who=None, **options):
  options = {"say": lambda line: None, "tensorboard": False, "seed": 3} | options
  return Trainer(learner() if who is None else who, RunDirectory(path), schedule=schedule, **options)


def arrays(path):
  """The raw content of a checkpoint file, metadata included."""
  with np.load(path, allow_pickle=False) as archive:
    return {name: archive[name] for name in archive.files}


def rows(path, without=("step_seconds", "rollout_seconds")):
  with open(path, newline="", encoding="utf-8") as file:
    return [{k: v for k, v in row.items() if k not in without} for row in csv.DictReader(file)]


def assert_same_run(left, right, iteration):
  """Two run directories ended with the same bits; only times may differ."""
  left, right = pathlib.Path(left), pathlib.Path(right)
  for name in (f"model{iteration}.npz", "best.npz"):
    a, b = arrays(left / "checkpoints" / name), arrays(right / "checkpoints" / name)
    assert list(a) == list(b)
    for key in a:
      assert a[key].dtype == b[key].dtype, key
      assert a[key].tobytes() == b[key].tobytes(), key
  for name in ("metrics.csv", "validation.csv"):
    assert rows(left / name) == rows(right / name)
