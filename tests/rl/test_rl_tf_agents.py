"""The bridge to tf-agents, against the installed package: its drivers, buffers and validators use what it makes."""

import importlib.util
import os
import subprocess
import sys

import gymnasium
import keras
import numpy as np
import pytest
import tensorflow as tf

from maml_tf import maml, randomness
from maml_tf.errors import UserError
from maml_tf.rl import tf_agents_bridge as bridge
from maml_tf.rl import types, vpg
from maml_tf.rl.advantages import advantages
from maml_tf.rl.environments import PointNavigation
from maml_tf.rl.policies import CategoricalMLP, GaussianMLP
from maml_tf.rl.rollouts import collect

if importlib.util.find_spec("tf_agents") is None:  # found, not imported: the bridge has to be the first to do that
  pytest.skip("tf-agents is not installed (it has no version for Python 3.12)", allow_module_level=True)

GOAL = np.float32([0.12, 0.09])
VARIABLE_BEFORE = os.environ.get(bridge.VARIABLE)


class Corridor(gymnasium.Env):
  """Three places in a row, integer actions (left, stay, right); it ends at the right end with a reward of 1."""

  def __init__(self, goal=None, length=3):
    del goal
    self.observation_space = gymnasium.spaces.Box(0.0, 1.0, (length,))
    self.action_space = gymnasium.spaces.Discrete(3)
    self.length = length

  def _observe(self):
    return np.eye(self.length, dtype=np.float32)[self.place]

  def reset(self, *, seed=None, options=None):
    super().reset(seed=seed)
    self.place = 0
    return self._observe(), {}

  def step(self, action):
    self.place = min(max(self.place + int(action) - 1, 0), self.length - 1)
    ended = self.place == self.length - 1
    return self._observe(), float(ended), ended, False, {}


def corridor(goal=None, max_episode_steps=6, **kwargs):
  return gymnasium.wrappers.TimeLimit(Corridor(goal, **kwargs), max_episode_steps)


def drive(environment, policy, episodes):
  """The trajectories that tf-agents' own driver shows its observers, stacked: a Trajectory [steps, B, ...]."""
  from tf_agents.drivers.dynamic_episode_driver import DynamicEpisodeDriver

  seen = []
  DynamicEpisodeDriver(environment, policy, [seen.append], num_episodes=episodes).run()
  return tf.nest.map_structure(lambda *steps: np.stack(steps), *seen)


def adapted_weights(policy, environment):
  """Weights of one task after a step of the policy gradient, towards its goal."""
  start = {name: weight[tf.newaxis] for name, weight in policy.initial_weights(0).items()}
  goals = tf.broadcast_to(GOAL, [1, 10, 2])
  trajectory, _ = collect(policy, start, environment, goals, randomness.make_seed(1))
  adapted = maml.inner_update(vpg.loss(policy, vpg.Batch(trajectory, advantages(trajectory))), start, 0.5)
  return {name: weight[0] for name, weight in adapted.items()}


@pytest.fixture(scope="module")
def point():
  """(our policy, weights adapted to GOAL)."""
  policy, environment = GaussianMLP(2, 2, (16,)), PointNavigation(horizon=20)
  return policy, adapted_weights(policy, environment)


@pytest.fixture(scope="module")
def driven(point):
  """(environment, tf-agents' policy, what its driver observed): an adapted policy in 2D navigation, 3 at a time."""
  environment = bridge.make_environment("maml_tf/PointNav-v0", GOAL, batch_size=3, max_episode_steps=20)
  policy = bridge.make_policy(*point, environment)
  return environment, policy, drive(environment, policy, episodes=6)


def test_objects_are_of_tf_agents_own_classes(driven):
  from tf_agents.environments.tf_py_environment import TFPyEnvironment
  from tf_agents.policies.tf_policy import TFPolicy
  from tf_agents.trajectories import Trajectory

  for value, kind in zip(driven, (TFPyEnvironment, TFPolicy, Trajectory), strict=True):
    assert isinstance(value, kind)


def test_driver_observes_what_the_specs_say(driven):
  from tf_agents.utils import nest_utils

  _, policy, observed = driven
  tensors = tf.nest.map_structure(tf.constant, observed)
  assert nest_utils.is_batched_nested_tensors(tensors, policy.trajectory_spec, num_outer_dims=2)
  assert observed.observation.shape == observed.action.shape == observed.policy_info["mean"].shape
  assert observed.observation.shape[1:] == (3, 2)
  assert observed.step_type.shape == observed.reward.shape == observed.discount.shape


def test_step_types_and_discounts_at_the_time_limit(driven):
  observed = driven[2]
  steps = len(observed.step_type)
  assert steps == 42  # two episodes of 20 steps in each environment, and a boundary after each
  expected = np.tile([types.FIRST, *[types.MID] * 19, types.LAST], 2)
  for i in range(3):
    np.testing.assert_array_equal(observed.step_type[:, i], expected)
    np.testing.assert_array_equal(observed.next_step_type[:-1, i], expected[1:])
  np.testing.assert_array_equal(observed.discount, np.ones((steps, 3)))  # cut off, not ended
  np.testing.assert_array_equal(observed.observation[expected == types.FIRST], 0.0)


def test_rewards_are_those_of_the_task(driven):
  """Recomputed from the observed actions: positions are sums of clipped moves, rewards minus distances."""
  observed = driven[2]
  for start in (0, 21):
    moves = 0.1 * np.clip(observed.action[start : start + 20], -1, 1)
    positions = np.cumsum(moves, axis=0)
    np.testing.assert_allclose(observed.observation[start + 1 : start + 21], positions, atol=1e-5)
    returns = -np.linalg.norm(positions - GOAL, axis=-1).sum(axis=0)
    np.testing.assert_allclose(observed.reward[start : start + 20].sum(axis=0), returns, rtol=1e-5)
  assert np.abs(observed.action).max() > 1  # what is observed is what was drawn, before clipping


def test_actions_are_drawn_from_the_adapted_policy(driven, point):
  """With the parameters that our policy gives at the same observations, and noise of mean 0 and deviation 1."""
  observed = driven[2]
  policy, weights = point
  expected = policy.distribution(weights, tf.constant(observed.observation))
  np.testing.assert_allclose(observed.policy_info["mean"], expected.mean, atol=1e-6)
  np.testing.assert_allclose(observed.policy_info["log_std"], expected.log_std, atol=1e-6)
  noise = (observed.action - expected.mean.numpy()) / np.exp(expected.log_std.numpy())
  assert abs(noise.mean()) < 4 / np.sqrt(noise.size)
  assert abs(noise.std() - 1) < 4 / np.sqrt(2 * noise.size)


def test_most_likely_actions_and_seeded_ones_are_our_policy_s(driven, point):
  policy, weights = point
  environment = driven[0]
  observation = tf.random.stateless_normal([3, 2], [1, 2])
  step = environment.reset()._replace(observation=observation)
  ours = policy.distribution(weights, observation[tf.newaxis])
  greedy = bridge.make_policy(policy, weights, environment, deterministic=True)
  np.testing.assert_array_equal(greedy.action(step).action, ours.mode()[0])
  np.testing.assert_array_equal(driven[1].action(step, seed=5).action, ours.sample([5, 0])[0])
  theirs = driven[1].distribution(step).action
  np.testing.assert_allclose(theirs.log_prob(ours.mode()[0]), ours.log_prob(ours.mode())[0], rtol=1e-5)


def test_same_seed_same_rollouts(point):
  runs = []
  for seed in (4, 4, 5):
    environment = bridge.make_environment("maml_tf/PointNav-v0", GOAL, max_episode_steps=5)
    runs.append(drive(environment, bridge.make_policy(*point, environment, seed=seed), 2).action)
  np.testing.assert_array_equal(runs[0], runs[1])
  assert not np.array_equal(runs[0], runs[2])
  assert not np.array_equal(runs[0][:5], runs[0][6:11])  # another episode, other actions


def test_termination_has_discount_zero_and_integer_actions_work():
  policy = CategoricalMLP(3, 3, (8,))
  environment = bridge.make_environment(corridor)
  observed = drive(environment, bridge.make_policy(policy, policy.initial_weights(0), environment), 30)
  assert observed.action.dtype == np.int32
  assert set(np.unique(observed.action)) == {0, 1, 2}
  last = (observed.next_step_type == types.LAST) & (observed.step_type != types.LAST)
  reached = last & (observed.reward == 1)
  assert reached.any()
  assert (last & ~reached).any()
  np.testing.assert_array_equal(observed.discount, np.where(reached, 0, 1))


def test_environment_passes_tf_agents_validation():
  from tf_agents.environments.utils import validate_py_environment

  validate_py_environment(bridge.make_environment("maml_tf/PointNav-v0", max_episode_steps=5).pyenv.envs[0], episodes=3)
  validate_py_environment(bridge.make_environment(corridor).pyenv.envs[0], episodes=3)


def test_replay_buffer_and_saver_take_the_policy(driven, tmp_path):
  from tf_agents.drivers.dynamic_episode_driver import DynamicEpisodeDriver
  from tf_agents.policies.policy_saver import PolicySaver
  from tf_agents.replay_buffers.tf_uniform_replay_buffer import TFUniformReplayBuffer

  environment, policy, _ = driven
  buffer = TFUniformReplayBuffer(policy.trajectory_spec, batch_size=3, max_length=50)
  DynamicEpisodeDriver(environment, policy, [buffer.add_batch], num_episodes=3).run()
  stored = buffer.gather_all()
  assert stored.observation.shape == (3, 21, 2)

  PolicySaver(policy, batch_size=None).save(str(tmp_path / "policy"))
  step = environment.reset()
  loaded = tf.saved_model.load(str(tmp_path / "policy"))
  assert loaded.action(step, ()).action.shape == (3, 2)


def test_mujoco_task_is_driven():
  pytest.importorskip("mujoco")
  environment = bridge.make_environment("maml_tf/HalfCheetahVel-v0", goal=1.0, batch_size=2, max_episode_steps=10)
  policy = GaussianMLP(20, 6, (8,))
  observed = drive(environment, bridge.make_policy(policy, policy.initial_weights(0), environment), 2)
  assert observed.observation.shape == (11, 2, 20)
  np.testing.assert_array_equal(observed.discount, 1.0)
  assert not np.array_equal(observed.observation[0, 0], observed.observation[0, 1])  # resets of their own
  environment.close()


def test_trajectory_there_and_back():
  environment, policy = PointNavigation(horizon=12), GaussianMLP(2, 2, (8,))
  environment.tolerance = 0.05
  goals = tf.zeros([2, 5, 2]) + GOAL / 2
  ours, _ = collect(policy, policy.initial_weights(0), environment, goals, randomness.make_seed(2))
  theirs = bridge.to_trajectory(ours)
  np.testing.assert_array_equal(~theirs.is_boundary(), ours.mask == 1)
  begins = tf.reduce_sum(tf.cast(theirs.is_first(), tf.float32), -1)
  np.testing.assert_array_equal(begins, tf.reduce_sum(ours.ends, -1))  # a rollout may have several episodes
  assert np.any(theirs.is_boundary())
  back = bridge.from_trajectory(theirs)
  assert type(back) is types.Trajectory
  tf.nest.map_structure(np.testing.assert_array_equal, back, ours)


def test_what_the_driver_observed_becomes_ours(driven):
  observed = driven[2]
  episodes = tf.nest.map_structure(lambda v: np.swapaxes(v, 0, 1)[np.newaxis, :, :21], observed)  # [1, 3, 21, ...]
  ours = bridge.from_trajectory(episodes)
  np.testing.assert_allclose(ours.mean_return[0], np.mean(observed.reward[:20].sum(axis=0)), rtol=1e-6)
  assert bridge.from_trajectory(episodes.replace(policy_info=())).policy_info == {}


def test_time_step_there_and_back(driven):
  theirs = driven[0].reset()
  ours = bridge.from_time_step(theirs)
  assert type(ours) is types.TimeStep
  assert bool(tf.reduce_all(bridge.to_time_step(ours).is_first()))
  tf.nest.map_structure(np.testing.assert_array_equal, bridge.to_time_step(ours), theirs)


def test_keras_and_the_process_s_variables_stay_as_they_were(driven):
  assert keras.__version__.startswith("3.")
  assert os.environ.get(bridge.VARIABLE) == VARIABLE_BEFORE


def test_weights_with_a_task_axis_are_named(driven, point):
  policy, weights = point
  with pytest.raises(UserError, match=r"dense_0/kernel has shape \(1, 2, 16\), expected \(2, 16\); it has a task axis"):
    bridge.make_policy(policy, {n: w[tf.newaxis] for n, w in weights.items()}, driven[0])
  with pytest.raises(UserError, match="the policy needs log_std"):
    bridge.make_policy(policy, {n: w for n, w in weights.items() if n != "log_std"}, driven[0])


def test_policy_and_environment_that_do_not_fit_are_named(driven):
  def refused(policy, environment, match):
    with pytest.raises(UserError, match=match):
      bridge.make_policy(policy, policy.initial_weights(0), environment)

  refused(GaussianMLP(3, 2, (4,)), driven[0], r"observations have shape \(2,\), the policy takes \(3,\)")
  refused(GaussianMLP(2, 3, (4,)), driven[0], r"actions are of size \(2,\), the policy's of size \(3,\)")
  refused(CategoricalMLP(2, 3, (4,)), driven[0], "its actions are real numbers, the policy's are integers")
  refused(
    CategoricalMLP(3, 4, (4,)), bridge.make_environment(corridor), "actions are of size 3, the policy's of size 4"
  )


def test_environment_of_another_kind_is_named():
  class Odd(Corridor):
    def __init__(self, goal=None):
      super().__init__()
      self.action_space = gymnasium.spaces.MultiDiscrete([2, 2])

  with pytest.raises(UserError, match=r"expected actions from a flat Box or from Discrete\(n\), got MultiDiscrete"):
    bridge.make_environment(Odd)
  with pytest.raises(UserError, match="Gymnasium knows none by the name of 'maml_tf/Nowhere-v0'"):
    bridge.make_environment("maml_tf/Nowhere-v0")


def in_new_process(code, **variables):
  environment = {name: value for name, value in os.environ.items() if name != "TF_USE_LEGACY_KERAS"} | variables
  done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, env=environment)
  return done.stdout.strip().split("\n")[-1] or done.stderr[-2000:]


PRELUDE = """
import sys, tensorflow as tf
from maml_tf.errors import UserError
from maml_tf.rl import tf_agents_bridge as bridge
def attempt():
  try:
    bridge.make_environment("maml_tf/PointNav-v0")
    print("made")
  except UserError as error:
    print(error)
"""


def test_missing_package_is_named_with_what_to_install():
  said = in_new_process(PRELUDE + 'sys.modules["tf_agents"] = None\nattempt()')
  assert 'pip install "maml_tf[tf-agents]"' in said
  assert "Python 3.10 or 3.11" in said


def test_importing_the_bridge_imports_no_tf_agents():
  assert in_new_process(PRELUDE + 'print("tf_agents" in sys.modules)') == "False"


def test_keras_that_was_used_before_does_not_matter():
  assert in_new_process(PRELUDE + "import keras\nkeras.layers.Dense(1)\ntf.keras.layers.Dense(1)\nattempt()") == "made"


def test_variable_that_was_set_before_is_kept():
  code = PRELUDE + 'import os\nattempt()\nprint(os.environ["TF_USE_LEGACY_KERAS"])'
  assert in_new_process(code, TF_USE_LEGACY_KERAS="true") == "true"


def test_keras_3_that_was_chosen_for_tf_agents_name_is_explained():
  code = PRELUDE + "import tensorflow.compat.v2\ntensorflow.compat.v2.keras.layers\nattempt()"
  assert "set TF_USE_LEGACY_KERAS=1 before Python starts" in in_new_process(code)
