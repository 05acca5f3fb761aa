"""Plots of sinusoid runs: fits, and errors against gradient steps."""

import numpy as np
from matplotlib.figure import Figure

from maml_tf.experiments import methods, report

GRID = np.linspace(-5.0, 5.0, 201)
STEP_STYLES = {
  0: ("tab:green", ":", "before"),
  1: ("tab:orange", "--", "1 step"),
  10: ("tab:blue", "-", "10 steps"),
  None: ("tab:blue", "-", "adapted"),
}


def fits_on_held_out(experiment, weights, inner_lr, num_tasks=3):
  """Fits on held-out sine waves, after 0, 1 and 10 steps, with the config's number of shots."""
  figure = Figure(figsize=(4.2 * num_tasks, 3.4), layout="constrained")
  axes = figure.subplots(1, num_tasks, sharey=True)
  for index, axis in enumerate(axes):
    fit = experiment.fit(weights, inner_lr, experiment.config.update_batch_size, GRID, index)
    draw_fit(axis, fit)
  axes[0].set_ylabel("y")
  axes[0].legend(loc="lower left", fontsize=8)
  return figure


def figure_2(experiments, index=1):
  """The paper's figure 2: MAML and pretrained fits for K = 5 and 10, with points from all, then half, of the range.

  Args:
    experiments: method -> (experiment, weights, dict of shots -> step size), for "maml" and "pretrain".
    index: which held-out sine wave; 1 is the first with an amplitude above 3, on which differences can be seen.
  """
  columns = [(method, shots) for method in ("maml", "pretrain") for shots in (5, 10)]
  figure = Figure(figsize=(16, 6.4), layout="constrained")
  axes = figure.subplots(2, len(columns), sharex=True, sharey=True)
  for row, half in enumerate((None, "right")):
    for column, (method, shots) in enumerate(columns):
      experiment, weights, step_sizes = experiments[method]
      rate = step_sizes[shots]
      draw_fit(axes[row, column], experiment.fit(weights, rate, shots, GRID, index, half))
      if row == 0:
        axes[row, column].set_title(f"{methods.METHODS[method].title}, K = {shots}, step size {rate:g}", fontsize=10)
    axes[row, 0].set_ylabel("points from the whole range" if half is None else "points from the right half")
  axes[0, 0].legend(loc="lower left", fontsize=8)
  return figure


def draw_fit(axis, fit):
  axis.plot(GRID, fit["truth"], color="tab:red", linewidth=1.2, label="truth")
  for step, values in fit["fits"].items():
    color, line, label = STEP_STYLES[step]
    axis.plot(GRID, values, line, color=color, linewidth=1.6, label=label)
  axis.plot(fit["support_x"], fit["support_y"], "^", color="purple", markersize=6, label="support points")
  axis.set_xlim(-5, 5)
  axis.set_xlabel("x")
  axis.grid(alpha=0.25)


def mse_against_steps(results_by_method):
  """The paper's figure 3: error against gradient steps, a panel for each number of shots, 95 % intervals shaded.

  Args:
    results_by_method: method -> results of `SinusoidExperiment.evaluate`.
  """
  shots = [s for s in next(iter(results_by_method.values())) if all(s in r for r in results_by_method.values())]
  figure = Figure(figsize=(4.6 * len(shots), 3.8), layout="constrained")
  axes = np.atleast_1d(figure.subplots(1, len(shots), sharey=True))
  for axis, k in zip(axes, shots, strict=True):
    for method in methods.in_order(results_by_method):
      result = results_by_method[method.name][k]
      rate = "" if result["inner_lr"] is None else f", step size {result['inner_lr']:g}"
      style = dict(color=method.color, label=method.title + rate)
      line = report.curve(axis, result["mse"]["mean"], result["mse"]["ci95"], **style)
    axis.set_title(f"{k} shots", fontsize=10)
    axis.set_xlabel("gradient steps")
    axis.set_xticks(line.get_xdata())
    axis.set_ylim(bottom=0)
    axis.grid(alpha=0.25)
    axis.legend(fontsize=8, loc="center right", bbox_to_anchor=(1.0, 0.65))  # between the curves, over none
  axes[0].set_ylabel("mean squared error")
  return figure
