"""A signal while a command validates, evaluates, exports or decodes: acknowledged, nothing half-written, no loss."""

import contextlib
import io
import os
import signal

import numpy as np
import pytest

from maml_tf import export
from maml_tf.datasets import image_bank, image_folder
from maml_tf.experiments import command_line
from maml_tf.experiments.domains.sinusoid.experiment import SinusoidExperiment
from maml_tf.training import interrupts
from maml_tf.training.trainer import Trainer

FLAGS = ["--metatrain_iterations=10", "--validate_every=5", "--log_every=5", "--eval_tasks=20", "--validation_tasks=20"]
FLAGS += ["--jit_compile=False", "--log=False", "--eval_updates=1"]


def interrupted(monkeypatch, owner, name, number):
  """In place of a function: the signal comes as it begins."""
  original = getattr(owner, name)

  def signalled(*arguments, **named):
    os.kill(os.getpid(), number)
    return original(*arguments, **named)

  monkeypatch.setattr(owner, name, signalled)


def main(folder):
  err = io.StringIO()
  with contextlib.redirect_stderr(err), contextlib.redirect_stdout(io.StringIO()):
    return command_line.main(["main.py", *FLAGS, f"--logdir={folder}"]), err.getvalue()


def test_a_command_that_is_interrupted_in_every_phase_ends_as_one_that_is_not(monkeypatch, tmp_path, capfd):
  phases = [(Trainer, "_validate_all", "SIGINT", 130), (SinusoidExperiment, "evaluate", "SIGTERM", 143)]
  phases += [(export, "save", "SIGTERM", 143)]
  for owner, name, number, status in phases:
    capfd.readouterr()
    with monkeypatch.context() as patch:
      interrupted(patch, owner, name, getattr(signal, number))
      found, said = main(tmp_path)
    assert found == status, (name, said)
    assert said.startswith("main.py: interrupted") and said.count("\n") == 1
    assert f"{number}: stopping" in capfd.readouterr().err  # by the thread that the kernel wakes
  (run,) = tmp_path.iterdir()
  assert not [path for path in run.rglob("*") if ".tmp" in path.name or path.name.startswith(".saved_model")]
  assert not (run / "saved_model").exists()
  assert main(tmp_path) == (0, "") and (run / "saved_model" / "saved_model.pb").exists()


def test_decoding_stops_between_images_and_leaves_no_cache(monkeypatch, tmp_path, capfd):
  from PIL import Image

  for split in ("train", "val", "test"):
    for index in range(3):
      inside = tmp_path / "data" / split / f"{split}_class"
      inside.mkdir(parents=True, exist_ok=True)
      Image.fromarray(np.full([8, 8, 3], index, np.uint8)).save(inside / f"{index}.png")
  with monkeypatch.context() as patch, pytest.raises(interrupts.Interrupted), interrupts.heard():
    interrupted(patch, image_bank, "decode", signal.SIGTERM)
    image_folder.load(tmp_path / "data", tmp_path / "cache", "train", (8, 8), 3)
  assert "SIGTERM: stopping" in capfd.readouterr().err
  assert not list((tmp_path / "cache").glob("*/index.json"))
  assert image_folder.load(tmp_path / "data", tmp_path / "cache", "train", (8, 8), 3).images.shape == (3, 8, 8, 3)
