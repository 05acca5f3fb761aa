"""This package's policies, tasks and rollouts as tf-agents' own objects, for those who have tools for these.

tf-agents is an extra (`pip install "maml_tf[tf-agents]"`, Python below 3.12) and is imported by the first call here. It
needs Keras 2 under the name `tf.compat.v2.keras`, which TensorFlow decides once in a process, by the environment
variable TF_USE_LEGACY_KERAS: that is set for the time of the import and then put back. `import keras` stays Keras 3.
tf-agents' networks are classes of `tf.keras`: to use those as well, set the variable before Python starts.
"""

import contextlib
import functools
import importlib
import os

from maml_tf.errors import UserError
from maml_tf.rl.types import TimeStep, Trajectory

INSTALL = 'pip install "maml_tf[tf-agents]"'
VARIABLE = "TF_USE_LEGACY_KERAS"


def to_trajectory(trajectory):
  """Our `Trajectory` as a `tf_agents.trajectories.Trajectory` of the same fields, [T, R, H, ...]."""
  return _classes().Trajectory(**trajectory._asdict())


def from_trajectory(trajectory):
  """A `tf_agents.trajectories.Trajectory` as ours, field by field; an empty `policy_info` becomes {}."""
  fields = {name: getattr(trajectory, name) for name in Trajectory._fields}
  return Trajectory(**fields | {"policy_info": dict(fields["policy_info"] or {})})


def to_time_step(time_step):
  """Our `TimeStep` as a `tf_agents.trajectories.TimeStep`."""
  return _classes().TimeStep(**time_step._asdict())


def from_time_step(time_step):
  """A `tf_agents.trajectories.TimeStep` as ours."""
  return TimeStep(**{name: getattr(time_step, name) for name in TimeStep._fields})


def make_policy(policy, weights, environment, seed=0, deterministic=False):
  """A policy with one task's weights as a `tf_agents.policies.TFPolicy`, for drivers, savers and replay buffers.

  Its variables are the weights, and the state of the generator that its actions come from. It does not clip actions:
  what a trajectory holds is what the policy drew, and the environments clip what they are given. `policy_info` holds
  the parameters of the distribution, as our rollouts do.

  Args:
    policy: of `rl.policies`.
    weights: dict of name -> plain tensor, without a task axis: an initialisation, or what one task adapted it to.
    environment: what it is to act in: a `TFPyEnvironment`, or anything else with `time_step_spec()` and
      `action_spec()`.
    seed: a non-negative integer.
    deterministic: act by the most likely action.

  Raises:
    UserError: tf-agents is missing; the weights are not the policy's; the environment is another's.
  """
  classes = _classes()
  _check_weights(policy, weights)
  time_step_spec, action_spec = environment.time_step_spec(), environment.action_spec()
  _check_specs(policy, time_step_spec.observation, action_spec)
  return classes.ExplicitPolicy(policy, weights, time_step_spec, action_spec, seed, deterministic)


def make_environment(environment, goal=None, batch_size=1, seed=0, **options):
  """A task as a `tf_agents.environments.TFPyEnvironment` of `batch_size` environments.

  An episode that ends by itself has discount 0 at its last step; one that a time limit cuts off keeps discount 1.

  Args:
    environment: Gymnasium's name of it (those of `maml_tf.rl.envs` are known: "maml_tf/HalfCheetahVel-v0", ...), or a
      function (goal=..., **options) -> `gymnasium.Env` with a flat observation and a flat or integer action. A time
      limit is the environment's own affair.
    goal: the task's goal; None: each environment draws its goals itself.
    batch_size: environments that a driver steps together, each with a stream of random numbers of its own.
    seed: a non-negative integer.
    **options: go to `gymnasium.make`: `max_episode_steps`, `render_mode`, ...

  Raises:
    UserError: tf-agents is missing; there is no such environment; its actions or observations are of another kind.
  """
  classes = _classes()
  make = functools.partial(_make_by_name, environment) if isinstance(environment, str) else environment
  return classes.make_environment(lambda: make(goal=goal, **options), batch_size, seed)


def _make_by_name(name, **options):
  import gymnasium

  import maml_tf.rl.envs  # noqa: F401 (registers the tasks)

  try:
    return gymnasium.make(name, **options)
  except gymnasium.error.UnregisteredEnv as error:
    raise UserError(f"environment: Gymnasium knows none by the name of {name!r} ({error})") from error


def _classes():
  """`tf_agents_classes`, with tf-agents behind it."""
  try:
    with _legacy_keras():
      return importlib.import_module("maml_tf.rl.tf_agents_classes")
  except ImportError as error:
    raise UserError(
      f"tf-agents cannot be imported ({error}); it is needed here and comes with: {INSTALL} (Python 3.10 or 3.11: "
      "what it depends on has no later version)"
    ) from error
  except AttributeError as error:  # tensorflow_probability reads an attribute that Keras 3 lacks
    raise UserError(
      f"tf-agents cannot be imported ({error}): this process has already chosen Keras 3 for tf.compat.v2.keras; call "
      f"this before whatever uses that, or set {VARIABLE}=1 before Python starts"
    ) from error


@contextlib.contextmanager
def _legacy_keras():
  before = os.environ.get(VARIABLE)
  os.environ[VARIABLE] = "1"
  try:
    yield
  finally:
    if before is None:
      del os.environ[VARIABLE]
    else:
      os.environ[VARIABLE] = before


def _check_weights(policy, weights):
  for name, shape in policy.weight_shapes.items():
    if name not in weights:
      raise UserError(f"weights: the policy needs {name}, which is not among {list(weights)}")
    found = tuple(weights[name].shape)
    if found != tuple(shape):
      hint = "; it has a task axis: choose one task, weight[i]" if found[1:] == tuple(shape) else ""
      raise UserError(f"weights: {name} has shape {found}, expected {tuple(shape)}{hint}")


def _check_specs(policy, observation, action):
  if tuple(observation.shape) != tuple(policy.example_shape):
    shapes = f"{tuple(observation.shape)}, the policy takes {tuple(policy.example_shape)}"
    raise UserError(f"environment: its observations have shape {shapes}; give the policy's own environment")
  if action.dtype.is_integer != (policy.num_actions is not None):
    kinds = ("integers", "real numbers") if action.dtype.is_integer else ("real numbers", "integers")
    raise UserError(f"environment: its actions are {kinds[0]}, the policy's are {kinds[1]}")
  size = int(action.maximum) + 1 if action.dtype.is_integer else tuple(action.shape)
  expected = policy.num_actions if action.dtype.is_integer else (policy.action_dim,)
  if size != expected:
    raise UserError(f"environment: its actions are of size {size}, the policy's of size {expected}")
