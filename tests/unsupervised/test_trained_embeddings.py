"""Embeddings that are trained here."""

import numpy as np
import pytest
import tensorflow as tf

from maml_tf import randomness
from maml_tf.errors import UserError
from maml_tf.unsupervised import autoencoders, deepcluster, embeddings, kept, trained

SIZES = {"autoencoder": (4, 2), "acai": (16, 2), "bigan": (4, 8), "deepcluster": (4, 2)}


@pytest.fixture(scope="module")
def images():
  """Bright and dark halves."""
  rng = np.random.default_rng(0)
  x = rng.integers(0, 60, (24, 6, 6, 1))
  x[12:, :3] += 150
  x[:12, 3:] += 150
  return x.astype(np.uint8)


def embed(name, images, folder, epochs):
  size, width = SIZES[name]
  return embeddings.embed(name, images, folder, size=size, width=width, epochs=epochs, seed=1)


def trained_whole(name, images, folder):
  whole = embed(name, images, folder, 2)
  assert whole.values.shape == (24, SIZES[name][0]) and np.isfinite(whole.values).all()
  np.testing.assert_allclose(whole.transform(images[5:9]), whole.values[5:9], atol=1e-4)
  return whole


@pytest.mark.parametrize("name", ["autoencoder", "bigan"])
def test_it_trains(name, images, tmp_path):
  trained_whole(name, images, tmp_path)


@pytest.mark.parametrize("name", ["acai", "deepcluster"])  # with two optimisers; with labels of its own
def test_it_goes_on_bit_for_bit(name, images, tmp_path, monkeypatch):
  whole = trained_whole(name, images, tmp_path / "whole")
  store = trained.TrainedEmbedding._store

  def interrupted(self, path, epochs):
    store(self, path, epochs)
    if epochs == 1:
      raise KeyboardInterrupt

  with monkeypatch.context() as patch:
    patch.setattr(trained.TrainedEmbedding, "_store", interrupted)
    with pytest.raises(KeyboardInterrupt):
      embed(name, images, tmp_path / "cut", 2)
  done = []
  monkeypatch.setattr(
    trained.TrainedEmbedding, "_store", lambda self, path, epochs: done.append(epochs) or store(self, path, epochs)
  )
  again = embed(name, images, tmp_path / "cut", 2)
  assert done == [2]
  assert again.values.tobytes() == whole.values.tobytes()
  assert not list((tmp_path / "cut").glob("*.unfinished"))


def test_an_autoencoder_learns_to_reconstruct(images):
  model = autoencoders.Autoencoder((6, 6, 1), 4, 4, 1, 0)
  x, seed = trained.seen(images), randomness.make_seed(0)
  losses = [float(model._step(x, tf.zeros([24], tf.int32), seed)) for _ in range(60)]
  assert losses[-1] < 0.6 * losses[0]


def test_the_losses_of_acai_are_those_of_its_paper(images):
  """By hand, of one step: the autoencoder's, before its weights change."""
  model = autoencoders.ACAI((6, 6, 1), 16, 2, 1, 0)
  encoder, decoder, critic = model.networks.values()
  x, seed = trained.seen(images), randomness.make_seed(3)
  code = encoder(x).numpy()
  share = randomness.uniform(seed, [24, 1, 1, 1], 0.0, 0.5, tf.float32).numpy()
  mixed = critic(decoder(share * code[::-1] + (1 - share) * code)).numpy().mean(axis=(1, 2, 3))
  expected = ((decoder(code).numpy() - x.numpy()) ** 2).mean() + 0.5 * (mixed**2).mean()
  assert float(model._step(x, None, seed)) == pytest.approx(expected, rel=1e-4)
  with pytest.raises(UserError, match=r"^embedding_size=20: expected a multiple of 16"):
    autoencoders.ACAI((6, 6, 1), 20, 2, 1, 0)


def test_every_cluster_is_drawn_alike_often():
  model = deepcluster.DeepCluster.__new__(deepcluster.DeepCluster)
  labels = np.repeat([0, 1, 2], [80, 8, 2])
  drawn = model.order(labels, np.random.default_rng(0))
  np.testing.assert_array_equal(np.bincount(labels[drawn]), [30, 30, 30])


def test_large_images_are_made_smaller():
  assert trained.seen(np.zeros((2, 84, 84, 3), np.uint8)).shape == (2, 32, 32, 3)
  assert len({kept.fingerprint(np.zeros(n, np.uint8)) for n in (1, 2)}) == 2
