"""Evaluation over many tasks in blocks."""

import pathlib
import re

import numpy as np
import pytest
import tensorflow as tf

from maml_tf import MAML, evaluation, models, randomness, tasks
from maml_tf.experiments.domains.images.published import TABLE_1, queries

SEED = randomness.make_seed(0)


def evaluate(num_tasks):
  maml = MAML(models.MLP(hidden=(8,)), inner_lr=0.01)
  weights = maml.initial_weights(0)
  return tf.function(
    lambda: evaluation.evaluate_blocks(evaluation.of_algorithm(maml, weights, 3), tasks.Sinusoid(5, 5), SEED, num_tasks)
  )()["loss"]


def test_fewer_tasks_are_the_first_of_more():
  many, few = evaluate(90), evaluate(33)
  assert many.shape == (4, 90) and few.shape == (4, 33)
  np.testing.assert_array_equal(few, many[:, :33])
  assert len(np.unique(many[0])) == 90  # all tasks differ


def test_a_block_is_what_the_distribution_gives_for_its_seed():
  maml = MAML(models.MLP(hidden=(8,)), inner_lr=0.01)
  batch = tasks.Sinusoid(5, 5).sample(randomness.fold(SEED, 1), evaluation.BLOCK)
  expected = maml.evaluate(maml.initial_weights(0), batch, 3)["loss"]
  np.testing.assert_allclose(evaluate(40)[:, evaluation.BLOCK :], expected, rtol=1e-5)


def test_intervals_are_those_of_scipy():
  from scipy import stats

  values = np.random.default_rng(0).normal(size=(2, 400))
  summary = evaluation.summarise(values)
  np.testing.assert_allclose(summary["mean"], values.mean(axis=1))
  low, high = stats.norm.interval(0.95, loc=values.mean(axis=1), scale=stats.sem(values, axis=1, ddof=0))
  np.testing.assert_allclose(summary["ci95"], (high - low) / 2, rtol=1e-4)


def independent(accuracy, count):
  """The 95 % interval, in %, of that many queries which err independently, in each of the published 600 tasks."""
  return 196 * np.sqrt(accuracy * (1 - accuracy) / (600 * count))


@pytest.mark.parametrize("task", TABLE_1, ids=str)
def test_published_intervals_are_those_of_the_number_of_queries_that_they_are_said_to_have(task):
  """Up to the printed digits, 3 % (a deviation over 600 tasks is not known better), and what unlike tasks add here."""
  datasource, ways, shots, *_ = task
  accuracy, share, *_ = TABLE_1[task]
  printed = 100 * share
  rounding = 0.05 if datasource == "omniglot" else 0.005
  expected = independent(accuracy, ways * queries(datasource, shots))
  assert 0.97 * expected - rounding < printed < 1.36 * expected + rounding


def test_the_document_has_these_intervals():
  text = (pathlib.Path(__file__).parents[1] / "docs" / "fidelity.md").read_text()
  rows = re.findall(r"^\| .* \| ([\d.]+) ± [\d.]+ \| ([\d.]+) \| ([\d.]*)", text, re.MULTILINE)
  assert len(rows) == 8
  ways = [20 if "20-way" in line else 5 for line in text.splitlines() if re.search(r"-way .* ± .* \| [\d.]+ \|", line)]
  for (accuracy, one, five), n in zip(rows, ways, strict=True):
    for printed, per_class in ((one, 1), (five, 5)):
      assert not printed or float(printed) == round(independent(float(accuracy) / 100, n * per_class), 2)
