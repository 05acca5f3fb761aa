"""Plots of walks through streams: what Finn et al. 2019 draw against the number of the task."""

import numpy as np
from matplotlib.figure import Figure

from maml_tf.experiments import methods

SHOWN_AFTER = ("100", "900")  # images; the paper's panels


def of_rainbow(runs_by_method):
  """Name -> figure: images until the threshold, and accuracies after fixed numbers of images, by task.

  Args:
    runs_by_method: method -> results of `RainbowExperiment`, a list over orders of tasks.
  """
  first = next(iter(runs_by_method.values()))[0]
  panels = [(f"images until {first['threshold']:.0%}", lambda run: run["examples_to_threshold"])]
  panels += [(f"accuracy after {n} images", lambda run, n=n: run["accuracy_after"][n]) for n in SHOWN_AFTER]
  figure = Figure(figsize=(4.6 * len(panels), 4.0), layout="constrained")
  for axis, (title, values) in zip(figure.subplots(1, len(panels)), panels, strict=True):
    for method in methods.in_order(runs_by_method):
      _draw_tasks(axis, [(run["first_task"], values(run)) for run in runs_by_method[method.name]], method)
    axis.set_title(title, fontsize=10)
    axis.set_xlabel("task")
    axis.grid(alpha=0.25)
  handles, labels = figure.axes[0].get_legend_handles_labels()
  figure.legend(handles, labels, loc="outside lower center", ncols=5, fontsize=8)
  return {"rainbow_mnist": figure}


def regret(runs_by_method):
  """Cumulative regret against the number of tasks, both axes logarithmic.

  Args:
    runs_by_method: method -> results of `QuadraticsExperiment`, a list over seeds.
  """
  figure = Figure(figsize=(6.4, 4.4), layout="constrained")
  axis = figure.subplots()
  for method in methods.in_order(runs_by_method):
    runs = [run for run in runs_by_method[method.name] if run["tasks"]]
    shortest = min(len(run["rounds"]) for run in runs)
    values = np.mean([run["regret"][:shortest] for run in runs], axis=0)
    axis.loglog(runs[0]["rounds"][:shortest], values, color=method.color, label=method.title)
  axis.set_xlabel("tasks")
  axis.set_ylabel("cumulative regret")
  axis.grid(alpha=0.25)
  axis.legend(fontsize=8)
  return figure


def _draw_tasks(axis, walks, method):
  """The mean over the walks that came so far, smoothed over five tasks, and the single values."""
  first = max(start for start, _ in walks)
  length = min(start + len(values) for start, values in walks) - first
  together = np.array([values[first - start :][:length] for start, values in walks], np.float64)
  index = first + np.arange(length)
  mean = together.mean(axis=0)
  axis.plot(index, mean, ".", color=method.color, alpha=0.35, markersize=4)
  window = min(5, length)
  smooth = np.convolve(mean, np.ones(window) / window, "valid")
  axis.plot(index[window - 1 :], smooth, color=method.color, label=method.title)
