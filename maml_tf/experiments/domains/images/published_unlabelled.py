"""Published accuracies of learning without labels, in %, with 95 % intervals where they are printed.

Hsu, Levine and Finn 2019, tables 2 and 3 (CACTUs); Khodadadeh, Boloni and Shah 2019 (UMTRA). Only the rows that later
papers reprint are here: the others could not be read in a source.
"""

# Data set -> (method, embedding) -> (accuracy, interval) for 5-way 1-shot, 5-way 5-shot, 20-way 1-shot and 20-way
# 5-shot; of miniImageNet, for 5-way 1, 5, 20 and 50 shots.
ACCURACIES = {
  "omniglot": {
    ("CACTUs-MAML", "ACAI"): ((68.84, 0.80), (87.78, 0.50), (48.09, None), (73.36, None)),
    ("CACTUs-ProtoNets", "ACAI"): ((68.12, 0.84), (83.58, 0.61), (47.75, None), (66.27, None)),
    ("UMTRA-MAML", "none"): ((83.80, None), (95.43, None), (74.25, None), (92.12, None)),
  },
  "miniimagenet": {
    ("CACTUs-MAML", "DeepCluster"): ((39.90, 0.74), (53.97, 0.70), (63.84, None), (69.64, None)),
    ("CACTUs-ProtoNets", "DeepCluster"): ((39.18, 0.71), (53.36, 0.70), (61.54, None), (63.55, None)),
    ("UMTRA-MAML", "none"): ((39.93, None), (50.73, None), (61.11, None), (67.15, None)),
  },
}
