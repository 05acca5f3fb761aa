"""What the page asks: numbers before and after adapting, of trained networks."""

import os
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from maml_tf import loading, pictures
from maml_tf.datasets import image_bank
from maml_tf.errors import UserError

WAVE_STEPS = (0, 1, 10)  # gradient steps whose curves are shown
GRID = np.linspace(-5, 5, 101, dtype=np.float32)  # where: the inputs of Finn et al. 2017, section 5.1
MOST_POINTS = 20


class Characters:
  """A classifier of pictures that learns what is drawn.

  Args:
    path: folder of its SavedModel.

  Attributes:
    ways: the most characters that it tells apart.

  Raises:
    UserError: there is none, or it is no classifier of pictures.
  """

  def __init__(self, path: str | os.PathLike):
    self._trained = loading.load(path)
    self._described = pictures.described_pictures(self._trained)
    self.ways: int = self._trained.outputs

  def probabilities(self, drawn: Sequence[bytes], asked: bytes, num_updates: int = 1) -> dict[str, list[float]]:
    """How likely each of the drawn characters is, for another drawing.

    Args:
      drawn: PNG files, dark on light, one of each character.
      asked: such a file.
      num_updates: gradient steps.

    Returns:
      {"before": a probability for each drawn character, "after": likewise, after the gradient steps}.

    Raises:
      UserError: too few or too many of them, or a file that is no picture.
    """
    if not 2 <= len(drawn) <= self.ways:
      raise UserError(f"{len(drawn)} characters are drawn, expected 2 to {self.ways}; draw or clear some")
    support, labels = self._inputs(drawn, "character"), np.arange(len(drawn))
    # Older networks normalise what is asked by its own statistics, of which one drawing has too little.
    together = tf.concat([support, self._inputs([asked], "drawing")], 0)
    adapted = self._trained.adapt(support, labels, num_updates)
    return {
      when: tf.nn.softmax(self._trained.predict(task, together)[-1, : len(drawn)]).numpy().tolist()
      for when, task in (("before", self._trained.weights), ("after", adapted))
    }

  def _inputs(self, files, name):
    height, width, channels = self._trained.input_shape
    decoded = [
      image_bank.decode(data, (height, width), channels, f"{name} {number}") for number, data in enumerate(files, 1)
    ]
    return pictures.inputs_of(np.stack(decoded), self._described)


class Waves:
  """A regression that learns a sine wave from a few points.

  Args:
    path: folder of its SavedModel.

  Raises:
    UserError: there is none, or it does not map one number to one.
  """

  def __init__(self, path: str | os.PathLike):
    self._trained = loading.load(path)
    if self._trained.classifies or self._trained.input_shape != (1,) or self._trained.outputs != 1:
      raise UserError(f"{path}: no regression of one number on one, but a SavedModel of something else")

  def curves(self, points: Sequence[Sequence[float]]) -> dict[str, list]:
    """What it takes the wave for.

    Args:
      points: pairs of x and y.

    Returns:
      {"x": grid, "curves": [{"steps": number of gradient steps, "y": values on the grid}]}.

    Raises:
      UserError: there are too few or too many points, or one that is none.
    """
    try:
      points = np.asarray(points, np.float32).reshape(-1, 2)
    except (TypeError, ValueError) as error:
      raise UserError("points: expected pairs of numbers") from error
    if not 1 <= len(points) <= MOST_POINTS or not np.isfinite(points).all():
      raise UserError(f"points: expected 1 to {MOST_POINTS} pairs of finite numbers")
    curves = []
    for steps in WAVE_STEPS:
      task = self._trained.adapt(points[:, :1], points[:, 1:], steps)
      curves.append({"steps": steps, "y": self._trained.predict(task, GRID[:, np.newaxis])[:, 0].numpy().tolist()})
    return {"x": GRID.tolist(), "curves": curves}
