"""The embeddings, each described once. Imports neither NumPy nor TensorFlow."""

import dataclasses
import importlib
import os


@dataclasses.dataclass(frozen=True)
class Record:
  """An embedding.

  Attributes:
    implementation: "module:Class", made from (image shape, **settings).
    size: default size of its vectors; None: it has no such setting.
    width: default width of its networks; None: it has none.
    epochs: default length of its training; None: it is not trained.
  """

  implementation: str
  size: int | None = None
  width: int | None = None
  epochs: int | None = None

  def settings(self, size=None, seed=0, width=None, epochs=None):
    """What the class takes beside the shape of the images, defaults filled in."""
    given = {"size": size, "width": width, "epochs": epochs}
    chosen = {n: getattr(self, n) if v is None else v for n, v in given.items() if getattr(self, n) is not None}
    return chosen | ({"seed": seed} if self.trained else {})

  @property
  def trained(self):
    """Whether it is a network that is trained here."""
    return self.epochs is not None

  def load(self):
    """The class."""
    module, _, name = self.implementation.partition(":")
    return getattr(importlib.import_module(module), name)


_HERE = "maml_tf.unsupervised"
EMBEDDINGS = {
  "pixels": Record(f"{_HERE}.embeddings:Pixels"),
  "zca": Record(f"{_HERE}.embeddings:ZCA"),
  "pca": Record(f"{_HERE}.embeddings:PCA", size=32),
  "autoencoder": Record(f"{_HERE}.autoencoders:Autoencoder", size=64, width=32, epochs=20),
  # Published: width 64, which needs an accelerator; BiGAN of 200 to 400 epochs.
  "acai": Record(f"{_HERE}.autoencoders:ACAI", size=256, width=16, epochs=20),
  "bigan": Record(f"{_HERE}.bigan:BiGAN", size=200, width=512, epochs=50),
  "deepcluster": Record(f"{_HERE}.deepcluster:DeepCluster", size=64, width=32, epochs=20),
}


def is_array(embedding):
  """Whether an embedding is named by the file of a user's array."""
  return os.fspath(embedding).endswith((".npy", ".npz"))
