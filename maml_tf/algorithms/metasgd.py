"""Meta-SGD (Li et al. 2017): MAML that learns a step size for every element of every weight."""

from maml_tf.algorithms.maml import MAML
from maml_tf.maml import LearnedStepSizes


class MetaSGD(MAML):
  """MAML with learned step sizes.

  Args:
    model: an `ExplicitModel`.
    loss: as of `MAML`.
    inner_lr: a float, what the step sizes start from.
    **settings: as of `MAML`.
  """

  def __init__(self, model, loss="mse", inner_lr=0.01, **settings):
    super().__init__(model, loss, LearnedStepSizes(inner_lr, per="element"), **settings)
