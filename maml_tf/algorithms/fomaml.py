"""First-order MAML (Finn et al. 2017, section 5.2): MAML without second derivatives, under a name of its own."""

from maml_tf.algorithms.maml import MAML


class FirstOrderMAML(MAML):
  """MAML whose meta-gradient is the query loss's gradient at the adapted weights. The same as `first_order=True`.

  Args:
    model: an `ExplicitModel`.
    loss: as of `MAML`.
    inner_lr: as of `MAML`.
    **settings: as of `MAML`, but for `first_order`.
  """

  def __init__(self, model, loss="mse", inner_lr=0.01, **settings):
    super().__init__(model, loss, inner_lr, first_order=True, **settings)
