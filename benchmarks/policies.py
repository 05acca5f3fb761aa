"""Rollouts of policies beside Gymnasium's vector environments, and what the parts of a meta-iteration take."""

import dataclasses
import os
import statistics
import time

from maml_tf.errors import UserError

ROBOTS = {"HalfCheetah": "cheetah_vel", "Ant": "ant_vel"}
TASKS, ROLLOUTS = 40, 20  # Finn et al. 2017, section 5.3
SUBSAMPLE = 0.1


@dataclasses.dataclass
class Contender:
  """Something that makes environment steps, policy and rewards included: run() -> how many."""

  name: str
  run: object
  close: object
  rates: list = dataclasses.field(default_factory=list)

  def time_once(self):
    began = time.perf_counter()
    done = self.run()
    self.rates.append(done / (time.perf_counter() - began))


def run(rounds, horizon):
  """The results as a JSON-able dict.

  Args:
    rounds: how often each contender is timed.
    horizon: time steps of a rollout in the measurement of environment steps.
  """
  rates, spread = {}, {}
  for robot, datasource in ROBOTS.items():
    contenders = [ours(datasource, horizon), sync(datasource, horizon), asynchronous(datasource, horizon)]
    for contender in contenders:
      contender.run()  # traces, warms up
    for _ in range(rounds):
      for contender in contenders:
        contender.time_once()
    for contender in contenders:
      contender.close()
    rates[robot] = {c.name: statistics.median(c.rates) for c in contenders}
    spread[robot] = {c.name: [min(c.rates), max(c.rates)] for c in contenders}
  return {
    "setting": {"tasks": TASKS, "rollouts": ROLLOUTS, "horizon": horizon},
    "steps_per_second": rates,
    "min_max": spread,
    "over_sync": _over(rates, "SyncVectorEnv"),
    "over_async": _over(rates, "AsyncVectorEnv"),
    "meta_iteration": meta_iteration(rounds),
  }


def report(results):
  """Lines of text."""
  lines = [f"{'':44}{'steps / s':>12}{'min - max':>22}{'x Sync':>8}{'x Async':>9}"]
  for robot, rates in results["steps_per_second"].items():
    for name, rate in rates.items():
      low, high = results["min_max"][robot][name]
      over = results["over_sync"][robot][name], results["over_async"][robot][name]
      lines.append(f"{f'{robot}, {name}':44}{rate:12,.0f}{f'{low:,.0f} - {high:,.0f}':>22}{over[0]:8.1f}{over[1]:9.1f}")
  lines += ["", "HalfCheetah, one meta-iteration of 320,000 environment steps, seconds (median):"]
  for name, split in results["meta_iteration"].items():
    lines.append(
      f"{name:44}rollouts {split['rollout_seconds']:6.2f}   update {split['update_seconds']:6.2f}   "
      f"update / rollouts {split['update_over_rollouts']:.2f}"
    )
  return lines


def ours(datasource, horizon):
  """The package's own rollouts: `rl.rollouts.collect`, as in training."""
  import tensorflow as tf

  from maml_tf.experiments.config import resolve
  from maml_tf.experiments.domains.policies.experiment import make_environment
  from maml_tf.rl import policies
  from maml_tf.rl.rollouts import collect

  environment = make_environment(resolve(datasource, horizon=horizon))
  policy = policies.make_policy(environment)
  weights = {n: tf.repeat(w[tf.newaxis], TASKS, axis=0) for n, w in policy.initial_weights(0).items()}
  goals = tf.repeat(environment.sample_goals(tf.constant([0, 1]), [TASKS])[:, tf.newaxis], ROLLOUTS, axis=1)
  count = iter(range(10**6))

  @tf.function
  def rollouts(seed):
    return tf.reduce_sum(collect(policy, weights, environment, goals, seed)[0].mask)

  return Contender("maml_tf", lambda: float(rollouts(tf.constant([0, next(count)]))), environment.close)


def sync(datasource, horizon):
  """Gymnasium's SyncVectorEnv over single environments of the same tasks, as many as above."""
  from gymnasium import vector

  return _gymnasium("SyncVectorEnv", vector.SyncVectorEnv, datasource, TASKS * ROLLOUTS, horizon)


def asynchronous(datasource, horizon):
  """AsyncVectorEnv with as many processes, one environment each, as there are cores."""
  from gymnasium import vector

  cores = len(os.sched_getaffinity(0))
  return _gymnasium("AsyncVectorEnv", vector.AsyncVectorEnv, datasource, cores, horizon)


def _gymnasium(name, make_vector, datasource, num_envs, horizon):
  import tensorflow as tf

  from maml_tf.rl import envs, policies

  definition = envs.DEFINITIONS[datasource]
  policy = policies.GaussianMLP(definition.observation_dim, definition.action_dim)
  weights = policy.initial_weights(0)
  makers = [_Maker(definition.gym_id, task / num_envs) for task in range(num_envs)]
  vectorised = make_vector(makers)

  @tf.function
  def act(observations, seed):
    return policy.distribution(weights, observations[tf.newaxis]).sample(seed)[0]

  def rollouts():
    observations, _ = vectorised.reset(seed=0)
    for step in range(horizon):
      actions = act(tf.constant(observations, tf.float32), tf.constant([1, step]))
      observations = vectorised.step(actions.numpy())[0]
    return num_envs * horizon

  return Contender(name, rollouts, vectorised.close)


@dataclasses.dataclass
class _Maker:
  """Makes one environment; a class, since a process of its own has to be sent it."""

  gym_id: str
  goal: float

  def __call__(self):
    import gymnasium

    return gymnasium.make(self.gym_id, goal=self.goal)


def meta_iteration(rounds):
  """A meta-iteration of HalfCheetah, as published: seconds of rollouts and update, exact and on part of the tasks."""
  import tensorflow as tf

  from maml_tf.experiments.config import resolve
  from maml_tf.experiments.domains.policies.experiment import PolicyExperiment

  split = {}
  for name, share in (("exact products", 1.0), (f"products on {SUBSAMPLE:.0%} of the tasks", SUBSAMPLE)):
    experiment = PolicyExperiment(resolve("cheetah_vel", hvp_subsample=share))
    learner = experiment.learner()
    state, step = learner.initial_state(0), tf.function(learner.train_step)
    state, _ = step(state, tf.constant([0, 0]))
    rollout_seconds, update_seconds = [], []
    for index in range(rounds):
      began = time.perf_counter()
      state, metrics = step(state, tf.constant([0, index + 1]))
      rollout_seconds.append(float(metrics["rollout_seconds"]))
      update_seconds.append(time.perf_counter() - began - rollout_seconds[-1])
    experiment.environment.close()
    medians = statistics.median(rollout_seconds), statistics.median(update_seconds)
    split[name] = {
      "rollout_seconds": medians[0],
      "update_seconds": medians[1],
      "update_over_rollouts": medians[1] / medians[0],
      "cg_products": int(metrics["cg_products"]),
    }
  return split


def _over(rates, name):
  return {robot: {c: rate / of_robot[name] for c, rate in of_robot.items()} for robot, of_robot in rates.items()}


def check_installed():
  """Refuses to begin without the simulator."""
  try:
    import gymnasium  # noqa: F401
    import mujoco  # noqa: F401
  except ImportError as error:
    raise UserError(f"{error.name} is not installed; pip install mujoco gymnasium") from error
