"""The tables of what `scripts/benchmark.py` measured."""

import functools
import statistics

from maml_tf.results.cells import Number, Table

NOT_MEASURED = "—"


def makers(contents):
  """Name of the table -> function that makes it, for the benchmarks' files that are there (name -> content)."""
  found = {}
  for name, content in contents.items():
    for key, (suffix, make) in _BY_KEY.items():
      if key in content:
        found[suffix or f"benchmark_{name}"] = functools.partial(make, content)
  return found


def _number(value, spec):
  return NOT_MEASURED if value is None else Number(value, format=spec)


def iterations_per_second(content):
  """Meta-iterations per second beside PyTorch's."""
  rows = []
  for name, rate in content["iterations_per_second"].items():
    over = [Number(content[key][name], format=".1f") for key in ("over_vmap", "over_loop")]
    rows.append([name, Number(rate, format=",.0f"), *over])
  return Table(("sinusoid, 25 tasks, 10 + 10 points", "iterations / s", "× vmap", "× loop"), rows)


def milliseconds(content):
  """Milliseconds of one meta-gradient, how many times faster than others that is, and memory."""
  setting = content["setting"]
  queries = "1 query" if setting["queries"] == 1 else f"{setting['queries']} queries"
  steps = "1 step" if setting["num_updates"] == 1 else f"{setting['num_updates']} steps"
  task = f"{setting['tasks']} tasks, {setting['ways']}-way {setting['shots']}-shot, {queries}, {steps}"
  rows = []
  for contender, time in content["milliseconds"].items():
    over = [content.get(key, {}).get(contender) for key in ("over_map_fn", "over_vmap", "over_loop")]
    ratios = [_number(ratio, ".1f") for ratio in (*over, content["times_floor"][contender])]
    memory = Number(content["peak_memory_bytes"][contender] / 1e9)
    rows.append([contender, Number(time, format=",.0f"), *ratios, memory])
  headings = (f"{content['benchmark']}, {task}", "ms", "× map_fn", "× vmap", "× loop", "÷ floor", "peak GB")
  return Table(headings, rows)


def memory(content):
  """Time and peak memory by inner steps, with and without recomputing them."""
  rows = []
  for steps, results in content["by_inner_steps"].items():
    kept, recomputed = results["milliseconds"].values()
    gigabytes = [Number(used / 1e9) for used in results["peak_memory_bytes"].values()]
    times = [Number(time, format=",.0f") for time in (kept, recomputed)]
    rows.append([steps, *times, f"{100 * (recomputed / kept - 1):.0f} %", *gigabytes])
  headings = (
    "miniimagenet, inner steps", "ms", "recomputed, ms", "more time", "peak GB", "recomputed, peak GB",
  )  # fmt: skip
  return Table(headings, rows)


def evaluation(content):
  """Time and peak memory of an evaluation, all tasks of a block at once and as many at a time as fit."""
  measured = content["evaluation"]
  setting = measured["setting"]
  rows = [
    [name, Number(time, format=",.0f"), Number(measured["peak_memory_bytes"][name] / 1e9)]
    for name, time in measured["milliseconds_of_a_block"].items()
  ]
  return Table((f"miniimagenet, {setting['queries']} queries, {setting['num_updates']} steps", "ms", "peak GB"), rows)


def steps_per_second(content):
  """Environment steps per second beside Gymnasium's vector environments."""
  rows = []
  for robot, rates in content["steps_per_second"].items():
    for name, rate in rates.items():
      over = [_number(content[key][robot].get(name), ".1f") for key in ("over_sync", "over_async")]
      rows.append([f"{robot}, {name}", Number(rate, format=",.0f"), *over])
  return Table(("policy, simulation and rewards", "steps / s", "× SyncVectorEnv", "× AsyncVectorEnv"), rows)


def meta_iteration(content):
  """What the parts of a meta-iteration take."""
  rows = []
  for name, parts in content["meta_iteration"].items():
    seconds = [Number(parts[key], format=".1f") for key in ("rollout_seconds", "update_seconds")]
    rows.append([name, *seconds, Number(parts["update_over_rollouts"])])
  return Table(("meta-iteration, HalfCheetah", "rollouts, s", "meta-update, s", "update ÷ rollouts"), rows)


def rounds(content):
  """Time of a round and memory, at the beginning and at the end of a stream."""
  size = max(1, len(content["rounds"]) // 10)
  rows = []
  for name, part in (("first tenth", slice(None, size)), ("last tenth", slice(-size, None))):
    times, memory = (statistics.median(content[key][part]) for key in ("milliseconds_of_a_round", "resident_bytes"))
    rows.append([name, Number(times), Number(memory / 1e6, format=".0f")])
  return Table((f"a stream of {content['rounds'][-1]:,} rounds", "ms a round", "MB resident"), rows)


# What is in a benchmark's file -> the table's name (None: the file's) and the function that makes it.
_BY_KEY = {
  "iterations_per_second": (None, iterations_per_second),
  "milliseconds": (None, milliseconds),
  "by_inner_steps": (None, memory),
  "milliseconds_of_a_round": (None, rounds),
  "evaluation": (None, evaluation),
  "steps_per_second": (None, steps_per_second),
  "meta_iteration": ("benchmark_meta_iteration", meta_iteration),
}
