"""ANIL (Raghu et al. 2020, "almost no inner loop"): MAML that adapts the last layer only."""

from maml_tf.algorithms.maml import MAML


class ANIL(MAML):
  """MAML whose inner loop changes the head; the body is meta-learned.

  Args:
    model: an `ExplicitModel`.
    loss: as of `MAML`.
    inner_lr: a float.
    **settings: as of `MAML`.
  """

  def __init__(self, model, loss="mse", inner_lr=0.01, **settings):
    super().__init__(model, loss, head_only(model, inner_lr), **settings)


def head_only(model, inner_lr):
  """The `inner_lr` of ANIL: a step size for the last layer's weights alone."""
  return dict.fromkeys(model.head_names, inner_lr)
