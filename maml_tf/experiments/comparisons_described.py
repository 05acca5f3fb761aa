"""What `comparisons` compares. Imports neither NumPy nor TensorFlow."""

# (ways, shots) of the published tables.
CELLS = {
  "omniglot": ((5, 1), (5, 5), (20, 1), (20, 5)),
  "miniimagenet": ((5, 1), (5, 5), (5, 20), (5, 50)),
  "mnist": ((10, 1), (10, 5), (10, 10)),
  "folder": ((5, 1), (5, 5)),
}
TITLES = {
  "knn": "nearest neighbour",
  "linear": "logistic regression",
  "mlp": "network with dropout",
  "mlp_stopped_on_queries": "the same, stopped by query labels",
  "cluster_matching": "cluster matching",
}
USUAL = ("knn", "linear", "mlp", "cluster_matching")  # without the one that looks at the answers


def cell_name(ways, shots):
  return f"{ways}-way {shots}-shot"
