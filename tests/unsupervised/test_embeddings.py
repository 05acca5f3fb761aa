"""Embeddings of images, and arrays of a user's own."""

import sys

import numpy as np
import pytest

from maml_tf.errors import UserError
from maml_tf.unsupervised import embeddings


@pytest.fixture(scope="module")
def images():
  return np.random.default_rng(0).integers(0, 256, (60, 4, 5, 1)).astype(np.uint8)


def test_principal_components_are_those_of_a_decomposition(images, tmp_path):
  found = embeddings.embed("pca", images, tmp_path, size=3)
  x = images.reshape(60, -1) / 255.0
  centred = x - x.mean(axis=0)
  _, _, directions = np.linalg.svd(centred, full_matrices=False)
  np.testing.assert_allclose(np.abs(found.values), np.abs(centred @ directions[:3].T), atol=1e-4)
  np.testing.assert_allclose(found.transform(images[7:9]), found.values[7:9], atol=1e-5)


def test_an_embedding_is_kept_under_what_it_is_made_from(images, tmp_path, monkeypatch):
  first = embeddings.embed("pca", images, tmp_path, size=3)
  monkeypatch.setattr(embeddings.PCA, "fit", lambda *_: pytest.fail("fitted again"))
  again = embeddings.embed("pca", images, tmp_path, size=3)
  assert first.fingerprint == again.fingerprint
  with pytest.raises(pytest.fail.Exception):
    embeddings.embed("pca", 255 - images, tmp_path, size=3)
  with pytest.raises(pytest.fail.Exception):
    embeddings.embed("pca", images, tmp_path, size=4)


def test_whitened_pixels_are_uncorrelated(tmp_path):
  images = np.random.default_rng(0).integers(0, 256, (4000, 2, 3, 1)).astype(np.uint8)
  values = embeddings.embed("zca", images, tmp_path).values
  covariance = np.cov(values, rowvar=False)
  # Taking each image's mean away leaves one direction without variance.
  np.testing.assert_allclose(np.linalg.eigvalsh(covariance), [0, 1, 1, 1, 1, 1], atol=1e-3)


def test_pixels_are_between_0_and_1(images, tmp_path):
  np.testing.assert_allclose(
    embeddings.embed("pixels", images, tmp_path).values * 255, images.reshape(60, 20), atol=1e-4
  )


def test_an_array_of_ones_own(tmp_path):
  values = np.arange(12).reshape(6, 2)
  np.save(tmp_path / "a.npy", values)
  found = embeddings.embed(str(tmp_path / "a.npy"), np.zeros((6, 2, 2, 1), np.uint8), tmp_path)
  np.testing.assert_array_equal(found.values, values)
  assert found.values.dtype == np.float32 and found.transform is None
  np.savez(tmp_path / "a.npz", train=values, test=values[:2])
  np.testing.assert_array_equal(embeddings.from_file(tmp_path / "a.npz", 6).parts["test"], values[:2])


def nan():
  values = np.zeros((6, 2))
  values[4, 1] = np.nan
  return values


@pytest.mark.parametrize(
  ("arrays", "said"),
  [
    (dict(train=np.zeros((5, 2))), "5 rows for 6 training images"),
    (dict(train=nan()), "row 4 holds NaN"),
    (dict(train=np.zeros(6)), r"it is float64 \[6\]; expected numbers \[M, D\]"),
    (dict(train=np.array([["a"] * 2] * 6)), "it is <U1 .*expected numbers"),
    (dict(embedding=np.zeros((6, 2))), "it holds embedding; expected an array named train"),
    (dict(train=np.zeros((6, 2)), test=np.zeros((3, 4))), "test has 4 columns, train has 2"),
  ],
)
def test_bad_arrays_are_refused_in_a_line(tmp_path, arrays, said):
  np.savez(tmp_path / "bad.npz", **arrays)
  with pytest.raises(UserError, match=rf"^embedding=.*bad\.npz: {said}") as raised:
    embeddings.from_file(tmp_path / "bad.npz", 6)
  assert "\n" not in str(raised.value)


def test_what_is_no_array_is_refused(tmp_path):
  (tmp_path / "text.npy").write_text("not numpy")
  for name in ("text.npy", "absent.npz"):
    with pytest.raises(UserError, match=rf"^embedding=.*{name}: cannot be read"):
      embeddings.from_file(tmp_path / name, 6)


def test_sizes_that_cannot_be_are_refused(images, tmp_path):
  with pytest.raises(UserError, match=r"^embedding_size=21: expected at most 20"):
    embeddings.embed("pca", images, tmp_path, size=21)
  with pytest.raises(UserError, match=r"^embedding=nonsense: expected one of pixels, zca, pca, autoencoder"):
    embeddings.embed("nonsense", images, tmp_path)
  with pytest.raises(UserError, match=r"^embedding=zca: images of 84 x 84 x 3 are too large"):
    embeddings.embed("zca", np.zeros((2, 84, 84, 3), np.uint8), tmp_path)


def test_without_the_extra_it_is_named(images, tmp_path, monkeypatch):
  monkeypatch.setitem(sys.modules, "sklearn.decomposition", None)
  with pytest.raises(UserError, match=r"pip install 'maml_tf\[unsupervised\]'"):
    embeddings.embed("pca", images, tmp_path, size=2)
