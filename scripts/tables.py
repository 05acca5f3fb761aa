"""Prints the README's tables of results from the files in results/, so that no figure is ever copied by hand.

python scripts/tables.py
"""

import json
import pathlib
import sys

from common import main_of

from maml_tf.errors import UserError
from maml_tf.experiments.presets import PUBLISHED_SINUSOID

RESULTS = pathlib.Path(__file__).parents[1] / "results"
STEPS = (1, 5, 10)
SINUSOID_METHODS = {
  "maml": "MAML",
  "pretrain": "pretrained on all tasks",
  "random": "random initialisation",
  "oracle": "oracle",
}


def sinusoid():
  """5-shot mean squared errors, mean over seeds, beside the published ones."""
  lines = ["| 5 points | after 1 step | 5 steps | 10 steps | published | file |", "|---|---|---|---|---|---|"]
  for method, label in SINUSOID_METHODS.items():
    name = f"sinusoid_{method}.json"
    result = _read(name)["results"]["5"]
    cells = [f"{result['mean'][step]:.2f} ± {result['ci95'][step]:.2f}" for step in STEPS]
    published = PUBLISHED_SINUSOID.get(method)
    published = " / ".join(f"{published[step]:.2f}" for step in STEPS) if published else "not printed"
    lines.append(f"| {label} | {' | '.join(cells)} | {published} | [{name}](results/{name}) |")
  return lines


def benchmark():
  """Meta-iterations per second beside PyTorch's."""
  content = _read("benchmark_sinusoid.json")
  lines = ["| sinusoid, 25 tasks, 10 + 10 points | iterations / s | × vmap | × loop |", "|---|---|---|---|"]
  for name, rate in content["iterations_per_second"].items():
    over = content["over_vmap"][name], content["over_loop"][name]
    lines.append(f"| {name} | {rate:,.0f} | {over[0]:.1f} | {over[1]:.1f} |")
  return lines


TABLES = {"sinusoid": sinusoid, "benchmark": benchmark}


def _read(name):
  try:
    return json.loads((RESULTS / name).read_text(encoding="utf-8"))
  except OSError as error:
    raise UserError(f"results/{name}: {error.strerror}; scripts/collect.py or scripts/benchmark.py makes it") from error


def show(arguments):
  if arguments:
    raise UserError(f"expected no argument, got {' '.join(arguments)}")
  for table in TABLES.values():
    print("\n".join(table()), end="\n\n")


if __name__ == "__main__":
  sys.exit(main_of(show, __doc__))
