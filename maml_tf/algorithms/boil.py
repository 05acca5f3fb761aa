"""BOIL (Oh et al. 2021, "body only update in inner loop"): MAML that adapts all but the last layer."""

from maml_tf.algorithms.maml import MAML


class BOIL(MAML):
  """MAML whose inner loop changes the body; the head is meta-learned, and the same for every task.

  Args:
    model: an `ExplicitModel`.
    loss: as of `MAML`.
    inner_lr: a float.
    **settings: as of `MAML`.
  """

  def __init__(self, model, loss="mse", inner_lr=0.01, **settings):
    super().__init__(model, loss, body_only(model, inner_lr), **settings)


def body_only(model, inner_lr):
  """The `inner_lr` of BOIL: a step size for every adapted weight that is not the last layer's."""
  return {name: inner_lr for name in model.adapted_names if name not in model.head_names}
