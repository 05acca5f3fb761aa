"""What Finn et al. 2017 print of sine waves."""

# 5-shot mean squared error after 1, 5 and 10 steps (table 2), by method.
MSE = {
  "maml": {1: 0.67, 5: 0.38, 10: 0.35},
  "pretrain": {1: 2.41, 5: 2.23, 10: 2.19},
}
