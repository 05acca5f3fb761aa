"""How files become an image bank in memory.

`ImageBank` loads on first use: `datasets.locate` answers a command line before NumPy and TensorFlow are imported.
"""

__all__ = ["ImageBank"]


def __getattr__(name):
  if name == "ImageBank":
    from maml_tf.datasets.image_bank import ImageBank

    return ImageBank
  raise AttributeError(f"module 'maml_tf.datasets' has no attribute {name!r}")
