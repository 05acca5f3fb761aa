"""Hypotheses beside the points that they are made from."""

import numpy as np
from matplotlib.figure import Figure

from maml_tf.experiments import methods

GRID = np.linspace(-5.0, 5.0, 101)


def hypotheses(by_method):
  """A row for each method, a column for each task: the points, the truth, and what the method takes for possible.

  Args:
    by_method: method -> what `AmbiguousExperiment.sampled` returns, of the same tasks.
  """
  count = next(iter(by_method.values()))["truth"].shape[0]
  figure = Figure(figsize=(3.6 * count, 2.9 * len(by_method)), layout="constrained")
  axes = figure.subplots(len(by_method), count, sharex=True, sharey="col", squeeze=False)
  for row, method in zip(axes, methods.in_order(by_method), strict=True):
    content = by_method[method.name]
    for task, axis in enumerate(row):
      fits = content["fits"][:, task]
      for index, fit in enumerate(fits):
        label = f"{len(fits)} hypotheses" if index == 0 else None
        axis.plot(GRID, fit, color=method.color, alpha=0.55, linewidth=1, label=label)
      axis.plot(GRID, content["truth"][task], "--", color="black", linewidth=1.2, label="truth")
      axis.plot(content["support_x"][task], content["support_y"][task], "^", color="purple", label="support points")
      axis.grid(alpha=0.25)
    row[0].set_ylabel(method.title)
    row[0].legend(fontsize=7)
  for axis in axes[-1]:
    axis.set_xlabel("x")
  return figure
