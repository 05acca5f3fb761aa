"""Tasks for an environment without rewards: identities of what is proposed, and runs on 2D navigation."""

import math

import numpy as np
import pytest
import scipy.stats
import tensorflow as tf

from maml_tf import randomness
from maml_tf.errors import UserError
from maml_tf.experiments import run
from maml_tf.experiments.config import resolve, training_settings
from maml_tf.rl.environments import PointNavigation
from maml_tf.rl.skills import carml, diayn, rewards

K = 4


@pytest.fixture(scope="module")
def states():
  return tf.constant(np.random.default_rng(0).normal(size=(3, 5, 7, 2)), tf.float32)


@pytest.fixture(scope="module")
def skills():
  return tf.one_hot(np.random.default_rng(1).integers(K, size=(3, 5)), K)


def test_a_discriminator_that_knows_nothing_gives_no_reward(states, skills):
  """With q = p the pseudo-reward is 0, and its loss is log K."""
  discriminator = rewards.Discriminator(2, K)
  weights = discriminator.initial_weights(0)
  np.testing.assert_allclose(discriminator.reward(weights)(states[:, :, 0], skills), np.zeros((3, 5)), atol=1e-6)
  loss = discriminator.loss(weights, states, skills, tf.ones(states.shape[:3]))
  assert float(loss) == pytest.approx(math.log(K), abs=1e-6)


def test_a_discriminator_that_is_sure_gives_log_k(states, skills):
  discriminator = rewards.Discriminator(2, K)
  weights = discriminator.random_weights(0)
  found = discriminator.reward(weights)(states[:, :, 0], skills).numpy()
  assert (found <= math.log(K)).all() and found.std() > 0
  sure = weights | {
    "dense_2/kernel": tf.zeros_like(weights["dense_2/kernel"]),
    "dense_2/bias": tf.constant([50.0, 0, 0, 0]),
  }
  first = tf.one_hot(tf.zeros([3, 5], tf.int32), K)
  np.testing.assert_allclose(discriminator.reward(sure)(states[:, :, 0], first), math.log(K), atol=1e-5)


@pytest.fixture(scope="module")
def mixture():
  rng = np.random.default_rng(2)
  weight = rng.dirichlet(np.ones(K))
  arrays = {"mean": rng.normal(size=(K, 2)), "variance": rng.uniform(0.5, 2, (K, 2)), "weight": weight}
  return {name: tf.constant(value, tf.float32) for name, value in arrays.items()}


def test_the_reward_of_a_mixture_is_its_closed_form(states, skills, mixture):
  """Against SciPy."""
  found = carml.reward(mixture)(states[:, :, 0], skills).numpy()
  m = {name: value.numpy() for name, value in mixture.items()}
  densities = np.stack([
    scipy.stats.multivariate_normal(m["mean"][k], np.diag(m["variance"][k])).pdf(states[:, :, 0].numpy())
    for k in range(K)
  ], axis=-1)  # fmt: skip
  chosen = (densities * skills.numpy()).sum(-1)
  np.testing.assert_allclose(found, np.log(chosen) - np.log(densities @ m["weight"]), rtol=1e-4, atol=1e-4)


def test_em_raises_the_likelihood(mixture):
  x = tf.constant(np.random.default_rng(3).normal(size=(200, 2)) * [3, 0.5] + [1, 2], tf.float32)
  mask = tf.constant(np.arange(200) < 150, tf.float32)
  likelihoods = []
  for _ in range(8):
    likelihoods.append(float(tf.reduce_mean(carml.log_density(mixture, x[:150]))))
    mixture = carml.em_step(mixture, x, mask, memory=0.0)
  assert (np.diff(likelihoods) > -1e-5).all() and likelihoods[-1] > likelihoods[0]
  assert float(tf.reduce_sum(mixture["weight"])) == pytest.approx(1)
  still = carml.em_step(mixture, x, mask, memory=1.0)
  for name, value in mixture.items():
    np.testing.assert_allclose(still[name], value, atol=1e-4)


def test_proposed_tasks_have_their_own_reward_and_no_goal():
  environment = rewards.ProposedTasks(PointNavigation(5), K, lambda states, skills: skills[..., 1])
  goals = environment.sample_goals(randomness.make_seed(0), [40])
  np.testing.assert_array_equal(tf.reduce_sum(goals, -1), np.ones(40))
  assert (goals.numpy().sum(axis=0) > 0).all()
  state, observation = environment.reset(randomness.make_seed(0), goals[:, tf.newaxis])
  np.testing.assert_array_equal(observation, np.zeros((40, 1, 2)))
  state, observation, reward, terminated = environment.step(state, tf.ones([40, 1, 2]))
  np.testing.assert_allclose(observation, np.full((40, 1, 2), 0.1))
  np.testing.assert_array_equal(reward[:, 0], goals[:, 1])
  assert not terminated.numpy().any()


def test_diayn_tells_its_skills_apart_and_goes_on_bit_for_bit(tmp_path, monkeypatch):
  monkeypatch.setattr(diayn, "STORE_EVERY", 4)
  for name in ("whole", "cut"):
    (tmp_path / name).mkdir()
  learner = diayn.DIAYN(PointNavigation(10), 3, rollouts=20)
  whole = learner.train(8, 0, tmp_path / "whole")
  learner.train(4, 0, tmp_path / "cut")
  again = learner.train(8, 0, tmp_path / "cut")
  for name, value in whole.items():
    assert value.tobytes() == again[name].tobytes(), name


SETTINGS = dict(
  datasource="point", horizon=6, meta_batch_size=3, rollouts_per_task=4, metatrain_iterations=2, eval_tasks=2,
  eval_updates=1, validation_tasks=2, validate_every=2, checkpoint_every=1, log_every=1, log=False, export=False,
  skills=3,
)  # fmt: skip


@pytest.mark.parametrize("tasks", ["random_discriminator", "carml"])
def test_policies_are_meta_trained_without_rewards(tasks, tmp_path, monkeypatch):
  monkeypatch.setattr("maml_tf.experiments.domains.policies.test_rollouts", lambda datasource: 4)
  monkeypatch.setattr("maml_tf.experiments.domains.policies.experiment.PolicyExperiment.plots", lambda *_: [])
  result = run.run(resolve(tasks=tasks, logdir=tmp_path, **SETTINGS), say=lambda line: None)
  assert np.isfinite(result["results"]["return"]["mean"]).all()  # true rewards: negative distances
  assert max(result["results"]["return"]["mean"]) < 0
  assert f".{tasks}." in result["directory"]


def test_settings_of_skills():
  config = resolve("point", tasks="diayn")
  assert (config.skills, config.skill_iterations, config.meta_batch_size) == (20, 100, 20)
  assert not {"tasks", "skills"} & set(training_settings(resolve("point")))
  for given, said in (
    (dict(datasource="point", tasks="cactus"), "expected one of given, random_discriminator, diayn, carml"),
    (dict(datasource="cheetah_vel", tasks="diayn"), "--tasks=diayn: expected given, or --datasource=point"),
    (dict(datasource="point", tasks="diayn", baseline="oracle"), "expected given, or --learner=maml"),
    (dict(datasource="point", skills=3), r"--skills=3: expected no such flag"),
  ):
    with pytest.raises(UserError, match=said):
      resolve(**given)
