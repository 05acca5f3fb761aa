"""Policies: models on explicit weights whose outputs are a distribution of actions."""

import itertools
import math

import keras
import tensorflow as tf

from maml_tf.models import layers
from maml_tf.models.explicit import ExplicitModel, WeightSpec
from maml_tf.rl.distributions import Categorical, DiagonalGaussian

MIN_LOG_STD = math.log(1e-6)  # cbfinn/maml_rl, maml_minimal_gauss_mlp_policy.py, min_std


class _MLPPolicy(ExplicitModel):
  """ReLU network with Xavier-uniform weights and zero biases (cbfinn/maml_rl, maml_minimal_gauss_mlp_policy.py)."""

  def __init__(self, observation_dim, output_dim, hidden, extra=None, name=None):
    specs = {}
    for i, (size_in, size_out) in enumerate(itertools.pairwise([observation_dim, *hidden, output_dim])):
      specs[f"dense_{i}/kernel"] = WeightSpec((size_in, size_out), keras.initializers.GlorotUniform())
      specs[f"dense_{i}/bias"] = WeightSpec((size_out,), keras.initializers.Zeros())
    self._num_hidden = len(hidden)
    super().__init__((observation_dim,), specs | (extra or {}), name=name)

  def forward(self, weights, x, normalise):
    del normalise
    for i in range(self._num_hidden + 1):
      x = layers.dense(x, weights[f"dense_{i}/kernel"], weights[f"dense_{i}/bias"])
      x = tf.nn.relu(x) if i < self._num_hidden else x
    return x

  def outputs(self, weights, observation):
    """The network on rollouts of tasks: [T, ..., O] -> [T, ..., outputs]."""
    shape = tf.shape(observation)
    flat = tf.reshape(observation, [shape[0], -1, *self.example_shape])
    out = self.apply(weights, flat)
    return tf.reshape(out, tf.concat([shape[:-1], [out.shape[-1]]], 0))


class GaussianMLP(_MLPPolicy):
  """Normal actions with the network's output as mean and a learned deviation that does not depend on the state.

  Its weights are the network's and `log_std` [A], which the inner loop adapts as well, as published.

  Args:
    observation_dim: size of an observation.
    action_dim: size of an action.
    hidden: sizes of the hidden layers.
    initial_std: deviation before training.
  """

  def __init__(self, observation_dim, action_dim, hidden=(100, 100), initial_std=1.0, name=None):
    log_std = WeightSpec((action_dim,), keras.initializers.Constant(math.log(initial_std)))
    super().__init__(observation_dim, action_dim, hidden, {"log_std": log_std}, name=name)
    self.action_dim, self.num_actions = action_dim, None
    self._config = dict(
      observation_dim=observation_dim, action_dim=action_dim, hidden=tuple(hidden), initial_std=initial_std
    )

  def distribution(self, weights, observation):
    """Of the actions: observations [T, ..., O] -> `DiagonalGaussian` with parameters [T, ..., A]."""
    mean = self.outputs(weights, observation)
    log_std = tf.maximum(tf.convert_to_tensor(weights["log_std"]), tf.cast(MIN_LOG_STD, mean.dtype))
    if log_std.shape.rank == 2:  # a set for each task
      log_std = tf.reshape(log_std, [-1, *[1] * (mean.shape.rank - 2), self.action_dim])
    return DiagonalGaussian(mean, tf.broadcast_to(log_std, tf.shape(mean)))

  def from_info(self, info):
    """The distribution of a trajectory's `policy_info`."""
    return DiagonalGaussian(info["mean"], info["log_std"])

  def get_config(self):
    return {**self._config, "name": self.name}


class CategoricalMLP(_MLPPolicy):
  """Integer actions with the network's outputs as logits.

  Args:
    observation_dim: size of an observation.
    num_actions: actions are 0..num_actions-1.
    hidden: sizes of the hidden layers.
  """

  def __init__(self, observation_dim, num_actions, hidden=(100, 100), name=None):
    super().__init__(observation_dim, num_actions, hidden, name=name)
    self.action_dim, self.num_actions = None, num_actions
    self._config = dict(observation_dim=observation_dim, num_actions=num_actions, hidden=tuple(hidden))

  def distribution(self, weights, observation):
    """Of the actions: observations [T, ..., O] -> `Categorical` with logits [T, ..., A]."""
    return Categorical(self.outputs(weights, observation))

  def from_info(self, info):
    """The distribution of a trajectory's `policy_info`."""
    return Categorical(info["logits"])

  def get_config(self):
    return {**self._config, "name": self.name}


def make_policy(environment, hidden=(100, 100)):
  """The policy that an environment's actions ask for; sizes as published."""
  if environment.num_actions is None:
    return GaussianMLP(environment.observation_dim, environment.action_dim, hidden)
  return CategoricalMLP(environment.observation_dim, environment.num_actions, hidden)
