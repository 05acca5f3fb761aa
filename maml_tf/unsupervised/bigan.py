"""BiGAN: an encoder that learns to undo a generator (Donahue, Krähenbühl and Darrell 2017; jeffdonahue/bigan, MNIST).

Fully connected networks, as published for MNIST; the code is uniform in [-1, 1].
"""

import keras
import tensorflow as tf
from keras import layers

from maml_tf import randomness
from maml_tf.unsupervised.trained import SIDE, TrainedEmbedding, adam, descend

RATE, MOMENTUM = 2e-4, 0.5
SLOPE = 0.2


class BiGAN(TrainedEmbedding):
  """Encoder and generator against a critic of pairs: image and its code, or code and its image."""

  batch_size = 128

  def build(self):
    shape = (SIDE, SIDE, self.channels)
    pixels = SIDE * SIDE * self.channels
    encoder = [keras.Input(shape), layers.Flatten(), *self._hidden(), layers.Dense(self.size)]
    generator = [keras.Input((self.size,)), *self._hidden(), layers.Dense(pixels, activation="sigmoid")]
    critic = [keras.Input((pixels + self.size,)), *self._hidden(normalised=False), layers.Dense(1)]
    return {
      "encoder": keras.Sequential(encoder),
      "generator": keras.Sequential([*generator, layers.Reshape(shape)]),
      "critic": keras.Sequential(critic),
    }

  def _hidden(self, normalised=True):
    stack = []
    for _ in range(2):
      stack += [layers.Dense(self.width), *([layers.BatchNormalization()] if normalised else [])]
      stack.append(layers.LeakyReLU(SLOPE))
    return stack

  def make_optimizers(self):
    encoder, generator, critic = self.networks.values()
    return [adam(RATE, nets, beta_1=MOMENTUM) for nets in ((encoder, generator), (critic,))]

  def train_step(self, x, labels, seed):
    del labels
    encoder, generator, critic = self.networks.values()
    code = randomness.uniform(seed, [tf.shape(x)[0], self.size], -1.0, 1.0, tf.float32)
    with tf.GradientTape(persistent=True) as tape:
      pairs = ((x, encoder(x, training=True)), (generator(code, training=True), code))
      real, made = (
        critic(tf.concat([tf.reshape(image, [tf.shape(x)[0], -1]), z], axis=1), training=True) for image, z in pairs
      )
      # softplus(-t) is the loss of a logit t whose label is 1. Encoder and generator want the labels exchanged.
      critics = tf.reduce_mean(tf.nn.softplus(-real) + tf.nn.softplus(made))
      others = tf.reduce_mean(tf.nn.softplus(real) + tf.nn.softplus(-made))
    descend(self.optimizers[0], tape, others, (encoder, generator))
    descend(self.optimizers[1], tape, critics, (critic,))
    return critics
