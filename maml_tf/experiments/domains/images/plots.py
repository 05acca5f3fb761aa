"""Plots of image runs: accuracy against steps, an episode with what is predicted of it, learning curves."""

import numpy as np
from matplotlib.figure import Figure

from maml_tf.experiments import report

MOST_CLASSES, MOST_IMAGES = 10, 5  # what a figure has room for, support and query images each
RIGHT, WRONG = "tab:green", "tab:red"


def accuracy_against_steps(results, title, chance, published=None):
  """Accuracy after 0, 1, ... steps, a line for each number of queries, 95 % intervals shaded.

  Args:
    results: of `ImageExperiment.evaluate`.
    title: text above.
    chance: accuracy of a guess.
    published: None, or the paper's `published.Cell`.
  """
  figure = Figure(figsize=(6.4, 4.2), layout="constrained")
  axis = figure.subplots()
  for queries, result in results.items():
    mean, ci95 = (100 * np.array(result["accuracy"][name], np.float64) for name in ("mean", "ci95"))
    label = f"{queries} {'query' if queries == '1' else 'queries'} per class"
    report.curve(axis, mean, ci95, across=1, label=label)
  if published is not None:
    axis.plot(published.step or 0, 100 * published.accuracy, "k*", markersize=10, label="published")
  axis.axhline(100 * chance, color="tab:gray", linestyle=":", label="chance")
  axis.set_title(title, fontsize=9)
  axis.set_xlabel("gradient steps")
  axis.set_ylabel("accuracy in %")
  axis.set_ylim(0, 101)
  axis.grid(alpha=0.25)
  axis.legend(fontsize=8, loc="lower right")
  return figure


def learning_curves(panels):
  """Accuracy on validation tasks, and thin that in meta-training, against meta-iterations; a panel for each task.

  Args:
    panels: dict of title -> {"curves": label -> {"validation": (iterations, accuracies), "training": likewise},
      "published": accuracy or None, "iterations": that the longest curve goes to}.
  """
  figure = Figure(figsize=(4.2 * len(panels), 3.6), layout="constrained")
  for axis, (title, panel) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True):
    for color, (label, curves) in enumerate(panel["curves"].items()):
      for part, width, marker in (("training", 0.7, None), ("validation", 2, ".")):
        iterations, accuracies = curves[part]
        style = {"linewidth": width, "marker": marker, "markersize": 4, "color": f"C{color}"}
        named = label if part == "training" else None  # a short run has no validation yet
        axis.plot(iterations, 100 * np.array(accuracies), label=named, **style)
    if panel["published"] is not None:
      published = 100 * panel["published"]
      axis.axhline(published, color="black", linestyle="--", linewidth=1, label=f"published, test: {published:.1f}")
    axis.set_title(title, fontsize=10)
    axis.set_xlim(0, 1.02 * panel["iterations"])
    axis.set_xlabel("meta-iterations")
    axis.locator_params(axis="x", nbins=5)
    axis.grid(alpha=0.25)
    axis.legend(fontsize=8)
  figure.axes[0].set_ylabel("accuracy in %\nthick: validation, thin: meta-training")
  return figure


def episode(content):
  """A row for each class: its support images, then query images titled with the class predicted before and after.

  Args:
    content: of `ImageExperiment.episode`.
  """
  num_classes = min(MOST_CLASSES, int(content["support_y"].max()) + 1)
  support, query = (_rows(content, part, num_classes) for part in ("support", "query"))
  columns = support.shape[1] + query.shape[1]
  figure = Figure(figsize=(0.6 + 0.95 * columns, 0.9 + 1.1 * num_classes), layout="constrained")
  axes = figure.subplots(num_classes, columns, squeeze=False)
  for label in range(num_classes):
    axes[label, 0].set_ylabel(f"class {label}", fontsize=8)
    for axis, i in zip(axes[label, : support.shape[1]], support[label], strict=True):
      _draw_image(axis, content["support_x"][i])
    for axis, i in zip(axes[label, support.shape[1] :], query[label], strict=True):
      _draw_image(axis, content["query_x"][i])
      before, after = content["before"][i], content["after"][i]
      shown = after if content["steps"] is None else f"{before} → {after}"
      axis.set_title(shown, fontsize=8, color=RIGHT if after == label else WRONG, pad=2)
  axes[0, 0].set_title("support", fontsize=8, pad=2)
  steps = content["steps"]
  said = "class predicted" if steps is None else f"class predicted before → after {steps} gradient steps"
  figure.suptitle(f"Queries: {said}", fontsize=9)
  return figure


def _rows(content, part, num_classes):
  """Indices of each class's images, [num_classes, at most MOST_IMAGES]."""
  labels = content[f"{part}_y"]
  return np.stack([np.flatnonzero(labels == label)[:MOST_IMAGES] for label in range(num_classes)])


def _draw_image(axis, image):
  grey = image.shape[-1] == 1
  axis.set_xticks([])
  axis.set_yticks([])
  axis.imshow(image[..., 0] if grey else image, cmap="gray_r" if grey else None, vmin=0, vmax=1)
