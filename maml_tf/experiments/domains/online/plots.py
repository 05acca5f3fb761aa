"""Plots of walks through streams: what Finn et al. 2019 draw against the number of the task."""

from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure

from maml_tf.experiments import methods

STYLES = ("-", "--", ":", "-.")  # of curves of the same method


class Curve(NamedTuple):
  """What one results file draws.

  Attributes:
    label: in the legend.
    method: its name.
    runs: results over orders of the tasks, or draws of them.
  """

  label: str
  method: str
  runs: list


def of_images(curves):
  """Images until the threshold, and accuracies or losses after fixed numbers of images, by task: a figure.

  Args:
    curves: list of `Curve`, of results of an `ImagesExperiment`.
  """
  first = curves[0].runs[0]
  measure = "accuracy" if "accuracy_after" in first else "loss"
  goal = f"{first['threshold']:.0%}" if measure == "accuracy" else f"a loss of {first['threshold']:g}"
  panels = [(f"images until {goal}", lambda run: run["examples_to_threshold"])]
  shared = [n for n in first[f"{measure}_after"] if all(n in run[f"{measure}_after"] for c in curves for run in c.runs)]
  panels += [(f"{measure} after {n} images", lambda run, n=n: run[f"{measure}_after"][n]) for n in shared]
  figure = Figure(figsize=(4.0 * len(panels), 4.0), layout="constrained")
  for axis, (title, values) in zip(np.atleast_1d(figure.subplots(1, len(panels))), panels, strict=True):
    for curve, method, style in _styled(curves):
      _draw_tasks(axis, [(run["first_task"], values(run)) for run in curve.runs], curve.label, method.color, style)
    axis.set_title(title, fontsize=10)
    axis.set_xlabel("task")
    axis.grid(alpha=0.25)
  handles, labels = figure.axes[0].get_legend_handles_labels()
  figure.legend(handles, labels, loc="outside lower center", ncols=min(5, len(labels)), fontsize=8)
  return figure


def regret(curves):
  """Cumulative regret against the number of tasks, both axes logarithmic.

  Args:
    curves: list of `Curve`, of results of `QuadraticsExperiment`.
  """
  figure = Figure(figsize=(6.4, 4.4), layout="constrained")
  axis = figure.subplots()
  for curve, method, style in _styled(curves):
    runs = [run for run in curve.runs if run["tasks"]]
    shortest = min(len(run["rounds"]) for run in runs)
    values = np.mean([run["regret"][:shortest] for run in runs], axis=0)
    axis.loglog(runs[0]["rounds"][:shortest], values, style, color=method.color, label=curve.label)
  axis.set_xlabel("tasks")
  axis.set_ylabel("cumulative regret")
  axis.grid(alpha=0.25)
  axis.legend(fontsize=8)
  return figure


def _styled(curves):
  """(curve, its `Method`, a line style that tells it from others of the same method), the weakest method first."""
  for method in methods.in_order([curve.method for curve in curves]):
    for index, curve in enumerate(c for c in curves if c.method == method.name):
      yield curve, method, STYLES[index % len(STYLES)]


def _draw_tasks(axis, walks, label, color, style):
  """The mean over the walks that came so far, smoothed over five tasks, and the single values."""
  first = max(start for start, _ in walks)
  length = min(start + len(values) for start, values in walks) - first
  together = np.array([values[first - start :][:length] for start, values in walks], np.float64)
  index = first + np.arange(length)
  mean = together.mean(axis=0)
  axis.plot(index, mean, ".", color=color, alpha=0.35, markersize=4)
  window = min(5, length)
  smooth = np.convolve(mean, np.ones(window) / window, "valid")
  axis.plot(index[window - 1 :], smooth, style, color=color, label=label)
