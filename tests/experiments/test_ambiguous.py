"""Sine or line by command: hypotheses are drawn, judged, drawn as a picture, collected and tabulated."""

import json

import numpy as np
import pytest
import tensorflow as tf

from maml_tf.errors import UserError
from maml_tf.experiments.config import resolve
from maml_tf.experiments.domains.ambiguous.experiment import GRID, NOISE, judge
from maml_tf.experiments.run import run
from maml_tf.results import collect, figures, tables

METHODS = ("platipus", "maml", "bmaml")


def test_hypotheses_are_judged_by_hand():
  rng = np.random.default_rng(0)
  outputs, labels = rng.normal(size=(3, 2, 7, 1)), rng.normal(size=(2, 7, 1))
  line, wave = 2 * GRID + 1 + 0.1 * np.sin(GRID), 2 * np.sin(GRID)
  on_grid = np.stack([[line, line], [line, wave], [line, line]])[..., None].astype(np.float64)
  measured = {n: v.numpy() for n, v in judge(*map(tf.constant, (outputs, labels, on_grid))).items()}
  errors = ((outputs - labels) ** 2).mean(axis=(2, 3))
  np.testing.assert_allclose(measured["best"][0], errors.min(axis=0))
  np.testing.assert_allclose(measured["one"][0], errors.mean(axis=0))
  np.testing.assert_allclose(measured["mean"][0], ((outputs.mean(axis=0) - labels) ** 2).mean(axis=(1, 2)))
  densities = np.exp(-((outputs - labels) ** 2) / (2 * NOISE**2)) / (NOISE * np.sqrt(2 * np.pi))
  expected = -np.log(densities.prod(axis=(2, 3)).mean(axis=0)) / 7
  np.testing.assert_allclose(measured["negative_log_likelihood"][0], expected, rtol=1e-9)
  np.testing.assert_array_equal(measured["coverage"][0], [1, 2])


SMALL = dict(
  datasource="sine_or_line", num_updates=1, eval_updates=1, eval_queries=10, eval_tasks=20, validation_tasks=20,
  hypotheses=2, meta_batch_size=5, metatrain_iterations=4, validate_every=4, log=False, num_particles=2,
)  # fmt: skip


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
  """Tiny runs of three methods in one folder."""
  logdir, quiet = tmp_path_factory.mktemp("ambiguous"), dict(say=lambda line: None)
  own = {method: {n: v for n, v in SMALL.items() if n != "num_particles" or method == "bmaml"} for method in METHODS}
  return logdir, [run(resolve(**given, learner=method, logdir=logdir), **quiet) for method, given in own.items()]


def test_results_have_what_hypotheses_are_worth(runs):
  for content in runs[1]:
    measured = content["results"]["5"]["hypotheses"]
    best, one, mean = (measured[name]["mean"][0] for name in ("best", "one", "mean"))
    assert best <= one and mean <= one + 1e-6
    assert 1 <= measured["coverage"]["mean"][0] <= 2
    if content["method"] == "maml":
      assert best == pytest.approx(one, rel=1e-5)
    module = tf.saved_model.load(f"{content['directory']}/saved_model")
    x = np.linspace(-3, 3, 5, dtype=np.float32)[:, np.newaxis]
    assert np.isfinite(module.adapt_and_predict(x, np.sin(x), x, 2)).all()


def test_they_are_collected_tabulated_and_drawn(runs, tmp_path):
  logdir, contents = runs
  (tmp_path / "results").mkdir()
  for content in contents:
    collect.collect(tmp_path / "results" / f"{content['method']}.json", [content["directory"]], tmp_path)
  table = tables.make(tmp_path, ["probabilistic"])["probabilistic"]
  assert [row[0] for row in table.rows][-1].startswith("Bayesian MAML")
  rows = {row["method"]: row for row in table.plain()}
  own = contents[0]["results"]["5"]["hypotheses"]
  assert rows["platipus"]["error of the best hypothesis"] == pytest.approx(own["best"]["mean"][0])
  assert "not run" not in json.dumps(rows["bmaml"])
  drawn = figures.probabilistic(figures.newest_runs("sine_or_line", figures.PROBABILISTIC, logdir, 0))
  assert len(drawn["hypotheses"].axes) == 3 * 4


def test_without_results_nothing_was_run(tmp_path):
  (tmp_path / "results").mkdir()
  table = tables.make(tmp_path, ["probabilistic"])["probabilistic"]
  assert all("not run" in row for row in table.rows)
  assert "--datasource=sine_or_line --learner=bmaml" in table.rows[-1][-1].text


@pytest.mark.parametrize(("given", "says"), [
  (dict(datasource="sine_or_line", learner="anil"), "--learner=anil: expected one of"),
  (dict(learner="bmaml", num_particles=1), "--num_particles=1: expected 2 or more"),
  (dict(hypotheses=3), "--hypotheses=3: expected no such flag here: the domain sinusoid"),
  (dict(learner="maml", kl_weight=1.0), "--kl_weight=1.0: expected no such flag here: --learner=maml"),
])  # fmt: skip
def test_settings_that_mean_nothing_are_refused(given, says):
  with pytest.raises(UserError) as error:
    resolve(**given)
  assert str(error.value).startswith(says)
