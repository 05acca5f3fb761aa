"""Table 1 of Finn et al. 2017, and what its cells were measured with."""

from typing import NamedTuple


class Cell(NamedTuple):
  """A test accuracy, its 95 % interval (both as shares), and the number of steps after which it is read."""

  accuracy: float
  ci95: float
  step: int


# By data set, ways, shots, whether convolutional and whether first order (table 1 and appendix A.1).
TABLE_1 = {
  ("omniglot", 5, 1, True, False): Cell(0.987, 0.004, 3),
  ("omniglot", 5, 5, True, False): Cell(0.999, 0.001, 3),
  ("omniglot", 20, 1, True, False): Cell(0.958, 0.003, 5),
  ("omniglot", 20, 5, True, False): Cell(0.989, 0.002, 5),
  ("omniglot", 5, 1, False, False): Cell(0.897, 0.011, 3),
  ("omniglot", 5, 5, False, False): Cell(0.975, 0.006, 3),
  ("miniimagenet", 5, 1, True, False): Cell(0.4870, 0.0184, 10),
  ("miniimagenet", 5, 5, True, False): Cell(0.6311, 0.0092, 10),
  ("miniimagenet", 5, 1, True, True): Cell(0.4807, 0.0175, 10),
  ("miniimagenet", 5, 5, True, True): Cell(0.6315, 0.0091, 10),
}


def queries(datasource, shots):
  """Query images per class that a cell of the paper's table 1 appears to have been measured with.

  The paper does not say, and cbfinn/maml's main.py takes as many as shots. But the paper's intervals for Omniglot with
  five shots are those of one query (docs/fidelity.md, "How many queries ...", has what speaks for either).
  """
  return shots if datasource == "miniimagenet" else 1


def cell(config, shots):
  """The `Cell` that a config reproduces, evaluated with `shots`; None where it is another experiment."""
  chosen = config.bn_mode, config.split, config.norm
  if (
    config.method not in ("maml", "fomaml")
    or config.tasks != "given"
    or chosen != ("transductive", "published", "batch_norm")
  ):
    return None
  first_order = config.stop_grad or config.method == "fomaml"
  return TABLE_1.get((config.datasource, config.num_classes, shots, config.conv, first_order))
