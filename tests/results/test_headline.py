"""The front page's tables have every training of MAML, and the figures of its file."""

import json
import pathlib

import pytest

from maml_tf.results import tables

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(scope="module")
def headline():
  return tables.make(ROOT, ["headline", "headline_speed"])


def contents():
  for path in sorted((ROOT / "results").glob("*.json")):
    content = json.loads(path.read_text(encoding="utf-8"))
    if "runs" in content:
      yield path.name, content


def test_it_has_every_training_of_maml_and_nothing_else(headline):
  trained = {
    name for name, content in contents() if content["method"] == "maml" and content.get("of_iterations", 1) > 0
  }
  assert {row[3].link.path.removeprefix("results/") for row in headline["headline"].rows} == trained


def test_accuracies_are_those_of_the_most_tasks_with_the_published_queries(headline):
  """Omniglot, 5-way 1-shot, read after 3 steps (appendix A.1 of the paper), with one query for one shot."""
  content = dict(contents())["omniglot_5way_1shot.json"]
  row = next(row for row in headline["headline"].rows if row[3].link.path.endswith("/omniglot_5way_1shot.json"))
  tasks = max((n for n in content["results"] if "1" in content["results"][n]), key=int)
  assert row[3].cell.value == 100 * content["results"][tasks]["1"]["mean"][3]
  assert row[3].ci95 == 100 * content["results"][tasks]["1"]["ci95"][3]


def test_gaps_are_shares_of_the_way_to_the_oracle(headline):
  files = dict(contents())
  start, one, *_ = files["rl_cheetah_vel_maml.json"]["results"]["mean"]
  oracle = files["rl_cheetah_vel_oracle.json"]["results"]["mean"][0]
  row = next(row for row in headline["headline"].rows if row[3].link.path.endswith("/rl_cheetah_vel_maml.json"))
  assert row[3].cell.split(" / ")[0] == f"{(one - start) / (oracle - start):.2f}"


def test_links_are_relative_to_the_document(headline):
  assert "](../results/sinusoid_maml.json)" in "\n".join(headline["headline"].markdown("docs"))
  assert "](results/sinusoid_maml.json)" in "\n".join(headline["headline"].markdown())


def test_steps_are_timed_as_the_preset_computes_them(headline):
  """The sinusoid's preset is compiled, Omniglot's is not."""
  times = {row[0]: row[1].value for row in headline["headline_speed"].rows}
  sinusoid = json.loads((ROOT / "results" / "benchmark_sinusoid.json").read_text(encoding="utf-8"))
  omniglot = json.loads((ROOT / "results" / "benchmark_omniglot.json").read_text(encoding="utf-8"))
  assert times["sinusoid"] == 1000 / sinusoid["iterations_per_second"]["maml_tf, XLA"]
  assert times["Omniglot"] == omniglot["milliseconds"]["maml_tf, graph"]
