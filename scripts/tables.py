"""Prints the pages' tables from the files in results/ and pretrained/, so that no figure is ever copied by hand.

  python scripts/tables.py
  python scripts/tables.py --update

The second also puts them in the place of the older ones, in README.md, docs/ and pretrained/README.md.
"""

import dataclasses
import json
import pathlib
import re
import sys

from absl import flags
from common import main_of

from maml_tf.errors import UserError
from maml_tf.experiments.presets import (
  PUBLISHED_IMAGES,
  PUBLISHED_IMAGES_CI95,
  PUBLISHED_RETURNS,
  PUBLISHED_SINUSOID,
  published_queries,
)

FLAGS = flags.FLAGS
flags.DEFINE_bool("update", False, "put the tables into README.md, docs/ and pretrained/README.md")

ROOT = pathlib.Path(__file__).parents[1]
RESULTS = ROOT / "results"
DOCUMENTS = (ROOT / "README.md", *sorted(ROOT.glob("docs/*.md")), ROOT / "pretrained" / "README.md")
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


@dataclasses.dataclass(frozen=True)
class Row:
  """A training or evaluation for a cell of the paper's table 1."""

  name: str  # of its file in results/
  label: str
  key: tuple  # in `PUBLISHED_IMAGES`
  flags: str  # of main.py, for one that was not run yet


# Published for Omniglot: 5 shots are a matter of evaluation alone.
FIVE_SHOTS = "--train=False --test_set=True --update_batch_size=5 --train_update_batch_size=1"
ROWS = (
  Row("omniglot_5way_1shot", "Omniglot, 5-way 1-shot", ("omniglot", 5, 1, True, False), ""),
  Row("omniglot_5way_5shot", "Omniglot, 5-way 5-shot", ("omniglot", 5, 5, True, False), FIVE_SHOTS),
  Row("omniglot_fc_5way_1shot", "Omniglot, 5-way 1-shot, no convolutions", ("omniglot", 5, 1, False, False),
      "--noconv"),
  Row("omniglot_fc_5way_5shot", "Omniglot, 5-way 5-shot, no convolutions", ("omniglot", 5, 5, False, False),
      f"--noconv {FIVE_SHOTS}"),
  Row("omniglot_20way_1shot_sum", "Omniglot, 20-way 1-shot, summed loss", ("omniglot", 20, 1, True, False),
      "--num_classes=20"),
  Row("omniglot_20way_1shot_mean", "Omniglot, 20-way 1-shot, mean loss", ("omniglot", 20, 1, True, False),
      "--num_classes=20 --loss_reduction=mean"),
  Row("omniglot_20way_5shot_sum", "Omniglot, 20-way 5-shot, summed loss", ("omniglot", 20, 5, True, False),
      f"--num_classes=20 {FIVE_SHOTS}"),
  Row("omniglot_20way_5shot_mean", "Omniglot, 20-way 5-shot, mean loss", ("omniglot", 20, 5, True, False),
      f"--num_classes=20 --loss_reduction=mean {FIVE_SHOTS}"),
  Row("miniimagenet_published_checkpoint", "miniImageNet, 5-way 1-shot, the authors' checkpoint",
      ("miniimagenet", 5, 1, True, False),
      "--init_from=pretrained/miniimagenet_1shot_published --train=False --test_set=True"),
  Row("miniimagenet_5way_1shot", "miniImageNet, 5-way 1-shot", ("miniimagenet", 5, 1, True, False), ""),
  Row("miniimagenet_5way_5shot", "miniImageNet, 5-way 5-shot", ("miniimagenet", 5, 5, True, False),
      "--update_batch_size=5"),
  Row("miniimagenet_first_order_5way_1shot", "miniImageNet, 5-way 1-shot, first order",
      ("miniimagenet", 5, 1, True, True), "--stop_grad"),
  Row("miniimagenet_first_order_5way_5shot", "miniImageNet, 5-way 5-shot, first order",
      ("miniimagenet", 5, 5, True, True), "--stop_grad --update_batch_size=5"),
)  # fmt: skip

# Folder in pretrained/ -> what it is, the results file that says how long it was trained, the command.
PRETRAINED = {
  "sinusoid": (
    "MAML on sine waves, 10 shots, 1 step of 0.001, 70,000 iterations",
    None,
    "python scripts/main.py --datasource=sinusoid --seed=0",
  ),
  "point": (
    "MAML on 2D navigation, 1 step of 0.5, the best of 100 iterations",
    None,
    "python scripts/main.py --datasource=point --hvp_subsample=0.25",
  ),
  "miniimagenet_1shot_published": (
    "the authors' own weights ([cbfinn/maml](https://github.com/cbfinn/maml), MIT): MAML on miniImageNet, 5-way "
    "1-shot, 5 steps of 0.01, 59,000 iterations",
    None,
    "python scripts/import_checkpoint.py model59000 pretrained/miniimagenet_1shot_published",
  ),
  "omniglot_5way": (
    "MAML on Omniglot, 5-way 1-shot, 1 step of 0.4",
    "omniglot_5way_1shot.json",
    "python scripts/main.py --datasource=omniglot",
  ),
  "omniglot_fc_5way": (
    "the same without convolutions, weights kept as float16",
    "omniglot_fc_5way_1shot.json",
    "python scripts/main.py --datasource=omniglot --conv=False --jit_compile=True --export_half=True",
  ),
  "omniglot_20way_sum": (
    "MAML on Omniglot, 20-way 1-shot, 5 steps of 0.1, loss summed over classes",
    "omniglot_20way_1shot_sum.json",
    "python scripts/main.py --datasource=omniglot --num_classes=20",
  ),
  "omniglot_20way_mean": (
    "MAML on Omniglot, 20-way 1-shot, 5 steps of 0.1, mean loss",
    "omniglot_20way_1shot_mean.json",
    "python scripts/main.py --datasource=omniglot --num_classes=20 --loss_reduction=mean",
  ),
  "miniimagenet_1shot": (
    "MAML on miniImageNet, 5-way 1-shot, 5 steps of 0.01",
    "miniimagenet_5way_1shot.json",
    "python scripts/main.py --datasource=miniimagenet",
  ),
}


def images():
  """The paper's table 1: published and measured test accuracy, by queries per class."""
  lines = [
    "| accuracy in % | published | 1 query | 5 queries | 15 queries | test tasks | iterations | file, or command |",
    "|---|---|---|---|---|---|---|---|",
  ]
  for row in ROWS:
    lines += _image_lines(row)
  return lines


def _image_lines(row):
  """A line for each number of test tasks; one that says so where there is none yet."""
  accuracy, step = PUBLISHED_IMAGES[row.key]
  digits = 1 if row.key[0] == "omniglot" else 2
  start = f"| {row.label} | {100 * accuracy:.{digits}f} ± {PUBLISHED_IMAGES_CI95[row.key]:.{digits}f} |"
  name = f"{row.name}.json"
  if not (RESULTS / name).exists():
    command = " ".join(filter(None, (f"main.py --datasource={row.key[0]}", row.flags)))
    return [f"{start} not run yet | | | | | `{command}` |"]
  content = _read(name)
  end = f"{_iterations(content)} | [{name}](results/{name}) |"
  published = str(published_queries(row.key[0], content["shots"]))
  lines = []
  for tasks, results in content["results"].items():
    cells = [_accuracy(results.get(n), step, bold=n == published) for n in ("1", "5", "15")]
    count = f"{int(tasks):,}" if tasks.isdigit() else tasks
    lines.append(f"{start} {' | '.join(cells)} | {count} | {end}")
  return lines or [f"{start} not evaluated yet | | | | {end}"]


def _accuracy(summary, step, bold):
  if summary is None:
    return ""
  text = f"{100 * summary['mean'][step]:.2f} ± {100 * summary['ci95'][step]:.2f}"
  return f"**{text}**" if bold else text


def _iterations(content):
  reached, of = content["iterations"], content["of_iterations"]
  if not of:
    return "none here"  # an initialisation that was only evaluated
  return f"{reached:,}" if reached >= of else f"{reached:,} of {of:,}"


RL_TASKS = {
  "point": "2D navigation",
  "cheetah_vel": "HalfCheetah, velocity",
  "cheetah_dir": "HalfCheetah, direction",
  "ant_vel": "Ant, velocity",
  "ant_dir": "Ant, direction",
}


def rl():
  """Returns of policies after gradient steps, and the share of the gap to the oracle that they close."""
  lines = [
    "| task | method | returns after 0, 1, 2, 3 steps | gap closed | published returns | its gap | iterations | file |",
    "|---|---|---|---|---|---|---|---|",
  ]
  for task, label in RL_TASKS.items():
    oracle = _read_if_there(f"rl_{task}_oracle.json")
    for method in ("maml", "pretrain", "random", "oracle"):
      content = _read_if_there(f"rl_{task}_{method}.json")
      published = PUBLISHED_RETURNS[task][method]
      ideal = PUBLISHED_RETURNS[task]["oracle"][0][0]
      there = _returns(published[0][:4], published[1])
      gap = _gap(published[0][:4], ideal, method)
      if content is None:
        flag = "" if method == "maml" else f" --baseline={method}"
        lines.append(
          f"| {label} | {method} | not run yet | | {there} | {gap} | | `main.py --datasource={task}{flag}` |"
        )
        continue
      mean, ci95 = content["results"]["mean"][:4], content["results"]["ci95"]
      closed = _gap(mean, oracle["results"]["mean"][0], method) if oracle else "no oracle yet"
      if task == "point" and method != "oracle":  # no simulator's version stands between these returns
        closed += f"; to the published oracle {_gap(mean, ideal, method)}"
      name = f"rl_{task}_{method}.json"
      lines.append(
        f"| {label} | {method} | {_returns(mean, ci95)} | {closed} | {there} | {gap} | {_iterations(content)} "
        f"| [{name}](results/{name}) |"
      )
  return lines


def _returns(mean, ci95):
  return ", ".join(f"{m:.1f} ± {c:.1f}" for m, c in zip(mean, ci95, strict=False))


def _gap(mean, oracle, method):
  from rl_results import gap_closed

  if method == "oracle":
    return ""
  return " / ".join(f"{closed:.2f}" for closed in gap_closed(mean, oracle)[1:])


def _read_if_there(name):
  return _read(name) if (RESULTS / name).exists() else None


def benchmark_rl():
  """Environment steps per second beside Gymnasium's vector environments."""
  content = _read_if_there("benchmark_rl.json")
  if content is None:
    return []
  lines = ["| policy, simulation and rewards | steps / s | × SyncVectorEnv | × AsyncVectorEnv |", "|---|---|---|---|"]
  for robot, rates in content["steps_per_second"].items():
    for name, rate in rates.items():
      over = [content[key][robot].get(name) for key in ("over_sync", "over_async")]
      cells = ["—" if ratio is None else f"{ratio:.1f}" for ratio in over]
      lines.append(f"| {robot}, {name} | {rate:,.0f} | {' | '.join(cells)} |")
  return lines


def benchmark_meta_iteration():
  """What the parts of a meta-iteration take."""
  content = _read_if_there("benchmark_rl.json")
  if content is None:
    return []
  lines = ["| meta-iteration, HalfCheetah | rollouts, s | meta-update, s | update ÷ rollouts |", "|---|---|---|---|"]
  for name, parts in content["meta_iteration"].items():
    seconds = f"{parts['rollout_seconds']:.1f} | {parts['update_seconds']:.1f}"
    lines.append(f"| {name} | {seconds} | {parts['update_over_rollouts']:.2f} |")
  return lines


def pretrained():
  """The initialisations in pretrained/: what they are, and how large."""
  lines = ["| folder | what it is | made by | size |", "|---|---|---|---|"]
  for folder in sorted(path.parent for path in (ROOT / "pretrained").glob("*/saved_model.pb")):
    if folder.name not in PRETRAINED:
      raise UserError(f"pretrained/{folder.name}: scripts/tables.py has no line for it in PRETRAINED")
    what, result, command = PRETRAINED[folder.name]
    if result:
      content = _read(result)
      what += f", {_iterations(content)} iterations"
      if content["iterations"] < content["of_iterations"]:
        command += f" --metatrain_iterations={content['iterations']}"
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    lines.append(f"| `{folder.name}` | {what} | `{command}` | {size / 1e6:.1f} MB |")
  return lines


def benchmark_sinusoid():
  """Meta-iterations per second beside PyTorch's."""
  content = _read("benchmark_sinusoid.json")
  lines = ["| sinusoid, 25 tasks, 10 + 10 points | iterations / s | × vmap | × loop |", "|---|---|---|---|"]
  for name, rate in content["iterations_per_second"].items():
    over = content["over_vmap"][name], content["over_loop"][name]
    lines.append(f"| {name} | {rate:,.0f} | {over[0]:.1f} | {over[1]:.1f} |")
  return lines


def benchmark_images(name):
  """Milliseconds of one meta-gradient, how many times faster than others that is, and memory."""
  if not (RESULTS / f"benchmark_{name}.json").exists():
    return []
  content = _read(f"benchmark_{name}.json")
  setting = content["setting"]
  queries = "1 query" if setting["queries"] == 1 else f"{setting['queries']} queries"
  steps = "1 step" if setting["num_updates"] == 1 else f"{setting['num_updates']} steps"
  task = f"{setting['tasks']} tasks, {setting['ways']}-way {setting['shots']}-shot, {queries}, {steps}"
  lines = [
    f"| {name}, {task} | ms | × map_fn | × vmap | × loop | ÷ floor | peak GB |",
    "|---|---|---|---|---|---|---|",
  ]
  for contender, milliseconds in content["milliseconds"].items():
    over = [content.get(key, {}).get(contender) for key in ("over_map_fn", "over_vmap", "over_loop")]
    cells = ["—" if ratio is None else f"{ratio:.1f}" for ratio in (*over, content["times_floor"][contender])]
    memory = content["peak_memory_bytes"][contender] / 1e9
    lines.append(f"| {contender} | {milliseconds:,.0f} | {' | '.join(cells)} | {memory:.2f} |")
  return lines


def benchmark_memory():
  """Time and peak memory by inner steps, with and without recomputing them."""
  content = _read_if_there("benchmark_memory.json")
  if content is None:
    return []
  lines = [
    "| miniimagenet, inner steps | ms | recomputed, ms | more time | peak GB | recomputed, peak GB |",
    "|---|---|---|---|---|---|",
  ]
  for steps, results in content["by_inner_steps"].items():
    times, gigabytes = list(results["milliseconds"].values()), [b / 1e9 for b in results["peak_memory_bytes"].values()]
    cells = [f"{times[0]:,.0f}", f"{times[1]:,.0f}", f"{100 * (times[1] / times[0] - 1):.0f} %"]
    lines.append(f"| {steps} | {' | '.join(cells)} | {' | '.join(f'{g:.2f}' for g in gigabytes)} |")
  return lines


# Of the front page: label, measure, and the row of `images` that has it.
HEADLINE_IMAGES = {
  "Omniglot, 5-way 1-shot": "omniglot_5way_1shot",
  "Omniglot, 5-way 5-shot": "omniglot_5way_5shot",
  "Omniglot, 5-way 1-shot, no convolutions": "omniglot_fc_5way_1shot",
  "Omniglot, 20-way 1-shot": "omniglot_20way_1shot_mean",
  "miniImageNet, 5-way 1-shot": "miniimagenet_5way_1shot",
}


def headline():
  """One line for each experiment of the paper: published, here, and how far the training came."""
  lines = ["| experiment | measure | published | here | iterations |", "|---|---|---|---|---|"]
  lines += [_headline_sinusoid()]
  lines += [_headline_image(label, name) for label, name in HEADLINE_IMAGES.items()]
  lines += [_headline_policy(task, label) for task, label in RL_TASKS.items()]
  return lines


def _headline_sinusoid():
  content = _read("sinusoid_maml.json")
  both = PUBLISHED_SINUSOID["maml"], content["results"]["5"]["mean"]
  cells = [" / ".join(f"{errors[step]:.2f}" for step in STEPS) for errors in both]
  iterations = content["runs"][0]["config"]["metatrain_iterations"]
  steps = " / ".join(map(str, STEPS))
  here = f"[{cells[1]}](results/sinusoid_maml.json)"
  return f"| sine waves, 5 points | squared error after {steps} steps | {cells[0]} | {here} | {iterations:,} |"


def _headline_image(label, name):
  """With the published number of queries, on as many tasks as there are."""
  (row,) = (row for row in ROWS if row.name == name)
  accuracy, step = PUBLISHED_IMAGES[row.key]
  content = _read(f"{name}.json")
  queries = str(published_queries(row.key[0], content["shots"]))
  evaluations = {int(tasks): results for tasks, results in content["results"].items() if tasks.isdigit()}
  results = evaluations[max(tasks for tasks, results in evaluations.items() if queries in results)][queries]
  published = f"{100 * accuracy:.1f} ± {PUBLISHED_IMAGES_CI95[row.key]:.1f}"
  here = f"[{_accuracy(results, step, bold=False)}](results/{name}.json)"
  return f"| {label} | accuracy in % | {published} | {here} | {_iterations(content)} |"


def _headline_policy(task, label):
  """The share of the gap to the oracle that is closed: returns themselves differ between versions of the simulator."""
  contents = {method: _read(f"rl_{task}_{method}.json") for method in ("maml", "oracle")}
  published = {method: PUBLISHED_RETURNS[task][method][0] for method in contents}
  means = {method: content["results"]["mean"] for method, content in contents.items()}
  cells = [_gap(returns["maml"][:4], returns["oracle"][0], "maml") for returns in (published, means)]
  measure = "gap to the oracle closed, 1 / 2 / 3 steps"
  here = f"[{cells[1]}](results/rl_{task}_maml.json)"
  return f"| {label} | {measure} | {cells[0]} | {here} | {_iterations(contents['maml'])} |"


# Benchmark -> its row on the front page, and which of its contenders a preset is.
HEADLINE_BENCHMARKS = {
  "sinusoid": ("sinusoid, 25 tasks", "maml_tf, XLA"),
  "omniglot": ("Omniglot, 32 tasks of 5 ways", "maml_tf, graph"),
  "miniimagenet": ("miniImageNet, 4 tasks, 5 steps", "maml_tf, graph"),
}


def headline_speed():
  """How long a second-order step takes, and how many times faster than others that is."""
  lines = ["| second-order step | time | × PyTorch loop | × PyTorch vmap | × tf.map_fn |", "|---|---|---|---|---|"]
  for name, (label, contender) in HEADLINE_BENCHMARKS.items():
    content = _read(f"benchmark_{name}.json")
    if "milliseconds" in content:
      milliseconds = content["milliseconds"][contender]
    else:
      milliseconds = 1000 / content["iterations_per_second"][contender]
    over = [content.get(key, {}).get(contender) for key in ("over_loop", "over_vmap", "over_map_fn")]
    cells = ["—" if ratio is None else f"{ratio:.1f}" for ratio in over]
    lines.append(f"| {label} | {milliseconds:,.{0 if milliseconds > 10 else 2}f} ms | {' | '.join(cells)} |")
  return lines


TABLES = {
  "headline": headline,
  "headline_speed": headline_speed,
  "sinusoid": sinusoid,
  "images": images,
  "rl": rl,
  "pretrained": pretrained,
  "benchmark_sinusoid": benchmark_sinusoid,
  "benchmark_omniglot": lambda: benchmark_images("omniglot"),
  "benchmark_miniimagenet": lambda: benchmark_images("miniimagenet"),
  "benchmark_memory": benchmark_memory,
  "benchmark_rl": benchmark_rl,
  "benchmark_meta_iteration": benchmark_meta_iteration,
}


def _read(name):
  try:
    return json.loads((RESULTS / name).read_text(encoding="utf-8"))
  except OSError as error:
    raise UserError(f"results/{name}: {error.strerror}; scripts/collect.py or scripts/benchmark.py makes it") from error


def show(arguments):
  if arguments:
    raise UserError(f"expected no argument, got {' '.join(arguments)}")
  tables = {name: table() for name, table in TABLES.items()}
  print("\n\n".join("\n".join(table) for table in tables.values() if table))
  for path in DOCUMENTS if FLAGS.update else ():
    path.write_text(updated(path.read_text(encoding="utf-8"), _linked_from(path, tables)), encoding="utf-8")


def _linked_from(path, tables):
  """The tables with links that hold in a document in another folder than the project's."""
  up = "../" * len(path.relative_to(ROOT).parts[:-1])
  return {name: [line.replace("](results/", f"]({up}results/") for line in table] for name, table in tables.items()}


def updated(text, tables):
  """A document with each table under its mark, `<!-- table: NAME -->`, in the place of the older one."""
  lines, new = text.split("\n"), []
  while lines:
    new.append(lines.pop(0))
    marked = re.fullmatch(r"<!-- table: (\w+) -->", new[-1])
    if marked:
      while lines and lines[0].startswith("|"):
        lines.pop(0)
      new += tables[marked[1]]
  return "\n".join(new)


if __name__ == "__main__":
  sys.exit(main_of(show, __doc__))
