"""Embeddings that are networks trained here: what they share."""

import abc
import os
import zipfile

import keras
import numpy as np
import tensorflow as tf

from maml_tf import progress, randomness

SIDE = 32  # pixels: what the networks see (Berthelot et al. 2019)
STORED = "progress.npz"
TRANSFORM_BATCH = 256


class TrainedEmbedding(abc.ABC):
  """A network that is trained epoch by epoch, each of which follows from the seed and its number alone.

  Args:
    image_shape: (H, W, C) of the images; smaller ones than 32 x 32 are padded, larger ones resized.
    size: of the vectors.
    width: filters or units of the first layer.
    epochs: of the training.
    seed: Python integer.
  """

  batch_size = 64

  def __init__(self, image_shape, size, width, epochs, seed):
    self.size, self.width, self.epochs, self.seed = size, width, epochs, seed
    self.channels = image_shape[-1]
    self.networks = self.build()
    rng = np.random.default_rng([seed, 0])
    for network in self.networks.values():
      initialise(network, rng)
    self.optimizers = self.make_optimizers()
    self._step = tf.function(self.train_step, autograph=False)

  @abc.abstractmethod
  def build(self):
    """Dict of name -> Keras model; the one that embeds is "encoder"."""

  @abc.abstractmethod
  def make_optimizers(self):
    """List of optimisers, each built."""

  @abc.abstractmethod
  def train_step(self, x, labels, seed):
    """Trains on images [B, 32, 32, C]; labels are those of `labels_of`."""

  def labels_of(self, images, rng):
    """int32 [M], what the images are trained to be in the next epoch; most embeddings need none."""
    del rng
    return np.zeros(len(images), np.int32)

  def order(self, labels, rng):
    """The images of an epoch."""
    return rng.permutation(len(labels))

  def fit(self, images, folder):
    """Trains from the last epoch that is in `folder` on; returns dict of name -> array."""
    first = self._restore(folder / STORED)
    bar = progress.bar(range(first, self.epochs), desc=type(self).__name__, unit=" epochs", initial=first)
    for epoch in bar:
      rng = np.random.default_rng([self.seed, 1, epoch])
      labels = self.labels_of(images, rng)
      order, size = self.order(labels, rng), min(self.batch_size, len(images))
      for number in progress.bar(range(len(order) // size), desc=f"epoch {epoch + 1}", unit=" batches", leave=False):
        rows = np.sort(order[number * size : (number + 1) * size])
        seed = randomness.fold(randomness.make_seed(self.seed), "step", epoch, number)
        self._step(seen(images[rows]), tf.constant(labels[rows]), seed)
      self._store(folder / STORED, epoch + 1)
    return {f"weight{i:03d}": value for i, value in enumerate(self.networks["encoder"].get_weights())}

  def transform(self, state, images):
    """float32 [n, size]."""
    encoder = self.networks["encoder"]
    encoder.set_weights([np.asarray(state[name]) for name in sorted(state) if name.startswith("weight")])
    return self.encoded(images)

  def encoded(self, images):
    """What the encoder makes of images, as it is now."""
    encoder = self.networks["encoder"]
    parts = (images[i : i + TRANSFORM_BATCH] for i in range(0, len(images), TRANSFORM_BATCH))
    codes = [encoder(seen(part), training=False).numpy() for part in parts]
    return np.concatenate(codes).reshape(len(images), -1)

  def _variables(self):
    return [v for part in (*self.networks.values(), *self.optimizers) for v in part.variables]

  def _store(self, path, epochs):
    temporary = path.with_name(f".{path.name}.half")
    arrays = {str(i): variable.numpy() for i, variable in enumerate(self._variables())}
    with open(temporary, "wb") as file:
      np.savez(file, epochs=epochs, **arrays)
      file.flush()
      os.fsync(file.fileno())
    os.replace(temporary, path)

  def _restore(self, path):
    """The number of epochs that are done; 0 where nothing is stored, or nothing that can be read."""
    try:
      with np.load(path, allow_pickle=False) as stored:
        arrays = [stored[str(i)] for i in range(len(self._variables()))]
        epochs = int(stored["epochs"])
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
      return 0
    for variable, value in zip(self._variables(), arrays, strict=True):
      variable.assign(value)
    return epochs


def initialise(network, rng):
  """Kernels by Glorot's rule from a NumPy generator: Keras' own seeds are those of the process."""
  for variable in network.trainable_variables:
    if len(variable.shape) > 1:
      receptive = np.prod(variable.shape[:-2])
      limit = np.sqrt(6 / (receptive * (variable.shape[-2] + variable.shape[-1])))
      variable.assign(rng.uniform(-limit, limit, variable.shape).astype(np.float32))


def seen(images):
  """uint8 [n, H, W, C] as float32 [n, 32, 32, C] in [0, 1]."""
  x = tf.cast(images, tf.float32) / 255
  if max(x.shape[1:3]) > SIDE:
    return tf.image.resize(x, (SIDE, SIDE), antialias=True)
  return tf.image.resize_with_crop_or_pad(x, SIDE, SIDE)


def adam(rate, networks, **settings):
  """An optimiser of the weights of some networks."""
  optimizer = keras.optimizers.Adam(rate, **settings)
  optimizer.build([v for network in networks for v in network.trainable_variables])
  return optimizer


def descend(optimizer, tape, loss, networks):
  """A step on all weights of some networks."""
  variables = [v for network in networks for v in network.trainable_variables]
  optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))
