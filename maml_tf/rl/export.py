"""The SavedModel of a policy: it acts, and adapts to rollouts that its user collects, with TensorFlow alone."""

import dataclasses
import json
import numbers

import tensorflow as tf

from maml_tf import tracing
from maml_tf.export import FORMAT_VERSION, ExportedModule
from maml_tf.maml import inner_update
from maml_tf.rl import vpg
from maml_tf.rl.advantages import AdvantageEstimator
from maml_tf.rl.types import LAST, MID, Trajectory


class PolicyModule(ExportedModule):
  """A meta-learned policy with the computations that act by it and adapt it; `maml_tf.export.save` writes it.

  One task at a time, R rollouts of H steps, one episode each; R, H and the number of observations n are free. Methods,
  which a loaded SavedModel has too:

    initialization() -> dict of name -> tensor.
    act(weights, observation [n, O], seed int32 [2]) -> drawn actions [n, A], or integers [n] of a categorical policy.
    act_deterministic(weights, observation [n, O]) -> the most likely actions.
    adapt(weights, observation [R, H, O], action [R, H, A] or integers [R, H], reward [R, H], mask [R, H],
      inner_lr=the first of training's) -> dict of name -> tensor after one step of the policy gradient. The mask is 1
      for the steps of an episode and 0 for what comes after its end. Actions are those that `act` gave, unclipped.
    metadata_json() -> what `maml_tf.export.load_initialization` reads, and how the policy was trained.

  Signatures for serving, which hold the initialisation themselves: `act`, and `adapt_and_act` for a step of adaptation
  and the actions after it.

  Args:
    policy: of `rl.policies`.
    weights: dict of name -> tensor: the meta-learned initialisation.
    inner_lr: the step size alpha, a number; or a list with one for each step.
    estimator: `AdvantageEstimator`; None: its defaults.
    metadata: JSON-able dict that travels with the artefact.
  """

  def __init__(self, policy, weights, inner_lr, estimator=None, metadata=None):
    super().__init__(name="policy")
    rates, estimator = [float(rate) for rate in _as_list(inner_lr)], estimator or AdvantageEstimator()
    # No attribute but these: `tf.Module` would try to save the policy. The functions close over it.
    self._weights = {name: tf.Variable(value, name=name.replace("/", "_")) for name, value in weights.items()}
    self.initialization = _initialization(self._weights)
    self.act, self.act_deterministic = _acting(policy)
    self.adapt = _adapting(policy, estimator, rates[0])
    self.metadata_json = _metadata_json(policy, weights, rates, estimator, metadata)
    specs = _Specs(policy, weights)
    self._trace(specs)
    self.saved_signatures = _signatures(self, specs)

  def _trace(self, specs):
    """What is not traced is not saved."""
    self.initialization.get_concrete_function()
    self.metadata_json.get_concrete_function()
    self.act.get_concrete_function(specs.weights, specs.observation, specs.seed)
    self.act_deterministic.get_concrete_function(specs.weights, specs.observation)
    for action in specs.actions:
      self.adapt.get_concrete_function(specs.weights, specs.rollouts, action, specs.steps, specs.steps, specs.rate)


def _initialization(variables):
  """The method of that name."""

  @tracing.function
  def initialization():
    return {name: tf.identity(variable) for name, variable in variables.items()}

  return initialization


def _acting(policy):
  """The methods `act` and `act_deterministic`."""

  @tracing.function
  def act(weights, observation, seed):
    return _distribution(policy, weights, observation).sample(seed)[0]

  @tracing.function
  def act_deterministic(weights, observation):
    return _distribution(policy, weights, observation).mode()[0]

  return act, act_deterministic


def _adapting(policy, estimator, first_rate):
  """The method `adapt`."""

  @tracing.function
  def adapt(weights, observation, action, reward, mask, inner_lr=first_rate):
    trajectory = _as_trajectory(observation, action, reward, mask)
    batch = vpg.Batch(trajectory, estimator(trajectory))
    start = {name: weight[tf.newaxis] for name, weight in weights.items()}
    adapted = inner_update(vpg.loss(policy, batch), start, inner_lr, first_order=True)
    return {name: weight[0] for name, weight in adapted.items()}

  return adapt


def _metadata_json(policy, weights, rates, estimator, metadata):
  """The method of that name."""
  names = {"weights": list(weights), "model_weights": list(policy.weight_shapes)}
  config = {"policy": policy.get_config(), "inner_lr": rates, **dataclasses.asdict(estimator)}
  text = json.dumps({"format_version": FORMAT_VERSION, **names, **config, **(metadata or {})})

  @tracing.function
  def metadata_json():
    return tf.constant(text)

  return metadata_json


class _Specs:
  """What the functions are traced with: a loaded function accepts no other dtypes, and any size that is None here."""

  def __init__(self, policy, weights):
    dtype = next(iter(weights.values())).dtype
    size = policy.example_shape[0]
    self.weights = {name: tf.TensorSpec(weights[name].shape, weights[name].dtype) for name in policy.weight_shapes}
    self.observation, self.seed = tf.TensorSpec([None, size], dtype), tf.TensorSpec([2], tf.int32)
    self.rollouts, self.steps = tf.TensorSpec([None, None, size], dtype), tf.TensorSpec([None, None], dtype)
    self.rate = tf.TensorSpec([], dtype)
    # Integers of both usual widths.
    self.actions = (
      [tf.TensorSpec([None, None, policy.action_dim], dtype)] if policy.num_actions is None
      else [tf.TensorSpec([None, None], tf.int32), tf.TensorSpec([None, None], tf.int64)]
    )  # fmt: skip


def _signatures(module, specs):
  """Functions of named tensors, as servers need them; `saved_model_cli show --all` lists these."""

  @tracing.function(input_signature=_named(observation=specs.observation, seed=specs.seed))
  def act(observation, seed):
    return {"action": module.act(module.initialization(), observation, seed)}

  data = _named(observation=specs.rollouts, action=specs.actions[0], reward=specs.steps, mask=specs.steps)
  query = _named(inner_lr=specs.rate, new_observation=specs.observation, seed=specs.seed)

  @tracing.function(input_signature=[*data, *query])
  def adapt_and_act(observation, action, reward, mask, inner_lr, new_observation, seed):
    weights = module.adapt(module.initialization(), observation, action, reward, mask, inner_lr)
    return {"action": module.act(weights, new_observation, seed)}

  return {"act": act, "adapt_and_act": adapt_and_act}


def _named(**specs):
  return [tf.TensorSpec(spec.shape, spec.dtype, name=name) for name, spec in specs.items()]


def _distribution(policy, weights, observation):
  """Of the actions at observations [n, O], with parameters [1, n, ...]."""
  return policy.distribution(weights, observation[tf.newaxis])


def _as_trajectory(observation, action, reward, mask):
  """`Trajectory` of one task, of episodes [R, H, ...], as far as the advantages and the policy gradient need it."""
  step_type = tf.where(mask > 0, MID, LAST)
  next_type = tf.concat([step_type[:, 1:], tf.fill(tf.shape(step_type[:, :1]), LAST)], 1)
  fields = Trajectory(step_type, observation, action, {}, next_type, reward * mask, tf.ones_like(reward))
  return tf.nest.map_structure(lambda values: values[tf.newaxis], fields)


def _as_list(inner_lr):
  rates = list(inner_lr) if isinstance(inner_lr, list | tuple) else [inner_lr]
  if not rates or not all(isinstance(rate, numbers.Real) for rate in rates):
    raise ValueError(f"inner_lr: expected a number, or a list with one for each step, got {inner_lr!r}")
  return rates
