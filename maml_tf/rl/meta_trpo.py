"""MAML for reinforcement learning (Finn et al. 2017, algorithm 3): policy gradients inside, TRPO or another outside."""

import dataclasses

import tensorflow as tf

from maml_tf import maml, over_tasks, randomness, tracing
from maml_tf.rl import trpo, vpg
from maml_tf.rl.advantages import AdvantageEstimator
from maml_tf.rl.objective import MetaObjective
from maml_tf.rl.rollouts import collect
from maml_tf.rl.settings import Curvature, Evaluation, InnerLoop, Sampling, with_settings
from maml_tf.training import optimizers
from maml_tf.training.learner import Learner


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


class MetaPolicySearch(Learner):
  """Meta-learning of policies as a `Learner`; with no inner step it is plain policy search, over all tasks at once.

  Args:
    policy: of `rl.policies`.
    environment: an `Environment`.
    outer: `trpo.TRPO` or `GradientSteps`.
    inner: `InnerLoop`; None: its defaults.
    sampling: `Sampling`; None: its defaults.
    estimator: `AdvantageEstimator`; None: its defaults.
    curvature: `Curvature`; None: its defaults.
    evaluation: `Evaluation`; None: its defaults.
    initial_weights: dict of weights to start from in place of a fresh initialisation.
    metadata: dict that travels in the exported artefact.
    training_environment: an `Environment` of the tasks of training, where they are others; evaluated is in
      `environment`.
    **settings: fields of these groups by themselves: `inner_lr=0.5` for `inner=InnerLoop(inner_lr=0.5)`.
  """

  compiles = False  # simulators are not in the graph

  def __init__(
    self,
    policy,
    environment,
    outer,
    *,
    inner=None,
    sampling=None,
    estimator=None,
    curvature=None,
    evaluation=None,
    initial_weights=None,
    metadata=None,
    training_environment=None,
    **settings,
  ):
    self._training_environment = environment if training_environment is None else training_environment
    self.policy, self.environment, self.outer = policy, environment, outer
    self.inner, self.sampling, self.estimator, self.curvature, evaluation = with_settings(
      [
        inner or InnerLoop(),
        sampling or Sampling(),
        estimator or AdvantageEstimator(),
        curvature or Curvature(),
        evaluation or Evaluation(),
      ],
      settings,
    )
    self.evaluation = evaluation.completed(self.inner, self.sampling)
    self.metadata = metadata or {}
    self._initial_weights = initial_weights

  @property
  def validation_protocol(self):
    """What the returns of a validation depend on: those by other step sizes do not compare."""
    return f" with step sizes {self.evaluation.eval_lr}"

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

  def objective(self, weights, seed, environment=None):
    """Collects the rollouts of a meta-batch: (`MetaObjective`, metrics). None: in the environment of training."""
    environment = self._training_environment if environment is None else environment
    goals = self._training_goals(seed, environment)
    with tf.control_dependencies([goals, *weights.values()]):
      began = tf.timestamp()
    with tf.control_dependencies([began]):
      goals = tf.identity(goals)
    _, batches, diverged = self._adapt(
      weights, goals, seed, self.inner.inner_lr, self.inner.num_updates, environment=environment
    )
    with tf.control_dependencies(tf.nest.flatten(batches)):
      rollout_seconds = tf.timestamp() - began
    objective = MetaObjective(self.policy, batches[:-1], batches[-1], self.inner, self.curvature)
    return objective, self._collected([batch.trajectory for batch in batches]) | {
      "diverged_simulations": tf.add_n(diverged),
      "rollout_seconds": rollout_seconds,  # with the inner steps; the rest of `step_seconds` is the outer update
    }

  def _collected(self, trajectories):
    """Metrics of the trajectories before and after each inner step. Tasks that have none left are counted apart."""
    returns = [vpg.mean_over_tasks(t.mean_return, t.num_episodes) for t in trajectories]
    last = trajectories[-1]
    entropy = vpg.mean_over_steps(self.policy.from_info(last.policy_info).entropy(), last.mask)
    lost = tf.reduce_any(tf.stack([tf.equal(t.num_episodes, 0) for t in trajectories]), axis=0)
    return {f"return/step_{k}": value for k, value in enumerate(returns)} | {
      "entropy": vpg.mean_over_tasks(entropy, last.num_episodes),
      "tasks_without_return": tf.reduce_sum(tf.cast(lost, tf.int32)),
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
    _, batches, diverged = self.adapt_to(weights, goals, seed, self.evaluation.eval_updates)
    found = [tf.where(b.trajectory.num_episodes > 0, b.trajectory.mean_return, float("nan")) for b in batches]
    return tf.stack(found), tf.add_n(diverged)

  @tracing.as_it_stands
  def adapt_to(self, weights, goals, seed, num_updates):
    """Adapts to goals [T, G]: (weights after 0..num_updates steps, the `vpg.Batch` collected with each, the number of
    simulations that diverged in it), three lists."""
    goals = tf.repeat(goals[:, tf.newaxis], self.evaluation.eval_rollouts, axis=1)
    # Twice the horizon: where episodes end early, enough of them have to end.
    num_steps = (2 if self.environment.restarts else 1) * self.environment.horizon
    return self._adapt(weights, goals, seed, self.evaluation.eval_lr, num_updates, num_steps)

  def export_module(self, state):
    from maml_tf.rl.export import PolicyModule

    return PolicyModule(self.policy, state["weights"], self.inner.inner_lr, self.estimator, self.metadata)

  def process(self, trajectory):
    """A trajectory with its advantages."""
    return vpg.Batch(trajectory, self.estimator(trajectory))

  def _adapt(self, weights, goals, seed, inner_lr, num_updates, num_steps=None, environment=None):
    """Adapts to goals [T, R, G]: (weights after 0..num_updates steps, batches, diverged simulations), three lists."""
    environment, diverged = environment or self.environment, []

    def rollouts(weights, step):
      trajectory, count = collect(
        self.policy, weights, environment, goals, randomness.fold(seed, "rollouts", step), num_steps
      )
      diverged.append(count)
      return self.process(trajectory)

    steps, batches = maml.adapt_with_fresh_data(
      rollouts,
      lambda batch: self.inner.inner_loss(self.policy, batch),
      over_tasks.for_each_task(weights, goals),
      inner_lr,
      num_updates,
    )
    return steps, batches, diverged

  def _training_goals(self, seed, environment):
    """[T, R, G]."""
    num_tasks, num_rollouts = self.sampling.meta_batch_size, self.sampling.rollouts_per_task
    seed = randomness.fold(seed, "goals")
    if self.sampling.goals_differ:
      return environment.sample_goals(seed, [num_tasks, num_rollouts])
    goals = environment.sample_goals(seed, [num_tasks])
    return tf.repeat(goals[:, tf.newaxis], num_rollouts, axis=1)
