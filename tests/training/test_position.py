"""What a checkpoint says of a training beside its state, whatever is written there."""

import pytest
import tensorflow as tf

from maml_tf.training.position import Interval, Position

STATE = {"weights": {"w": tf.zeros([2])}}


def test_what_is_written_comes_back():
  interval = Interval(100, 100, {"loss": 0.1, "gradient_norm": 3.0}, timed=37, seconds=2.0)
  best = {"iteration": 60, "metric": "loss/step_1", "score": -0.5}
  at = Position(137, STATE, best, interval, validation_due=True)
  metadata = at.metadata({"seed": 1})
  assert metadata["config"] == {"seed": 1}
  back = Position.restored(STATE, metadata)
  assert (back.iteration, back.best, back.validation_due) == (137, best, True)
  assert (back.interval.begun, back.interval.length, back.interval.means) == (100, 100, interval.means)
  assert (back.interval.timed, back.interval.seconds) == (0, 0.0)


def test_a_checkpoint_of_an_older_version_has_less():
  at = Position.restored(STATE, {"iteration": 40, "best": None, "config": {}})
  assert at == Position(40, STATE)
  assert set(at.metadata({})) == {"iteration", "best", "config"}


@pytest.mark.parametrize("best", [
  7, [], "best", {}, {"iteration": 1, "metric": "loss"}, {"iteration": 1, "metric": 3, "score": 0.5},
  {"iteration": 1, "metric": "loss", "score": float("nan")}, {"iteration": 1, "metric": "loss", "score": "high"},
  {"iteration": None, "metric": "loss", "score": 0.5},
])  # fmt: skip
def test_a_best_that_is_none_is_none(best):
  assert Position.restored(STATE, {"iteration": 40, "best": best}).best is None


@pytest.mark.parametrize("interval", [
  7, [], "text", {}, {"begun": 30, "length": 20}, {"begun": 30, "length": 20, "means": [1.0]},
  {"begun": 30, "length": 20, "means": {"loss": float("inf")}}, {"begun": 30, "length": 20, "means": {"loss": "1"}},
  {"begun": 40, "length": 20, "means": {"loss": 1.0}}, {"begun": 30, "length": 10, "means": {"loss": 1.0}},
  {"begun": 30.0, "length": 20, "means": {"loss": 1.0}}, {"begun": 30, "length": True, "means": {"loss": 1.0}},
])  # fmt: skip
def test_an_interval_that_is_none_begins_at_the_checkpoint(interval):
  assert Position.restored(STATE, {"iteration": 40, "interval": interval}).interval is None
