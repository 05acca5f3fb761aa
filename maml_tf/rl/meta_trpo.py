"""MAML for reinforcement learning (Finn et al. 2017, algorithm 3): policy gradients inside, TRPO or another outside."""

import dataclasses
from collections.abc import Callable

import tensorflow as tf

from maml_tf import maml, over_tasks, randomness, tracing
from maml_tf.rl import trpo, vpg
from maml_tf.rl.advantages import advantages
from maml_tf.rl.rollouts import collect
from maml_tf.training import optimizers


@dataclasses.dataclass(frozen=True)
class MetaObjective:
  """The surrogate of the policies after adaptation, as a function of the weights before it.

  Args:
    policy: of `rl.policies`.
    inner_batches: list of `vpg.Batch`, the rollouts before each inner step.
    outer_batch: `vpg.Batch`, the rollouts after the last.
    inner_lr: as in `maml.adapt`.
    first_order: drop the second derivatives.
    hvp_subsample: share of the tasks that the curvature is computed on.
    inner_loss: of `vpg`, the loss of the inner steps.
  """

  policy: object
  inner_batches: list
  outer_batch: vpg.Batch
  inner_lr: object
  first_order: bool = False
  hvp_subsample: float = 1.0
  inner_loss: Callable = vpg.loss

  def adapted(self, weights):
    """The weights of each task after the inner steps."""
    start = over_tasks.for_each_task(weights, self.outer_batch.advantages)
    losses = [self.inner_loss(self.policy, batch) for batch in self.inner_batches]
    return maml.adapt(losses, start, self.inner_lr, len(losses), self.first_order)[-1]

  def distribution(self, weights):
    """The adapted policies' distributions of actions at every step of the outer batch."""
    return self.policy.distribution(self.adapted(weights), self.outer_batch.trajectory.observation)

  def surrogate(self, distribution):
    """-mean of ratio * advantage over the steps of each task, mean over tasks (cbfinn/maml_rl, maml_npo.py)."""
    ratio = tf.exp(self.log_ratio(distribution))
    return -tf.reduce_mean(vpg.mean_over_steps(ratio * self.outer_batch.advantages, self._mask))

  def clipped_surrogate(self, distribution, clip):
    """PPO's (Schulman et al. 2017, eq. 7), of the policies after adaptation (Rothfuss et al. 2019, eq. 11)."""
    ratio, gain = tf.exp(self.log_ratio(distribution)), self.outer_batch.advantages
    lower = tf.minimum(ratio * gain, tf.clip_by_value(ratio, 1.0 - clip, 1.0 + clip) * gain)
    return -tf.reduce_mean(vpg.mean_over_steps(lower, self._mask))

  def log_ratio(self, distribution):
    """As `vpg.log_ratio`, on the outer batch."""
    return vpg.log_ratio(self.policy, self.outer_batch.trajectory, distribution)

  def kl(self, distribution):
    """KL(old || new), mean over all steps of all tasks."""
    return tf.reduce_sum(self._old.kl(distribution) * self._mask) / tf.reduce_sum(self._mask)

  def fisher(self, distribution, tangent):
    """The Hessian of `kl` by the distribution's parameters, times a change of them."""
    share = (self._mask / tf.reduce_sum(self._mask))[..., tf.newaxis]
    moved = distribution.fisher(tangent)
    return type(moved)(*(share * values for values in moved))

  def curvature_sample(self):
    """The objective on the share of tasks that the curvature is computed on; itself where that is all of them."""
    num_tasks = self.outer_batch.advantages.shape[0]
    size = max(1, round(self.hvp_subsample * num_tasks))
    if size == num_tasks:
      return self

    def first(batch):
      return tf.nest.map_structure(lambda values: values[:size], batch)

    inner = [first(batch) for batch in self.inner_batches]
    return dataclasses.replace(self, inner_batches=inner, outer_batch=first(self.outer_batch), hvp_subsample=1.0)

  @property
  def _old(self):
    return self.policy.from_info(self.outer_batch.trajectory.policy_info)

  @property
  def _mask(self):
    return self.outer_batch.trajectory.mask


@dataclasses.dataclass(frozen=True)
class GradientSteps:
  """An outer step by an optimiser: the vanilla policy gradient, or PPO's clipped surrogate.

  Args:
    optimizer: of `training.optimizers`.
    num_steps: steps on the same rollouts.
    clip: PPO's epsilon; None: no clipping. At the first step the surrogate's gradient is the policy gradient.
  """

  optimizer: object = dataclasses.field(default_factory=optimizers.Adam)
  num_steps: int = 1
  clip: float | None = None

  def initial_state(self, weights):
    return self.optimizer.initial_state(weights)

  def update(self, objective, weights, state):
    """As `TRPO.update`."""
    before = None
    for _ in range(self.num_steps):
      loss, gradients = trpo.value_and_gradient(lambda w: self._loss(objective, objective.distribution(w)), weights)
      before = (loss, tf.linalg.global_norm(list(gradients.values()))) if before is None else before
      weights, state = self.optimizer.update(gradients, state, weights)
    after = objective.distribution(weights)
    metrics = {"surrogate_after": objective.surrogate(after), "kl": objective.kl(after)}
    return weights, state, {"loss": before[0], "gradient_norm": before[1], **metrics}

  def _loss(self, objective, distribution):
    if self.clip is None:
      return objective.surrogate(distribution)
    return objective.clipped_surrogate(distribution, self.clip)


class MetaPolicySearch:
  """Meta-learning of policies as a `Learner`; with no inner step it is plain policy search, over all tasks at once.

  Args:
    policy: of `rl.policies`.
    environment: an `Environment`.
    outer: `trpo.TRPO` or `GradientSteps`.
    inner_lr: the step size alpha, as in `maml.adapt`.
    num_updates: inner steps in training.
    meta_batch_size: tasks per meta-iteration.
    rollouts_per_task: rollouts of each task for each gradient.
    first_order: drop the second derivatives.
    hvp_subsample: share of the tasks that TRPO's curvature is computed on.
    inner_loss: of `vpg`, the loss of the inner steps.
    goals_differ: every rollout has a goal of its own (to train one policy on all tasks); False: every task has.
    discount, gae_lambda, baseline: as of `advantages`.
    eval_updates: inner steps in `evaluate`.
    eval_lr: step sizes there, as in `maml.adapt`; None: `inner_lr`.
    eval_rollouts: rollouts of each task there; None: `rollouts_per_task`.
    initial_weights: dict of weights to start from in place of a fresh initialisation.
    metadata: dict that travels in the exported artefact.
  """

  compiles = False  # simulators are not in the graph

  def __init__(
    self,
    policy,
    environment,
    outer,
    inner_lr=0.1,
    num_updates=1,
    meta_batch_size=40,
    rollouts_per_task=20,
    first_order=False,
    hvp_subsample=1.0,
    inner_loss=vpg.loss,
    goals_differ=False,
    discount=0.99,
    gae_lambda=1.0,
    baseline="linear",
    eval_updates=3,
    eval_lr=None,
    eval_rollouts=None,
    initial_weights=None,
    metadata=None,
  ):
    self.policy, self.environment, self.outer = policy, environment, outer
    self.inner_lr, self.num_updates, self.first_order = inner_lr, num_updates, first_order
    self.meta_batch_size, self.rollouts_per_task = meta_batch_size, rollouts_per_task
    self.hvp_subsample, self.goals_differ, self.inner_loss = hvp_subsample, goals_differ, inner_loss
    self.discount, self.gae_lambda, self.baseline = discount, gae_lambda, baseline
    self.eval_updates, self.eval_lr = eval_updates, inner_lr if eval_lr is None else eval_lr
    self.eval_rollouts = rollouts_per_task if eval_rollouts is None else eval_rollouts
    self.metadata = metadata or {}
    self._initial_weights = initial_weights

  @property
  def validation_protocol(self):
    """What the returns of a validation depend on: those by other step sizes do not compare."""
    return f" with step sizes {self.eval_lr}"

  @property
  def model(self):
    return self.policy

  def initial_weights(self, seed=0):
    """The policy's."""
    return self.policy.initial_weights(seed)

  def initial_state(self, seed):
    weights = self._initial_weights
    if weights is None:
      weights = self.initial_weights(seed)
    return {"weights": weights, "optimizer": self.outer.initial_state(weights)}

  @tracing.as_it_stands
  def train_step(self, state, seed):
    objective, collected = self.objective(state["weights"], seed)
    weights, optimizer, metrics = self.outer.update(objective, state["weights"], state["optimizer"])
    return {"weights": weights, "optimizer": optimizer}, metrics | collected

  def objective(self, weights, seed):
    """Collects the rollouts of a meta-batch: (`MetaObjective`, metrics)."""
    goals = self._training_goals(seed)
    with tf.control_dependencies([goals, *weights.values()]):
      began = tf.timestamp()
    with tf.control_dependencies([began]):
      goals = tf.identity(goals)
    _, batches, diverged = self._adapt(weights, goals, seed, self.inner_lr, self.num_updates)
    with tf.control_dependencies(tf.nest.flatten(batches)):
      rollout_seconds = tf.timestamp() - began
    objective = MetaObjective(
      self.policy, batches[:-1], batches[-1], self.inner_lr, self.first_order, self.hvp_subsample, self.inner_loss
    )
    metrics = {f"return/step_{k}": tf.reduce_mean(b.trajectory.mean_return) for k, b in enumerate(batches)}
    last = batches[-1].trajectory
    entropy = vpg.mean_over_steps(self.policy.from_info(last.policy_info).entropy(), last.mask)
    return objective, metrics | {
      "entropy": tf.reduce_mean(entropy),
      "diverged_simulations": tf.add_n(diverged),
      "rollout_seconds": rollout_seconds,  # with the inner steps; the rest of `step_seconds` is the outer update
    }

  @tracing.as_it_stands
  def evaluate(self, state, seed, num_tasks):
    """{"return": [eval_updates + 1, tasks]} on goals drawn from the seed."""
    goals = self.environment.sample_goals(randomness.fold(seed, "goals"), [num_tasks])
    return {"return": self.returns(state["weights"], goals, seed)[0]}

  @tracing.as_it_stands
  def returns(self, weights, goals, seed):
    """Mean undiscounted return of fresh rollouts after 0..eval_updates steps, for goals [T, G]: [S + 1, T].

    Each row's rollouts give the gradient of the next step (cbfinn/maml_rl, maml_examples/test_maml_*.py).

    Returns:
      (returns, number of simulations that diverged). NaN stands for a task all of whose simulations did: the 0 of
      nothing would be a better return than many.
    """
    _, batches, diverged = self.adapt_to(weights, goals, seed, self.eval_updates)
    found = [tf.where(b.trajectory.num_episodes > 0, b.trajectory.mean_return, float("nan")) for b in batches]
    return tf.stack(found), tf.add_n(diverged)

  @tracing.as_it_stands
  def adapt_to(self, weights, goals, seed, num_updates):
    """Adapts to goals [T, G]: (weights after 0..num_updates steps, the `vpg.Batch` collected with each, the number of
    simulations that diverged in it), three lists."""
    goals = tf.repeat(goals[:, tf.newaxis], self.eval_rollouts, axis=1)
    # Twice the horizon: where episodes end early, enough of them have to end.
    num_steps = (2 if hasattr(self.environment, "restart") else 1) * self.environment.horizon
    return self._adapt(weights, goals, seed, self.eval_lr, num_updates, num_steps)

  def export_module(self, state):
    from maml_tf.rl.export import PolicyModule

    return PolicyModule(
      self.policy, state["weights"], self.inner_lr, self.discount, self.gae_lambda, self.baseline, self.metadata
    )

  def process(self, trajectory):
    """A trajectory with its advantages."""
    return vpg.Batch(trajectory, advantages(trajectory, self.discount, self.gae_lambda, self.baseline))

  def _adapt(self, weights, goals, seed, inner_lr, num_updates, num_steps=None):
    """Adapts to goals [T, R, G]: (weights after 0..num_updates steps, batches, diverged simulations), three lists."""
    diverged = []

    def rollouts(weights, step):
      trajectory, count = collect(
        self.policy, weights, self.environment, goals, randomness.fold(seed, "rollouts", step), num_steps
      )
      diverged.append(count)
      return self.process(trajectory)

    steps, batches = maml.adapt_with_fresh_data(
      rollouts,
      lambda batch: self.inner_loss(self.policy, batch),
      over_tasks.for_each_task(weights, goals),
      inner_lr,
      num_updates,
    )
    return steps, batches, diverged

  def _training_goals(self, seed):
    """[T, R, G]."""
    num_tasks, num_rollouts = self.meta_batch_size, self.rollouts_per_task
    seed = randomness.fold(seed, "goals")
    if self.goals_differ:
      return self.environment.sample_goals(seed, [num_tasks, num_rollouts])
    goals = self.environment.sample_goals(seed, [num_tasks])
    return tf.repeat(goals[:, tf.newaxis], num_rollouts, axis=1)
