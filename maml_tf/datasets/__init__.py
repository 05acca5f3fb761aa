"""How files become an image bank in memory."""

from maml_tf.datasets.image_bank import ImageBank

__all__ = ["ImageBank"]
