"""The domains of the experiments, a folder each: settings, published numbers, experiment, plots."""
