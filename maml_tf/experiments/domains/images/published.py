"""Published test accuracies of images: table 1 of Finn et al. 2017, and those of the methods it is compared with."""

from typing import NamedTuple

TABLE = "Finn et al. 2017, table 1"


class Cell(NamedTuple):
  """A test accuracy, its 95 % interval (both as shares), and the number of steps after which it is read.

  Where the interval is None, none is printed; where the step is, the method has none, or the last is read.
  """

  accuracy: float
  ci95: float | None
  step: int | None
  source: str = TABLE


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


_OMNIGLOT = (("omniglot", 5, 1), ("omniglot", 5, 5), ("omniglot", 20, 1), ("omniglot", 20, 5))
_MINIIMAGENET = (("miniimagenet", 5, 1), ("miniimagenet", 5, 5))


def _row(tasks, accuracies, ci95=(), source=TABLE, step=None, conv=True):
  """Cells in %, None where none is printed, as (data set, ways, shots, convolutional) -> `Cell`."""
  ci95 = ci95 or (None,) * len(tasks)
  there = [each for each in zip(tasks, accuracies, ci95, strict=True) if each[1] is not None]
  return {
    (*task, conv): Cell(round(a / 100, 6), None if c is None else round(c / 100, 6), step, source)
    for task, a, c in there
  }


# By method, then data set, ways, shots and whether convolutional. Those of other sources than the table are from the
# papers of the methods; for MAML++ from the page of results that belongs to it, for ANIL from learn2learn's.
OF_OTHERS = {
  "mann": _row(_OMNIGLOT, (82.8, 94.9, None, None), conv=False),
  "siamese": _row(_OMNIGLOT, (97.3, 98.4, 88.2, 97.0)),
  "matching": _row(_OMNIGLOT, (98.1, 98.9, 93.8, 98.5)) | _row(_MINIIMAGENET, (43.56, 55.31), (0.84, 0.73)),
  "statistician": _row(_OMNIGLOT, (98.1, 99.5, 93.2, 98.1)),
  "memory": _row(_OMNIGLOT, (98.4, 99.6, 95.0, 98.6)),
  "finetune": _row(_MINIIMAGENET, (28.86, 49.79), (0.54, 0.79)),
  "neighbour": _row(_MINIIMAGENET, (41.08, 51.04), (0.70, 0.65)),
  "metalstm": _row(_MINIIMAGENET, (43.44, 60.60), (0.77, 0.71)),
  "context": _row(_OMNIGLOT[:2], (94.9, 97.7), (0.9, 0.3), "Finn et al. 2017, table 3"),
  "protonet": (
    _row(_OMNIGLOT, (98.8, 99.7, 96.0, 98.9), source="Snell et al. 2017")
    | _row(_MINIIMAGENET, (49.42, 68.20), (0.78, 0.66), "Snell et al. 2017")
  ),
  "snail": (
    _row(_OMNIGLOT, (99.07, 99.78, 97.64, 99.36), source="Mishra et al. 2018")
    | _row(_MINIIMAGENET, (55.71, 68.88), (0.99, 0.92), "Mishra et al. 2018")
  ),
  "mamlpp": (
    _row(_OMNIGLOT, (99.47, 99.85, 97.65, 99.33), source="Antoniou et al. 2019")
    | _row(_MINIIMAGENET, (52.40, 67.15), source="Antoniou et al. 2019")
  ),
  "metasgd": _row(_OMNIGLOT, (99.5, 99.9, 95.9, 99.0), source="Li et al. 2017"),
  "anil": (
    _row(_OMNIGLOT, (None, None, 96.2, 98.0), (None, None, 0.5, 0.3), "Raghu et al. 2020")
    | _row(_MINIIMAGENET, (46.7, 61.5), (0.4, 0.5), "Raghu et al. 2020")
  ),
  "imaml": _row(_OMNIGLOT, (99.16, 99.67, 94.46, 98.69), source="Rajeswaran et al. 2019, gradient descent"),
  "reptile": (
    _row(_OMNIGLOT, (97.68, 99.48, 89.43, 97.12), (0.04, 0.06, 0.14, 0.32), "Nichol et al. 2018, transductive")
    | _row(_MINIIMAGENET, (49.97, 65.99), (0.32, 0.58), "Nichol et al. 2018, transductive")
  ),
  "fomaml": _row(_OMNIGLOT, (98.3, 99.2, 89.4, 97.9), (0.5, 0.2, 0.5, 0.1), "Nichol et al. 2018, transductive"),
  "platipus": _row(_MINIIMAGENET, (50.13, None), (1.86, None), "Finn et al. 2018"),
}
# What differs between the protocols of the cells: it is printed below the tables that have them.
NOTES = {
  "omniglot": (
    "Splits differ: Finn et al. divide all characters at random, 1,100 for training, as every run here does; those of "
    "Vinyals et al. (matching, prototypical networks) and of Reptile have 1,200, with rotations as classes of their "
    "own; the paper itself warns that such numbers may not be comparable.",
    "The memory-augmented network's (Santoro et al. 2016) are no K-shot episodes: they are accuracies at the second "
    "and the fifth time that a class comes up in a sequence, and the paper prints them under 1-shot and 5-shot. That "
    "network has no convolutions.",
    "Siamese networks: Koch et al. 2015 report 92.0 % on one protocol, 20-way and 1-shot within an alphabet (Lake et "
    "al.). The row that the paper prints is others' re-run (Kaiser et al. 2017) on episodes.",
    "The memory module's (Kaiser et al. 2017) are measured in one long episode in which memory is filled as it goes, "
    "with a network of its own; SNAIL and the neural statistician have networks of their own as well.",
    "Prototypical networks were trained with 60 ways, MAML++ on 20 ways with 8 tasks and running statistics; every run "
    "here trains with the ways and shots that it is tested with, but 5-shot rows of MAML, which are of the 1-shot "
    "training, as published.",
    "Reptile and first-order MAML (Nichol et al. 2018) took 50 inner steps in the test, and are quoted with the "
    "queries' own batch statistics, which every run here has too.",
  ),
  "miniimagenet": (
    "All have the 64 classes of Ravi and Larochelle 2017 for training. Their baselines, matching networks (with full "
    "context) and meta-learner LSTM are tested with 15 queries per class; MAML's published code with as many as shots.",
    "SNAIL's network is a residual one of 12 layers; the other rows have four convolutions of 32 or 64 filters.",
  ),
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
  if chosen != ("transductive", "published", "batch_norm"):
    return None
  task = config.datasource, config.num_classes, shots, config.conv
  found = None
  if config.method in ("maml", "fomaml"):
    found = TABLE_1.get((*task, config.stop_grad or config.method == "fomaml"))
  return found or OF_OTHERS.get(config.method, {}).get(task)
