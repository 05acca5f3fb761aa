"""2D navigation as a Gymnasium environment: equal to the one inside the graph, and to arithmetic by hand."""

import subprocess
import sys
import warnings

import gymnasium
import numpy as np
import pytest
import tensorflow as tf
from gymnasium.utils.env_checker import check_env

from maml_tf import randomness
from maml_tf.errors import UserError
from maml_tf.rl.environments import PointNavigation
from maml_tf.rl.envs.point import PointNavEnv


def test_gymnasium_accepts_it():
  gymnasium.register("maml_tf_tests/PointNav-v0", PointNavEnv, max_episode_steps=100)
  with warnings.catch_warnings(record=True) as seen:
    warnings.simplefilter("always")
    check_env(gymnasium.make("maml_tf_tests/PointNav-v0", goal=(0.1, 0.2)).unwrapped)
  # A plane has no end: nothing else is remarked upon.
  others = [str(w.message) for w in seen if "infinity. This is probably too" not in str(w.message)]
  assert not others


def test_equals_the_environment_inside_the_graph_step_for_step():
  rng, inside = np.random.default_rng(0), PointNavigation()
  for goal in rng.uniform(-0.5, 0.5, (5, 2)).astype(np.float32):
    outside = PointNavEnv(goal=goal)
    state, expected = inside.reset(randomness.make_seed(0), tf.constant(goal[None, None]))
    observation, _ = outside.reset(seed=0)
    for _ in range(100):
      np.testing.assert_array_equal(observation, expected[0, 0])
      action = rng.normal(size=2).astype(np.float32)
      observation, reward, terminated, truncated, _ = outside.step(action)
      state, expected, expected_reward, expected_end = inside.step(state, tf.constant(action[None, None]))
      np.testing.assert_allclose(reward, expected_reward[0, 0], rtol=1e-6)
      assert (terminated, truncated) == (bool(expected_end[0, 0]), False)


def test_rewards_by_hand():
  environment = PointNavEnv(goal=(0.3, 0.4))
  observation, info = environment.reset()
  np.testing.assert_array_equal(observation, [0.0, 0.0])
  np.testing.assert_allclose(info["goal"], [0.3, 0.4])
  observation, reward, *_ = environment.step([-0.3, -0.4])  # to (-0.03, -0.04): 0.55 away
  assert reward == pytest.approx(-0.55, abs=1e-6)
  observation, reward, *_ = environment.step([5.0, -5.0])  # clipped: 0.1 each way, to (0.07, -0.14)
  np.testing.assert_allclose(observation, [0.07, -0.14], atol=1e-6)
  assert reward == pytest.approx(-np.hypot(0.23, 0.54), abs=1e-6)


@pytest.mark.parametrize(
  ("away", "ends"), [((0.009, -0.009), True), ((0.011, 0.0), False), ((0.0, -0.011), False), ((0.0, 0.0), True)]
)
def test_ends_within_a_hundredth_in_both_directions(away, ends):
  environment = PointNavEnv(goal=(0.05 - away[0], 0.02 - away[1]))
  environment.reset()
  assert environment.step([0.5, 0.2])[2] is ends


def test_goals_are_uniform_and_follow_the_seed():
  environment = PointNavEnv()
  goals = np.stack([environment.reset(seed=seed)[1]["goal"] for seed in range(400)])
  np.testing.assert_array_equal(goals[7], environment.reset(seed=7)[1]["goal"])
  assert np.all(np.abs(goals) <= 0.5)
  np.testing.assert_allclose(goals.mean(axis=0), 0.0, atol=4 * np.sqrt(1 / 12 / 400))
  np.testing.assert_allclose(goals.std(axis=0), np.sqrt(1 / 12), atol=0.03)


def test_a_given_goal_stays_until_another_is_given():
  environment = PointNavEnv()
  drawn = [environment.reset(seed=0 if i == 0 else None)[1]["goal"] for i in range(2)]
  assert not np.array_equal(*drawn)
  for options in ({"goal": [0.1, -0.2]}, None, {}):
    np.testing.assert_allclose(environment.reset(options=options)[1]["goal"], [0.1, -0.2])
  np.testing.assert_allclose(environment.reset(options={"goal": (0.4, 0.4)})[1]["goal"], [0.4, 0.4])
  np.testing.assert_allclose(PointNavEnv(goal=[0.2, 0.2]).reset(seed=3)[1]["goal"], [0.2, 0.2])


@pytest.mark.parametrize("goal", [0.3, [0.1, 0.2, 0.3], [np.nan, 0.0]])
def test_a_goal_that_is_none_is_named(goal):
  with pytest.raises(UserError, match="goal of 2D navigation: expected two finite numbers"):
    PointNavEnv(goal=goal)
  with pytest.raises(UserError, match="goal of 2D navigation"):
    PointNavEnv().reset(options={"goal": goal})


def test_unknown_render_mode_is_named():
  with pytest.raises(UserError, match="got 'human'"):
    PointNavEnv(render_mode="human")


def test_frame_shows_point_and_goal_where_they_are():
  environment = PointNavEnv(goal=(0.4, 0.4), render_mode="rgb_array")
  environment.reset()
  for _ in range(3):
    environment.step([-1.0, 1.0])  # to (-0.3, 0.3)
  frame = environment.render()
  assert (frame.shape, frame.dtype) == ((400, 400, 3), np.uint8)

  def at(x, y):  # the view is 0.8 to each side
    return frame[round(200 * (1 - y / 0.8)), round(200 * (1 + x / 0.8))].astype(int)

  assert at(-0.3, 0.3)[2] > at(-0.3, 0.3)[0] + 80  # blue
  assert at(0.4, 0.4)[0] > at(0.4, 0.4)[2] + 80  # red
  np.testing.assert_array_equal(at(0.7, -0.7), [255, 255, 255])
  assert PointNavEnv().render() is None


def test_needs_no_tensorflow():
  code = "import sys, maml_tf.rl.envs.point; sys.exit('tensorflow' in sys.modules)"
  done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
  assert done.returncode == 0, done.stderr[-2000:]
