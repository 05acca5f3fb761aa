"""What Finn et al. 2017 print of sine waves."""

# 5-shot mean squared error after 1, 5 and 10 steps (table 2), by method.
MSE = {
  "maml": {1: 0.67, 5: 0.38, 10: 0.35},
  "pretrain": {1: 2.41, 5: 2.23, 10: 2.19},
}
# Of the multi-task baseline, by its regulariser.
MSE_OF_AVERAGES = {
  "none": {1: 4.19, 5: 3.85, 10: 3.69},
  "l2": {1: 7.18, 5: 5.69, 10: 5.60},
  "mean": {1: 2.91, 5: 2.72, 10: 2.71},
}


def mse(config):
  """What is printed of the method of a config: step -> error, or None."""
  if config.applies("regulariser"):
    return MSE_OF_AVERAGES[config.regulariser]
  return MSE.get(config.method)
