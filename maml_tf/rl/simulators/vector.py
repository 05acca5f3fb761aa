"""What the batched simulators share: goals, seeds, freezing, and what a step returns."""

import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from maml_tf.rl.envs import physics
from maml_tf.rl.envs.definition import clipped


class MujocoVectorEnv(VectorEnv):
  """N environments of one task family, each with its goal, that start together and are never reset by themselves.

  An environment that has terminated is frozen: its observation repeats, its reward is 0, its termination stays True.
  One whose simulation diverges (a state or a reward that is not finite, or entries above 1e10; also an action that is
  no number) counts as terminated at its last sound observation, with reward 0, and `infos["diverged"]` says so.

  `infos` of a step: "goal" [N, G], "velocity" [N] in m/s, "diverged" [N] bool.

  Subclasses know how to simulate: `_start` and `_advance`.

  Args:
    definition: a `maml_tf.rl.envs.Definition`.
    num_envs: N.
  """

  metadata = {"autoreset_mode": AutoresetMode.DISABLED}  # noqa: RUF012

  def __init__(self, definition, num_envs):
    self.definition, self.num_envs = definition, num_envs
    self.model = physics.compile_model(definition)
    self.single_observation_space = spaces.Box(-np.inf, np.inf, (definition.observation_dim,), np.float64)
    self.single_action_space = spaces.Box(-1.0, 1.0, (definition.action_dim,), np.float32)
    self.observation_space = batch_space(self.single_observation_space, num_envs)
    self.action_space = batch_space(self.single_action_space, num_envs)
    self.goals = None
    self._goals_are_given = False
    self._physics = None

  def reset(self, *, seed=None, options=None):
    """Starts an episode in every environment.

    Args:
      seed: an int or a sequence of ints for `numpy.random.SeedSequence`; None goes on with the generator of before.
      options: {"goals": [N, G]}: they stay until others are given. Without any, every reset draws new ones.

    Returns:
      (observations [N, O] float64, {"goal": [N, G]}).
    """
    if seed is not None:
      self._np_random, self._np_random_seed = np.random.default_rng(np.random.SeedSequence(seed)), seed
    options = options or {}
    if set(options) - {"goals"}:
      raise ValueError(f"options: expected at most 'goals', got {sorted(options)}")
    qpos, qvel = self.definition.initial_states(self.np_random, self.num_envs)
    if options.get("goals") is not None:
      self.goals, self._goals_are_given = self.definition.check_goals(options["goals"], self.num_envs), True
    elif not self._goals_are_given:
      self.goals = self.definition.sample_goals(self.np_random, self.num_envs)
    return self.set_states(qpos, qvel), {"goal": self.goals.copy()}

  def set_states(self, qpos, qvel):
    """Starts every environment from a given state: qpos [N, nq], qvel [N, nv]; returns the observations [N, O]."""
    if self.goals is None:
      raise RuntimeError("set_states was called before reset, so there are no goals; call reset first")
    self._physics = self._start(np.asarray(qpos, np.float64), np.asarray(qvel, np.float64))
    self._observations = self.definition.observe(self._physics)
    self._terminations = np.zeros(self.num_envs, bool)
    self._diverged = np.zeros(self.num_envs, bool)
    return self._observations.copy()

  def step(self, actions):
    """Steps the environments that still run.

    Args:
      actions: [N, A]; simulated as clipped to [-1, 1].

    Returns:
      (observations [N, O], rewards [N], terminations [N] bool, truncations [N] all False, infos).
    """
    if self._physics is None:
      raise RuntimeError("step was called before reset; call reset first")
    actions = np.asarray(actions, np.float64)
    if actions.shape != self.action_space.shape:
      raise ValueError(f"actions: expected shape {self.action_space.shape}, got {actions.shape}")
    running = ~self._terminations
    after = self._advance(clipped(actions), running)
    outcome = self.definition.outcome(self._physics, after, actions, self.goals)
    self._physics = after
    sound = running & ~outcome.diverged
    self._observations = np.where(sound[:, None], outcome.observations, self._observations)
    self._diverged |= running & outcome.diverged
    self._terminations = self._terminations | self._diverged | (sound & outcome.terminated)
    return self._results(sound, outcome)

  def _results(self, sound, outcome):
    infos = {
      "goal": self.goals.copy(),
      "velocity": np.where(sound, outcome.velocity, 0.0),
      "diverged": self._diverged.copy(),
    }
    rewards = np.where(sound, outcome.rewards, 0.0)
    truncations = np.zeros(self.num_envs, bool)
    return self._observations.copy(), rewards, self._terminations.copy(), truncations, infos

  def __enter__(self):
    return self

  def __exit__(self, *_):
    self.close()

  def _start(self, qpos, qvel):
    """Puts every simulation into a state; returns the Physics there, in arrays that later steps do not overwrite."""
    raise NotImplementedError

  def _advance(self, controls, running):
    """Simulates one action's time where `running` [N] holds; returns Physics, whose other rows mean nothing."""
    raise NotImplementedError
