"""What `tf_agents_bridge` makes: subclasses of tf-agents' own. Imported through that module only."""

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp
from gymnasium import spaces
from tf_agents.environments.batched_py_environment import BatchedPyEnvironment
from tf_agents.environments.py_environment import PyEnvironment
from tf_agents.environments.tf_py_environment import TFPyEnvironment
from tf_agents.policies.tf_policy import TFPolicy
from tf_agents.specs.array_spec import ArraySpec, BoundedArraySpec
from tf_agents.trajectories import StepType, TimeStep, Trajectory, time_step
from tf_agents.trajectories.policy_step import PolicyStep

from maml_tf import randomness
from maml_tf.errors import UserError

__all__ = ["ExplicitPolicy", "TimeStep", "Trajectory", "make_environment"]


class ExplicitPolicy(TFPolicy):
  """One of our policies with one set of weights; see `tf_agents_bridge.make_policy`."""

  def __init__(self, policy, weights, time_step_spec, action_spec, seed, deterministic):
    self._explicit, self._deterministic = policy, deterministic
    self._weights = {
      name: tf.Variable(weights[name], trainable=False, name=name.replace("/", "_")) for name in policy.weight_shapes
    }
    # Not stateless: a driver calls without a seed, and clears a policy's state with every episode.
    self._generator = tf.random.Generator.from_seed(seed, alg=randomness.ALGORITHM)
    if policy.num_actions is None:
      names, size = ("mean", "log_std"), policy.action_dim
    else:
      names, size = ("logits",), policy.num_actions
    dtype = next(iter(self._weights.values())).dtype
    info_spec = {name: tf.TensorSpec([size], dtype, name) for name in names}
    super().__init__(time_step_spec, action_spec, info_spec=info_spec, clip=False)

  def _action(self, time_step, policy_state, seed=None):
    parameters = self._parameters(time_step)
    if self._deterministic:
      action = parameters.mode()
    else:
      seed = self._generator.make_seeds()[:, 0] if seed is None else [seed, 0]
      action = parameters.sample(tf.cast(seed, tf.int32))
    return PolicyStep(tf.cast(action, self.action_spec.dtype), policy_state, parameters._asdict())

  def _distribution(self, time_step, policy_state):
    parameters = self._parameters(time_step)
    if self._explicit.num_actions is None:
      spread = tf.exp(parameters.log_std)
      distribution = tfp.distributions.MultivariateNormalDiag(parameters.mean, spread)
    else:
      distribution = tfp.distributions.Categorical(parameters.logits, dtype=self.action_spec.dtype)
    return PolicyStep(distribution, policy_state, parameters._asdict())

  def _parameters(self, time_step):
    """Our distribution at observations [B, O], with parameters [B, ...]."""
    weights = {name: tf.convert_to_tensor(variable) for name, variable in self._weights.items()}
    observation = tf.cast(time_step.observation, next(iter(weights.values())).dtype)
    distribution = self._explicit.distribution(weights, observation[tf.newaxis])
    return type(distribution)(*(parameter[0] for parameter in distribution))


class SingleEnvironment(PyEnvironment):
  """A `gymnasium.Env` as tf-agents' `PyEnvironment`.

  Args:
    environment: `gymnasium.Env`.
    seed: integer, of its first reset.
  """

  def __init__(self, environment, seed):
    super().__init__(handle_auto_reset=True)
    self._environment, self._seed = environment, seed
    self._observation_spec = _observation_spec(environment.observation_space)
    self._action_spec = _action_spec(environment.action_space)

  def observation_spec(self):
    return self._observation_spec

  def action_spec(self):
    return self._action_spec

  def _reset(self):
    observation, _ = self._environment.reset(seed=self._seed)
    self._seed = None  # from now on its own stream
    return time_step.restart(self._observed(observation))

  def _step(self, action):
    action = int(action) if self._action_spec.shape == () else np.asarray(action)
    observation, reward, terminated, truncated, _ = self._environment.step(action)
    step_type = StepType.LAST if terminated or truncated else StepType.MID
    # At a time limit the discount stays 1: what would have come after it is worth something.
    return TimeStep(step_type, np.float32(reward), np.float32(not terminated), self._observed(observation))

  def _observed(self, observation):
    return np.asarray(observation, np.float32)

  def render(self, mode="rgb_array"):
    if mode != self._environment.render_mode:
      raise UserError(f"render: make_environment(..., render_mode={mode!r}) is needed for it")
    return self._environment.render()

  def close(self):
    self._environment.close()


def make_environment(make, batch_size, seed):
  """`TFPyEnvironment` of what `make()` returns, `batch_size` times."""
  seeds = np.random.SeedSequence(seed).generate_state(batch_size)
  single = [SingleEnvironment(make(), int(each)) for each in seeds]
  # In one thread: a step takes less time than handing it to another.
  return TFPyEnvironment(BatchedPyEnvironment(single, multithreading=False))


def _observation_spec(space):
  if not isinstance(space, spaces.Box) or len(space.shape) != 1:
    raise UserError(f"environment: expected a flat Box of observations, got {space}; wrap it in FlattenObservation")
  return ArraySpec(space.shape, np.float32, "observation")


def _action_spec(space):
  if isinstance(space, spaces.Discrete) and space.start == 0:
    return BoundedArraySpec((), np.int32, 0, int(space.n) - 1, "action")
  if isinstance(space, spaces.Box) and len(space.shape) == 1:
    return BoundedArraySpec(space.shape, np.float32, space.low, space.high, "action")
  raise UserError(f"environment: expected actions from a flat Box or from Discrete(n), got {space}")
