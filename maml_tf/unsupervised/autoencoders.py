"""Convolutional autoencoders: a plain one, and ACAI (Berthelot et al. 2019; brain-research/acai)."""

import keras
import tensorflow as tf
from keras import layers

from maml_tf import randomness
from maml_tf.errors import UserError
from maml_tf.unsupervised.trained import SIDE, TrainedEmbedding, adam, descend

SCALES = 3  # 32 x 32 pixels become 4 x 4 places
PLACES = (SIDE // 2**SCALES) ** 2
RATE = 1e-4  # published
SLOPE = 0.2  # of the rectifiers
INTERPOLATED, REALISM = 0.5, 0.2  # ACAI's lambda and gamma


class Autoencoder(TrainedEmbedding):
  """Strided convolutions to a dense code, and back; mean squared error."""

  def build(self):
    filters = [self.width * 2**i for i in range(SCALES)]
    encoder = [keras.Input((SIDE, SIDE, self.channels))]
    encoder += [layers.Conv2D(f, 3, strides=2, padding="same", activation="relu") for f in filters]
    encoder += [layers.Flatten(), layers.Dense(self.size)]
    decoder = [keras.Input((self.size,)), layers.Dense(PLACES * filters[-1], activation="relu")]
    decoder.append(layers.Reshape((4, 4, filters[-1])))
    for f in (*filters[-2::-1], self.width):
      decoder += [layers.UpSampling2D(), layers.Conv2D(f, 3, padding="same", activation="relu")]
    decoder.append(layers.Conv2D(self.channels, 3, padding="same", activation="sigmoid"))
    return {"encoder": keras.Sequential(encoder), "decoder": keras.Sequential(decoder)}

  def make_optimizers(self):
    return [adam(1e-3, self.networks.values())]

  def train_step(self, x, labels, seed):
    del labels, seed
    with tf.GradientTape() as tape:
      decoded = self.networks["decoder"](self.networks["encoder"](x, training=True), training=True)
      loss = tf.reduce_mean((decoded - x) ** 2)
    descend(self.optimizers[0], tape, loss, self.networks.values())
    return loss


class ACAI(TrainedEmbedding):
  """An autoencoder whose interpolations a critic cannot tell from reconstructions.

  The critic guesses how far an image is interpolated; the autoencoder has it guess 0. The code has 4 x 4 places.
  """

  def __init__(self, image_shape, size, width, epochs, seed):
    if size % PLACES:
      raise UserError(
        f"embedding_size={size}: expected a multiple of {PLACES}, as many numbers for each of 4 x 4 places"
      )
    super().__init__(image_shape, size, width, epochs, seed)

  def build(self):
    code = self.size // PLACES
    decoder = [keras.Input((4, 4, code))]
    for scale in reversed(range(SCALES)):
      decoder += [*_convolutions(self.width * 2**scale), layers.UpSampling2D()]
    decoder += [*_convolutions(self.width, 1), layers.Conv2D(self.channels, 3, padding="same")]
    networks = {"encoder": self._encoder(code), "decoder": keras.Sequential(decoder)}
    return networks | {"critic": self._encoder(code)}

  def _encoder(self, code):
    stack = [keras.Input((SIDE, SIDE, self.channels)), layers.Conv2D(self.width, 1, padding="same")]
    for scale in range(SCALES):
      stack += [*_convolutions(self.width * 2**scale), layers.AveragePooling2D(2)]
    stack += [*_convolutions(self.width * 2**SCALES, 1), layers.Conv2D(code, 3, padding="same")]
    return keras.Sequential(stack)

  def make_optimizers(self):
    encoder, decoder, critic = self.networks.values()
    return [adam(RATE, (encoder, decoder)), adam(RATE, (critic,))]

  def train_step(self, x, labels, seed):
    del labels
    encoder, decoder, critic = self.networks.values()
    share = randomness.uniform(seed, [tf.shape(x)[0], 1, 1, 1], 0.0, 0.5, tf.float32)

    def guess(images):
      return tf.reduce_mean(critic(images, training=True), axis=[1, 2, 3])

    with tf.GradientTape(persistent=True) as tape:
      code = encoder(x, training=True)
      decoded = decoder(code, training=True)
      mixed = guess(decoder(share * tf.reverse(code, [0]) + (1 - share) * code, training=True))
      real = guess(decoded + REALISM * (x - decoded))
      loss = tf.reduce_mean((decoded - x) ** 2) + INTERPOLATED * tf.reduce_mean(mixed**2)
      critics = tf.reduce_mean((mixed - share[:, 0, 0, 0]) ** 2) + tf.reduce_mean(real**2)
    descend(self.optimizers[0], tape, loss, (encoder, decoder))
    descend(self.optimizers[1], tape, critics, (critic,))
    return loss


def _convolutions(filters, count=2):
  stack = [[layers.Conv2D(filters, 3, padding="same"), layers.LeakyReLU(SLOPE)] for _ in range(count)]
  return [layer for pair in stack for layer in pair]
