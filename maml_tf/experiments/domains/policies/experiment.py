"""Meta-reinforcement learning: 2D navigation, HalfCheetah and Ant (Finn et al. 2017, section 5.3)."""

import functools

import numpy as np
import tensorflow as tf

from maml_tf import evaluation, progress, randomness, tracing
from maml_tf.errors import UserError
from maml_tf.experiments import figures, report
from maml_tf.experiments.domains import policies as records
from maml_tf.experiments.domains.policies import plots, published, skills
from maml_tf.experiments.experiment import Experiment
from maml_tf.rl import environments, policies, rendering, vpg
from maml_tf.rl.meta_trpo import GradientSteps, MetaPolicySearch
from maml_tf.rl.settings import Curvature, Evaluation, InnerLoop, Sampling
from maml_tf.rl.skills.carml import CARML
from maml_tf.rl.trpo import TRPO
from maml_tf.training import optimizers

IN_THE_GRAPH = {
  "point": environments.PointNavigation,
  "bandit": lambda horizon: environments.Bandit(horizon=horizon),
  "tabular": lambda horizon: environments.TabularMDP(horizon=horizon),
}
TASKS_AT_A_TIME = 40  # in an evaluation
PPO_STEPS, PPO_CLIP = 5, 0.3  # jonasrothfuss/ProMP, run_scripts/pro-mp_run_mujoco.py


class PolicyExperiment(Experiment):
  """Everything about a run that is particular to reinforcement learning.

  Args:
    config: `Config`.
  """

  # Returns can fall again while training goes on; the paper too chose the best (Finn et al. 2017, appendix A.2).
  evaluates_best = True

  def __init__(self, config):
    super().__init__(config)
    self.environment, self._proposed = make_environment(config), None
    self.evaluates_best = config.tasks == "given"  # without rewards nothing says which is
    self.model = policies.make_policy(self.environment)
    learner = self.learner()
    # Made once, since each is traced once: plots are drawn at every validation.
    self._returns = tracing.function(learner.returns)
    self._one_step = tracing.function(lambda *arguments: learner.adapt_to(*arguments, num_updates=1))

  def load_data(self):
    """No data: rollouts are made as they are needed. But simulator, OpenGL and ffmpeg have to be there."""
    if self.config.datasource not in IN_THE_GRAPH:
      from maml_tf.rl.envs import physics  # noqa: F401 (names what is missing)
    if self.config.train and self.config.tasks in skills.BY_DISCRIMINATOR:
      self._proposed = skills.proposed(self.config, self.environment)
    if self.config.render:
      rendering.check(gymnasium_id(self.config.datasource))

  def close(self):
    """Ends the simulator's processes."""
    self.environment.close()

  def algorithm(self, inner_lr):
    """`MetaPolicySearch` with that step size."""
    return self.learner(inner_lr=inner_lr)

  def fresh_weights(self):
    return self.model.initial_weights(0), ()

  def learner(self, initial_weights=None, inner_lr=None):
    """MAML; or for a baseline one policy for all tasks, each rollout with a goal of its own."""
    config = self.config
    meta = config.description.meta_learns
    first = config.update_lr if inner_lr is None else inner_lr
    search = functools.partial(CARML, config.skills) if config.tasks == "carml" else MetaPolicySearch
    return search(
      self.model,
      self.environment,
      make_outer(config),
      inner=InnerLoop(
        config.training_lr if inner_lr is None else inner_lr,
        config.num_updates if meta else 0,
        config.stop_grad,
        vpg.INNER_LOSSES[config.inner],
      ),
      sampling=Sampling(config.meta_batch_size, config.rollouts_per_task, goals_differ=not meta),
      curvature=Curvature(config.hvp_subsample, hvp_sample="tasks"),
      evaluation=Evaluation(config.eval_updates, self._step_sizes(first), self._evaluation_rollouts()),
      initial_weights=initial_weights,
      metadata={"config": config.portable()},
      training_environment=self._proposed,
    )

  def on_validation(self):
    """A callback that draws 2D trajectories into TensorBoard; None where there are none to draw."""
    if self.config.datasource != "point":
      return None

    def draw(iteration, state, board):
      figure = plots.trajectories(self.paths(state["weights"]))
      board.figure(iteration, "trajectories before and after one step", figure)

    return draw

  def evaluate(self, weights):
    """{"return": {"mean": [S + 1], "ci95": [S + 1], "of_each_task": [S + 1][tasks]}, "step_sizes", "goals", ...}.

    Raises:
      UserError: all simulations of a goal diverged.
    """
    goals = self.evaluation_goals()
    returns, diverged = self.returns(weights, goals)
    lost = np.flatnonzero(np.isnan(returns).any(axis=0))
    if len(lost):
      raise UserError(
        f"all simulations of goal {goals[lost[0]].tolist()} diverged, so that it has no return; a policy that was "
        "trained with a smaller --max_kl or --update_lr is less wild"
      )
    summary = {name: values.tolist() for name, values in evaluation.summarise(returns).items()}
    return {
      "return": summary | {"of_each_task": np.round(returns, 3).tolist()},
      "step_sizes": self._step_sizes(self.config.update_lr),
      "goals": np.round(goals.astype(np.float64), 6).tolist(),
      "rollouts_per_task": self._evaluation_rollouts(),
      "diverged_simulations": diverged,
    }

  def returns(self, weights, goals):
    """(mean undiscounted returns after 0..S steps on goals [T, G]: NumPy [S + 1, T], simulations that diverged)."""
    seed = randomness.fold(randomness.make_seed(self.config.seed), "evaluation")
    parts, diverged = [], 0
    with progress.bar(total=len(goals), unit="task", desc="evaluating") as bar:
      for first in range(0, len(goals), TASKS_AT_A_TIME):
        some = tf.constant(goals[first : first + TASKS_AT_A_TIME], tf.float32)
        returns, lost = self._returns(weights, some, randomness.fold(seed, first))
        parts.append(returns.numpy())
        diverged += int(lost)
        bar.update(len(some))
    return np.concatenate(parts, axis=1), diverged

  def evaluation_goals(self):
    """[tasks, G]: the published 40 test goals, then goals drawn with the run's seed; or validation goals."""
    config = self.config
    split = "test" if config.test_set else "validation"
    seed = randomness.fold(randomness.make_seed(config.seed), split)
    goals = self.environment.sample_goals(seed, [config.eval_tasks]).numpy()
    published = self._published_goals() if config.test_set else goals[:0]
    return np.concatenate([published, goals])[: config.eval_tasks].astype(np.float32)

  def inner_lr(self, results):
    """The step size to adapt with."""
    return results["step_sizes"][0]

  def plots(self, weights, results, directory):
    """Writes the run's plots; returns their paths."""
    drawn = {"returns": plots.returns_against_steps({self.config.method: results}, self.config.datasource)}
    if self.config.datasource == "point":
      drawn["trajectories"] = plots.trajectories(self.paths(weights))
    written = figures.save_all(drawn, directory)
    if self.config.render:
      written += self._videos(weights, directory)
    return written

  def paths(self, weights, num_goals=3, rollouts=5):
    """2D paths before and after the first step: list of {"goal" [2], "before" and "after", lists of [n, 2]}."""
    goals = tf.constant(self.evaluation_goals()[:num_goals])
    seed = randomness.fold(randomness.make_seed(self.config.seed), "paths")
    _, (before, after), _ = self._one_step(weights, goals, seed)
    paths = []
    for task, goal in enumerate(goals.numpy()):
      drawn = {"goal": goal}
      for name, batch in (("before", before), ("after", after)):
        ends = np.argmax(batch.trajectory.ends[task, :rollouts].numpy(), axis=-1)  # of the first episodes
        positions = batch.trajectory.observation[task, :rollouts, :, :2].numpy()
        drawn[name] = [path[: end + 1] for path, end in zip(positions, ends, strict=True)]
      paths.append(drawn)
    return paths

  def report(self, results):
    """The returns, beside the published ones."""
    config, mean, ci95 = self.config, results["return"]["mean"], results["return"]["ci95"]
    sizes = ", ".join(f"{size:g}" for size in results["step_sizes"])
    rows, notes = [report.Row(f"step sizes {sizes}", mean, ci95)], []
    there = published.RETURNS.get(config.datasource, {}).get(config.method)
    if there:
      rows.append(report.Row("published", *there))
      if config.datasource not in IN_THE_GRAPH:
        notes = ["Published with MuJoCo 1.31: the share of the gap to the oracle carries over, returns may not."]
    split = "test" if config.test_set else "validation"
    title = (
      f"Return, {config.datasource}, {config.method}, {config.eval_tasks} {split} goals, "
      f"{results['rollouts_per_task']} rollouts each, 95 % intervals"
    )
    return report.Report(title, rows, list(range(len(mean))), notes, width=18)

  def _step_sizes(self, first):
    return records.test_step_sizes(self.config.datasource, first)

  def _evaluation_rollouts(self):
    return records.test_rollouts(self.config.datasource)

  def _published_goals(self):
    if self.config.datasource not in published.RETURNS:
      return np.zeros([0, self.environment.goal_dim], np.float32)
    from maml_tf.rl.envs import published_test_goals

    return published_test_goals(self.config.datasource)

  def _videos(self, weights, directory):
    """One rollout before and after each of the steps, side by side, in the first goal."""
    goals = self.evaluation_goals()[:1]
    seed = randomness.fold(randomness.make_seed(self.config.seed), "video")
    steps, *_ = self._one_step(weights, tf.constant(goals), seed)
    captions = ("before", "after 1 step")[: self.config.eval_updates + 1]  # an oracle does not adapt
    by_caption = {name: {n: w[0] for n, w in step.items()} for name, step in zip(captions, steps, strict=False)}
    return rendering.before_and_after(
      gymnasium_id(self.config.datasource), self.model, by_caption, directory / "video", goals[0], self.config.horizon
    )


def gymnasium_id(datasource):
  """The name by which Gymnasium knows the tasks of a datasource."""
  from maml_tf.rl.envs import DEFINITIONS, POINT_ID

  return POINT_ID if datasource == "point" else DEFINITIONS[datasource].gym_id


def make_environment(config):
  """The tasks of a datasource; with the goal in the observation for the oracle."""
  if config.datasource in IN_THE_GRAPH:
    environment = IN_THE_GRAPH[config.datasource](config.horizon)
  else:
    environment = _simulated(config)
  return environments.GoalObserved(environment) if config.method == "oracle" else environment


def _simulated(config):
  from maml_tf.rl import simulators
  from maml_tf.rl.envs import DEFINITIONS

  def make(num_envs):
    return simulators.make(config.datasource, num_envs, config.sim_threads)

  return environments.Simulated(DEFINITIONS[config.datasource], make, config.horizon)


def make_outer(config):
  """The meta-optimiser that a config names."""
  if config.outer == "trpo":
    return TRPO(max_kl=config.max_kl, hvp=config.hvp)
  adam = optimizers.Adam(config.meta_lr)
  return GradientSteps(adam) if config.outer == "vpg" else GradientSteps(adam, PPO_STEPS, PPO_CLIP)
