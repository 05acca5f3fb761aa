"""CARML's mixture over states (Jabri et al. 2019), refitted as the meta-learner changes: a step of EM an iteration."""

import math

import tensorflow as tf

from maml_tf import randomness, tracing
from maml_tf.rl.meta_trpo import MetaPolicySearch
from maml_tf.rl.skills.rewards import ProposedTasks

SPREAD = 1.0  # deviation of the first means, and of the first components
LEAST_VARIANCE, LEAST_WEIGHT = 1e-3, 1e-6
WEIGHT = 1.0  # lambda of the reward
MEMORY = 0.9  # what a step of EM keeps of the statistics of before


def initial_mixture(seed, num_skills, observation_dim):
  """Components around the origin: dict of "mean" and "variance" [K, O] and "weight" [K], from a Python integer."""
  seed = randomness.fold(randomness.make_seed(seed), "mixture")
  mean = SPREAD * tf.random.stateless_normal([num_skills, observation_dim], seed, alg=randomness.ALGORITHM)
  return {
    "mean": mean, "variance": tf.fill(mean.shape, SPREAD**2), "weight": tf.fill([num_skills], 1.0 / num_skills)
  }  # fmt: skip


def log_densities(mixture, states):
  """log q(s|z) of all components: [..., O] -> [..., K]."""
  away = states[..., tf.newaxis, :] - mixture["mean"]
  terms = away**2 / mixture["variance"] + tf.math.log(2 * math.pi * mixture["variance"])
  return -0.5 * tf.reduce_sum(terms, axis=-1)


def log_density(mixture, states):
  """log q(s): [..., O] -> [...]."""
  return tf.reduce_logsumexp(tf.math.log(mixture["weight"]) + log_densities(mixture, states), axis=-1)


def reward(mixture):
  """lambda log q(s|z) - log q(s): a function for `ProposedTasks`."""

  def of(states, skills):
    chosen = tf.reduce_sum(log_densities(mixture, states) * skills, axis=-1)
    return WEIGHT * chosen - log_density(mixture, states)

  return of


def em_step(mixture, states, mask, memory=MEMORY):
  """One step of EM, with `memory` of the mixture before it.

  Args:
    mixture: as `initial_mixture` has it.
    states: [n, O].
    mask: [n], 1 where a state counts.
    memory: share of the old statistics; 0: the maximum of the new likelihood.
  """
  joint = tf.math.log(mixture["weight"]) + log_densities(mixture, states)
  belongs = tf.nn.softmax(joint) * mask[:, tf.newaxis]
  counted = tf.reduce_sum(mask)
  count = memory * mixture["weight"] + (1 - memory) * tf.reduce_sum(belongs, axis=0) / counted
  old = mixture["weight"][:, tf.newaxis]
  first = memory * old * mixture["mean"] + (1 - memory) * tf.matmul(belongs, states, transpose_a=True) / counted
  squares = memory * old * (mixture["variance"] + mixture["mean"] ** 2)
  squares += (1 - memory) * tf.matmul(belongs, states**2, transpose_a=True) / counted
  share = tf.maximum(count, 1e-6)[:, tf.newaxis]
  mean = first / share
  variance = tf.maximum(squares / share - mean**2, LEAST_VARIANCE)
  return {
    "mean": mean,
    "variance": variance,
    "weight": tf.maximum(count, 1e-6) / tf.reduce_sum(tf.maximum(count, 1e-6)),
  }


class CARML(MetaPolicySearch):
  """Meta-training on the mixture's tasks. The state of training has the mixture.

  Args:
    num_skills: K.
    *args, **kwargs: of `MetaPolicySearch`.
  """

  def __init__(self, num_skills, *args, **kwargs):
    super().__init__(*args, **kwargs)
    self.num_skills = num_skills

  def initial_state(self, seed):
    mixture = initial_mixture(seed, self.num_skills, self.environment.observation_dim)
    return super().initial_state(seed) | {"mixture": mixture}

  @tracing.as_it_stands
  def train_step(self, state, seed):
    proposed = ProposedTasks(self.environment, self.num_skills, reward(state["mixture"]))
    objective, collected = self.objective(state["weights"], seed, proposed)
    weights, optimizer, metrics = self.outer.update(objective, state["weights"], state["optimizer"])
    trajectories = [batch.trajectory for batch in (*objective.inner_batches, objective.outer_batch)]
    states = tf.concat([tf.reshape(t.observation, [-1, self.environment.observation_dim]) for t in trajectories], 0)
    mask = tf.concat([tf.reshape(t.mask, [-1]) for t in trajectories], 0)
    mixture = em_step(state["mixture"], states, mask)
    return {"weights": weights, "optimizer": optimizer, "mixture": mixture}, metrics | collected
