"""Methods of meta-learning: the contract in `base`, and one file a method."""
