"""Rewards that are proposed for an environment, and the environment with them."""

import math

import tensorflow as tf

from maml_tf import randomness
from maml_tf.rl.environments import Environment
from maml_tf.rl.policies import CategoricalMLP

HIDDEN = (32, 32)  # Eysenbach et al. 2018, 2D navigation
NOWHERE = 1e3  # a goal that is not reached: the environment's own reward is not looked at


class ProposedTasks(Environment):
  """An environment whose tasks are skills: a goal is one-hot, float32 [K].

  Args:
    environment: an `Environment`.
    num_skills: K, all equally likely.
    reward: function (states [T, R, O], skills [T, R, K]) -> [T, R], of the state after an action.
  """

  def __init__(self, environment, num_skills, reward):
    self.environment, self.goal_dim, self._reward = environment, num_skills, reward
    self.observation_dim = environment.observation_dim
    self.action_dim, self.num_actions = environment.action_dim, environment.num_actions
    self.horizon, self.restarts = environment.horizon, environment.restarts

  def sample_goals(self, seed, shape):
    return tf.one_hot(randomness.integers(randomness.fold(seed, "skill"), shape, self.goal_dim), self.goal_dim)

  def reset(self, seed, goals):
    nowhere = tf.fill([*goals.shape[:2], self.environment.goal_dim], NOWHERE)
    state, observation = self.environment.reset(seed, nowhere)
    return {"own": state, "skill": goals}, observation

  def step(self, state, action):
    own, observation, _, terminated = self.environment.step(state["own"], action)
    return state | {"own": own}, observation, self._reward(observation, state["skill"]), terminated

  def restart(self, state, ended):
    own, observation = self.environment.restart(state["own"], ended)
    return state | {"own": own}, observation

  def truncated(self, state):
    return self.environment.truncated(state["own"])

  def diverged(self, state):
    return self.environment.diverged(state["own"])

  def close(self):
    self.environment.close()


class Discriminator:
  """q(z|s), a network on states.

  Args:
    observation_dim: O.
    num_skills: K.
  """

  def __init__(self, observation_dim, num_skills):
    self._network = CategoricalMLP(observation_dim, num_skills, HIDDEN)
    self.num_skills = num_skills

  def random_weights(self, seed):
    """Of a random discriminator, from a Python integer."""
    return self._network.initial_weights(seed)

  def initial_weights(self, seed):
    """Before training: it knows nothing, q(z|s) = 1 / K everywhere."""
    last = f"dense_{len(HIDDEN)}/kernel"
    weights = self._network.initial_weights(seed)
    return weights | {last: tf.zeros_like(weights[last])}

  def log_probabilities(self, weights, states):
    """log q(z|s) of all skills: [T, ..., O] -> [T, ..., K]."""
    return tf.nn.log_softmax(self._network.outputs(weights, states))

  def loss(self, weights, states, skills, mask):
    """Mean cross-entropy over the steps that count: states [T, R, H, O], skills [T, R, K], mask [T, R, H]."""
    chosen = tf.reduce_sum(self.log_probabilities(weights, states) * skills[..., tf.newaxis, :], axis=-1)
    return -tf.reduce_sum(chosen * mask) / tf.maximum(tf.reduce_sum(mask), 1.0)

  def reward(self, weights):
    """The pseudo-reward log q(z|s) - log p(z), with p uniform: a function for `ProposedTasks`."""

    def of(states, skills):
      return tf.reduce_sum(self.log_probabilities(weights, states) * skills, axis=-1) + math.log(self.num_skills)

    return of
