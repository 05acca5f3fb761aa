"""Task distributions: what they draw, reproducibly, in graphs, compiled, and from Python."""

import numpy as np
import pytest
import tensorflow as tf

from maml_tf import MAML, models, randomness, tasks

SEED = randomness.make_seed(7)


def recovered(x, y):
  """Amplitude and phase of the wave through points (x, y), by least squares on sin x and cos x; and the residual."""
  basis = np.stack([np.sin(x), np.cos(x)], axis=1)
  (a, b), *_ = np.linalg.lstsq(basis, y, rcond=None)
  return np.hypot(a, b), np.arctan2(-b, a), np.abs(basis @ [a, b] - y).max()


@pytest.mark.parametrize("dtype", [tf.float32, tf.float64])
def test_sinusoids_have_the_published_amplitudes_phases_and_inputs(dtype):
  batch = tasks.Sinusoid(10, 15, dtype=dtype).sample(SEED, 500)
  assert batch.support_x.shape == (500, 10, 1) and batch.query_y.shape == (500, 15, 1)
  assert all(field.dtype == dtype for field in batch[:4])
  waves = []
  for task in range(500):
    x = np.concatenate([batch.support_x[task, :, 0], batch.query_x[task, :, 0]]).astype(np.float64)
    y = np.concatenate([batch.support_y[task, :, 0], batch.query_y[task, :, 0]]).astype(np.float64)
    amplitude, phase, residual = recovered(x, y)
    assert residual < (1e-5 if dtype == tf.float32 else 1e-12)
    waves.append((amplitude, phase))
  amplitude, phase = np.array(waves).T
  assert 0.1 <= amplitude.min() < 0.2 and 4.9 < amplitude.max() <= 5.0
  assert -1e-4 <= phase.min() < 0.1 and 3.0 < phase.max() <= np.pi + 1e-4
  assert amplitude.mean() == pytest.approx(2.55, abs=0.2) and phase.mean() == pytest.approx(np.pi / 2, abs=0.15)
  x = np.concatenate([np.ravel(batch.support_x), np.ravel(batch.query_x)])
  assert x.min() < -4.99 and x.max() > 4.99 and abs(x.mean()) < 0.1


def test_half_range_restricts_the_support_points_only():
  for half, low, high in (("left", -5, 0), ("right", 0, 5)):
    batch = tasks.Sinusoid(10, 10, half=half).sample(SEED, 50)
    assert low <= np.min(batch.support_x) and np.max(batch.support_x) <= high
    assert np.min(batch.query_x) < -4 and np.max(batch.query_x) > 4
  with pytest.raises(ValueError, match="half: expected one of"):
    tasks.Sinusoid(10, 10, half="top")


def test_oracle_appends_amplitude_and_phase():
  batch = tasks.Sinusoid(4, 6, oracle=True).sample(SEED, 5)
  x, amplitude, phase = np.moveaxis(batch.query_x.numpy(), -1, 0)
  np.testing.assert_allclose(batch.query_y[..., 0], amplitude * np.sin(x - phase), rtol=1e-5, atol=1e-6)
  plain = tasks.Sinusoid(4, 6).sample(SEED, 5)
  np.testing.assert_array_equal(batch.support_y, plain.support_y)


def test_same_seed_same_tasks_in_a_graph_and_compiled():
  distribution = tasks.Sinusoid(10, 10)
  eager = distribution.sample(SEED, 25)
  for jit_compile in (False, True):
    traced = tf.function(lambda seed: distribution.sample(seed, 25), jit_compile=jit_compile)(SEED)
    for a, b in zip(eager[:4], traced[:4], strict=True):
      np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
  wide = distribution.sample(tf.cast(SEED, tf.int64), 25)
  np.testing.assert_array_equal(wide.query_y, eager.query_y)
  other = distribution.sample(randomness.make_seed(8), 25)
  assert not np.allclose(other.query_y, eager.query_y)


def test_number_of_tasks_may_be_a_tensor():
  sample = tf.function(tasks.Sinusoid(10, 10).sample)
  assert sample(SEED, tf.constant(3)).support_x.shape == (3, 10, 1)
  assert sample(SEED, tf.constant(4)).support_x.shape == (4, 10, 1)
  assert sample.experimental_get_tracing_count() == 1


def lines(rng):
  """Python tasks: y = slope x."""
  while True:
    slope = rng.uniform(-2, 2)
    x = rng.uniform(-1, 1, size=(2, 5, 1)).astype(np.float32)
    yield x[0], np.float32(slope * x[0]), x[1], np.float32(slope * x[1])


def test_tasks_from_a_python_generator():
  distribution = tasks.from_generator(lines)
  batch = tf.function(distribution.sample)(SEED, tf.constant(4))
  assert batch.support_x.shape == (4, 5, 1)
  slopes = batch.support_y / batch.support_x
  np.testing.assert_allclose(slopes, tf.broadcast_to(slopes[:, :1], slopes.shape), rtol=1e-5)
  np.testing.assert_array_equal(distribution.sample(SEED, 4).query_y, batch.query_y)
  assert not np.allclose(distribution.sample(randomness.fold(SEED, 1), 4).query_y, batch.query_y)
  assert not distribution.compiles
  specs = distribution.specs()
  assert specs.support_x.shape == [5, 1] and specs.query_mask is None
  maml = MAML(models.MLP(hidden=(8,)))
  assert np.isfinite(
    tf.function(lambda seed: maml.meta_loss(maml.initial_weights(0), distribution.sample(seed, 3))[0])(SEED)
  )


def test_a_generator_that_ends_is_named():
  def one_task(rng):
    yield tuple(np.zeros((2, 1), np.float32) for _ in range(4))

  distribution = tasks.from_generator(one_task)
  with pytest.raises(Exception, match="stopped after 1 of 3 tasks"):
    distribution.sample(SEED, 3)


def test_randomness_folds_names_and_indices_apart():
  seeds = {
    tuple(randomness.fold(SEED, *path).numpy())
    for path in (("train",), ("test",), (0,), (1,), ("train", 0), ("train", 1), ("test", 0), (0, "train"))
  }
  assert len(seeds) == 8
  assert len({tuple(randomness.make_seed(s).numpy()) for s in (0, 1, 2**31, 2**31 + 1, 2**40)}) == 5


@pytest.mark.parametrize(("dtype", "resolution"), [(tf.float32, 2**-24), (tf.float64, 2**-53)])
def test_uniform_is_uniform_and_never_reaches_its_upper_bound(dtype, resolution):
  from scipy import stats

  values = randomness.uniform(SEED, [100_000], 0.0, 1.0, dtype).numpy()
  assert values.dtype == dtype and values.min() >= 0 and values.max() <= 1 - resolution
  assert stats.kstest(values.astype(np.float64), "uniform").pvalue > 1e-3


def test_what_is_no_generator_function_of_tasks_is_named():
  with pytest.raises(ValueError, match="expected a function of a"):
    tasks.from_generator(lines(np.random.default_rng(0)))

  def triples(rng):
    while True:
      yield tuple(np.zeros((2, 1), np.float32) for _ in range(3))

  with pytest.raises(ValueError, match="the generator yields 3 arrays"):
    tasks.from_generator(triples)
