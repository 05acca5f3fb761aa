"""The baselines of the paper, as relatives of MAML: the same inner loop, other ways to an initialisation."""

from maml_tf.baselines.pretraining import STEP_SIZES, Pretraining, best_step_size

__all__ = ["STEP_SIZES", "Pretraining", "best_step_size"]
