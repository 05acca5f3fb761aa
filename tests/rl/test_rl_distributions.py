"""The distributions of actions, against SciPy."""

import numpy as np
import pytest
import scipy.stats
import tensorflow as tf

from maml_tf.rl.distributions import Categorical, DiagonalGaussian

RNG = np.random.default_rng(0)


def gaussian(seed):
  rng = np.random.default_rng(seed)
  return DiagonalGaussian(tf.constant(rng.normal(size=(4, 3))), tf.constant(rng.normal(size=(4, 3)) * 0.5))


def categorical(seed):
  return Categorical(tf.constant(np.random.default_rng(seed).normal(size=(4, 5))))


def test_gaussian_log_prob_and_entropy():
  distribution, value = gaussian(0), RNG.normal(size=(4, 3))
  reference = scipy.stats.norm(distribution.mean.numpy(), np.exp(distribution.log_std))
  np.testing.assert_allclose(distribution.log_prob(value), reference.logpdf(value).sum(-1))
  np.testing.assert_allclose(distribution.entropy(), reference.entropy().sum(-1))


def test_gaussian_kl_is_the_integral():
  left, right = gaussian(0), gaussian(1)
  grid = np.linspace(-12, 12, 20001)
  expected = np.zeros(4)
  for row in range(4):
    for column in range(3):
      p, q = (scipy.stats.norm(d.mean[row, column], np.exp(d.log_std[row, column])) for d in (left, right))
      expected[row] += np.trapezoid(p.pdf(grid) * (p.logpdf(grid) - q.logpdf(grid)), grid)
  np.testing.assert_allclose(left.kl(right), expected, rtol=1e-6)


def test_gaussian_samples_have_its_moments():
  one = gaussian(0)
  many = DiagonalGaussian(*(tf.repeat(v[tf.newaxis], 20000, 0) for v in one)).sample(tf.constant([1, 2])).numpy()
  np.testing.assert_allclose(many.mean(0), one.mean, atol=0.05)
  np.testing.assert_allclose(many.std(0), np.exp(one.log_std), rtol=0.03)


def test_categorical_log_prob_entropy_and_kl():
  left, right = categorical(0), categorical(1)
  p, q = (np.exp(d.logits) / np.exp(d.logits).sum(-1, keepdims=True) for d in (left, right))
  value = np.array([0, 4, 2, 1])
  np.testing.assert_allclose(left.log_prob(tf.constant(value)), np.log(p[np.arange(4), value]))
  np.testing.assert_allclose(left.entropy(), scipy.stats.entropy(p, axis=-1))
  np.testing.assert_allclose(left.kl(right), scipy.stats.entropy(p, q, axis=-1))


def test_categorical_samples_have_its_frequencies():
  one = categorical(0)
  many = Categorical(tf.repeat(one.logits[tf.newaxis], 20000, 0)).sample(tf.constant([1, 2])).numpy()
  frequency = np.stack([(many == k).mean(0) for k in range(5)], -1)
  p = np.exp(one.logits) / np.exp(one.logits).sum(-1, keepdims=True)
  np.testing.assert_allclose(frequency, p, atol=0.015)


@pytest.mark.parametrize("make", [gaussian, categorical])
def test_the_fisher_information_is_the_hessian_of_the_kl(make):
  one, other = make(0), make(1)
  tangent = type(one)(*(0.7 * v for v in other))

  def kl(step):
    return one.kl(type(one)(*(p + step * t for p, t in zip(one, tangent, strict=True))))

  second = (kl(1e-4) - 2 * kl(0.0) + kl(-1e-4)) / 1e-8
  product = sum(tf.reduce_sum(t * f, -1) for t, f in zip(tangent, one.fisher(tangent), strict=True))
  np.testing.assert_allclose(product, second, rtol=1e-4)


@pytest.mark.parametrize("make", [gaussian, categorical])
def test_the_mode_is_the_most_likely_value(make):
  one = make(0)
  mode = one.mode()
  shifted = mode + 0.1 if mode.dtype.is_floating else (mode + 1) % 5
  assert np.all(one.log_prob(mode) > one.log_prob(shifted))
