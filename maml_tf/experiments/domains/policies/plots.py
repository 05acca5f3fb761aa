"""Plots of policies: returns against gradient steps, and paths of 2D navigation."""

import numpy as np
from matplotlib.figure import Figure

from maml_tf.experiments import methods, report
from maml_tf.experiments.domains.policies import published


def returns_against_steps(results_by_method, datasource):
  """The paper's figures 4 and 5: returns after 0, 1, ... steps, 95 % intervals shaded, published curves dashed.

  Args:
    results_by_method: method -> results of `PolicyExperiment.evaluate`.
    datasource: whose published curves stand beside them.
  """
  figure = Figure(figsize=(6.4, 4.4), layout="constrained")
  axis = figure.subplots()
  draw_returns(axis, results_by_method, datasource)
  figure.legend(loc="outside lower center", ncols=3, fontsize=8)  # inside it would hide a curve
  return figure


def returns_of_tasks(results_by_task):
  """A panel of `returns_against_steps` for each task: datasource -> method -> results."""
  columns = min(3, len(results_by_task))
  rows = -(-len(results_by_task) // columns)
  figure = Figure(figsize=(4.6 * columns, 4.0 * rows), layout="constrained")
  axes = np.ravel(figure.subplots(rows, columns, squeeze=False))
  for axis, (task, results) in zip(axes, results_by_task.items(), strict=False):
    draw_returns(axis, results, task)
  for axis in axes[len(results_by_task) :]:
    axis.set_axis_off()
  # One legend below all panels: in each it would hide curves.
  pairs = {label: h for axis in axes for h, label in zip(*axis.get_legend_handles_labels(), strict=True)}
  figure.legend(pairs.values(), pairs.keys(), loc="outside lower center", ncols=4, fontsize=8)
  return figure


def draw_returns(axis, results_by_method, datasource):
  """Draws the curves of `returns_against_steps` into one axis."""
  most = max(len(r["return"]["mean"]) for r in results_by_method.values()) - 1
  there = published.RETURNS.get(datasource, {})
  for method in methods.in_order({**results_by_method, **there}):
    style = dict(color=method.color, across=most)
    if method.name in results_by_method:
      summary = results_by_method[method.name]["return"]
      report.curve(axis, summary["mean"], summary["ci95"], label=method.title, **style)
    if method.name in there:
      mean, _ = there[method.name]
      report.curve(axis, mean, label=f"{method.title}, published", linestyle="--", marker=None, alpha=0.7, **style)
  axis.set_title(datasource, fontsize=10)
  axis.set_xlabel("gradient steps")
  axis.set_ylabel("return")
  axis.set_xticks(range(most + 1))
  axis.grid(alpha=0.25)


def trajectories(paths):
  """2D navigation: some rollouts for each goal, before and after one gradient step.

  Args:
    paths: list of {"goal": [2], "before": list of [n, 2], "after": list of [n, 2]}.
  """
  figure = Figure(figsize=(3.6 * len(paths), 3.8), layout="constrained")
  for axis, drawn in zip(np.atleast_1d(figure.subplots(1, len(paths), sharex=True, sharey=True)), paths, strict=True):
    for name, color, label in (("before", "tab:green", "before"), ("after", "tab:blue", "after 1 step")):
      for index, path in enumerate(drawn[name]):
        axis.plot(*path.T, color=color, linewidth=1, alpha=0.8, label=label if index == 0 else None)
    axis.plot(*drawn["goal"], "*", color="tab:red", markersize=13, label="goal")
    axis.plot(0, 0, "o", color="black", markersize=4, label="start")
    axis.set_xlim(-1.1, 1.1)
    axis.set_ylim(-1.1, 1.1)
    axis.set_aspect("equal")
    axis.grid(alpha=0.25)
  figure.axes[0].legend(loc="lower left", fontsize=8)
  return figure
