"""What a family of MuJoCo tasks is, as data and NumPy functions of N states at once; MuJoCo itself is not needed here.

The single environments (`mujoco_env`) and the batched simulators (`maml_tf.rl.simulators`) both compute observations,
rewards and terminations with these functions, so that they cannot differ.
"""

import dataclasses
from typing import ClassVar, NamedTuple

import numpy as np

LARGEST = 1e10  # MuJoCo itself calls a state with larger entries unstable (mjMAXVAL)


class Physics(NamedTuple):
  """The states of N simulations, in SI units and the world's frame; None is what a definition does not name."""

  qpos: np.ndarray  # [N, nq]
  qvel: np.ndarray  # [N, nv]
  com: np.ndarray | None = None  # [N, 3] centre of mass of the whole body
  com_velocity: np.ndarray | None = None  # [N, 3]
  contact_forces: np.ndarray | None = None  # [N, nbody, 6] torque and force from contacts on each body, the world first
  torso_rotation: np.ndarray | None = None  # [N, 9] row by row
  torso_position: np.ndarray | None = None  # [N, 3]


class Outcome(NamedTuple):
  """What a step of N environments led to. Rows where `diverged` holds are not to be used."""

  observations: np.ndarray  # [N, O]
  rewards: np.ndarray  # [N]
  terminated: np.ndarray  # [N] bool
  velocity: np.ndarray  # [N] forward velocity that the reward is about, m/s
  diverged: np.ndarray  # [N] bool: something is not finite, or larger than any sound simulation gives


@dataclasses.dataclass(frozen=True)
class Definition:
  """A robot and the goals it is given.

  Args:
    name: as `--datasource` knows it.
    gym_id: as Gymnasium knows it.
    task: "velocity" (reach a forward velocity, m/s), "direction" (run forward, +1, or backward, -1) or "goal" (reach a
      place, m).
    goal_low, goal_high: bounds of the uniform distribution of goals; its sign is meant where `goal_is_sign` holds.
  """

  name: str
  gym_id: str
  task: str
  goal_low: tuple[float, ...]
  goal_high: tuple[float, ...]

  horizon: ClassVar[int] = 200
  asset: ClassVar[str]  # file among Gymnasium's models
  timestep: ClassVar[float]  # seconds
  frame_skip: ClassVar[int] = 1
  solimp: ClassVar[tuple[float, ...] | None] = None  # of all geoms, in place of the asset's
  initial_qpos: ClassVar[tuple[float, ...]]
  num_velocities: ClassVar[int]
  observation_dim: ClassVar[int]
  action_dim: ClassVar[int]
  num_actions: ClassVar[None] = None  # actions are real
  derived: ClassVar[tuple[str, ...]] = ()  # fields of Physics beyond qpos and qvel that the functions read
  forward_after_step: ClassVar[bool] = True  # whether derived quantities belong to the new state, as in rllab
  finite_differences: ClassVar[bool] = False  # whether the functions read the Physics before the step
  warm_start: ClassVar[bool] = True  # whether the constraint solver starts from the last step's solution

  @property
  def goal_dim(self):
    return len(self.goal_low)

  @property
  def goal_is_sign(self):
    return self.task == "direction"

  @property
  def dt(self):
    """Seconds from one observation to the next."""
    return self.timestep * self.frame_skip

  def sample_goals(self, rng, num):
    """[num, G] goals from the training distribution, by a `numpy.random.Generator`."""
    if self.goal_is_sign:
      return rng.choice([-1.0, 1.0], size=(num, self.goal_dim))
    return rng.uniform(self.goal_low, self.goal_high, size=(num, self.goal_dim))

  def check_goals(self, goals, num):
    """`goals` as a float64 array [num, G].

    Raises:
      ValueError: another shape, something that is not finite, or a direction other than -1 and +1.
    """
    array = np.array(goals, dtype=np.float64)  # a copy: the caller may reuse its own
    if array.shape != (num, self.goal_dim):
      raise ValueError(f"{self.name}: goals of shape {(num, self.goal_dim)} expected, got {array.shape}")
    if self.goal_is_sign and not np.isin(array, (-1.0, 1.0)).all():
      raise ValueError(f"{self.name}: a goal is a direction, -1 or 1, got {array.ravel().tolist()}")
    if not np.isfinite(array).all():
      raise ValueError(f"{self.name}: goals must be finite, got {array.ravel().tolist()}")
    return array

  def initial_states(self, rng, num):
    """(qpos [num, nq], qvel [num, nv]) at the start of an episode: normal noise of .01 and .1 (rllab's MujocoEnv)."""
    qpos = self.initial_qpos + 0.01 * rng.standard_normal((num, len(self.initial_qpos)))
    return qpos, 0.1 * rng.standard_normal((num, self.num_velocities))

  def observe(self, after):
    """[N, O] observations of a Physics."""
    raise NotImplementedError

  def reward(self, before, after, actions, goals):
    """[N] rewards of the step between two Physics, with the actions [N, A] as the policy gave them.

    `before` may be None unless `finite_differences` holds. What is no number must lead to a reward that is none.
    """
    raise NotImplementedError

  def terminated(self, after):
    """[N] bool: the episode ends here, other than by its time limit."""
    return np.zeros(len(after.qpos), bool)

  def velocity(self, before, after):
    """[N] forward velocity in m/s: that of the whole body's centre of mass."""
    del before
    return after.com_velocity[:, 0]

  def progress(self, before, after, goals):
    """[N] the part of the reward that depends on the goal [N, G]."""
    if self.task == "goal":
      return -np.abs(after.com[:, :2] - goals).sum(axis=1)
    velocity = self.velocity(before, after)
    return goals[:, 0] * velocity if self.goal_is_sign else -np.abs(velocity - goals[:, 0])

  def outcome(self, before, after, actions, goals):
    """The Outcome of a step; it tells diverged simulations from sound ones instead of warning or raising."""
    with np.errstate(invalid="ignore", over="ignore"):
      observations = self.observe(after)
      rewards = self.reward(before, after, actions, goals)
      velocity = self.velocity(before, after)
      terminated = self.terminated(after)
      # Comparisons are False for NaN. Actions come in through the reward's control cost.
      sound = np.abs(observations).max(axis=1) <= LARGEST
      sound &= (np.abs(after.qpos).max(axis=1) <= LARGEST) & (np.abs(rewards) <= LARGEST)
    return Outcome(observations, rewards, terminated, velocity, ~sound)


def clipped(values):
  """Values in [-1, 1]; what is no number becomes -1, so that MuJoCo never gets one (`Outcome.diverged` tells of it)."""
  return np.fmin(np.fmax(values, -1.0), 1.0)  # several times faster than np.clip on few numbers
