"""The MuJoCo tasks: what they compute, that the batched simulators compute the same, and what they do when it fails."""

import json
import os
import pathlib
import pickle
import re
import signal
import subprocess
import sys

import gymnasium
import mujoco
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode

from maml_tf.errors import UserError
from maml_tf.rl import envs, simulators
from maml_tf.rl.envs.definition import LARGEST
from maml_tf.rl.envs.drawing import Drawer
from maml_tf.rl.simulators.planar import PlanarBody

GOLDEN = pathlib.Path(__file__).parents[1] / "golden"
NAMES = list(envs.DEFINITIONS)


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)  # MuJoCo writes a log into the current folder where a simulation diverges


def make(name, **kwargs):
  return gymnasium.make(envs.DEFINITIONS[name].gym_id, **kwargs).unwrapped


def python(code, **variables):
  """Runs code in a process of its own, away from the repository."""
  environment = {**os.environ, **variables}
  return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=60)


def body_momentum(model, data):
  """(centre of mass, its velocity) from each body's mass, place and velocity, as rllab sums them."""
  place, velocity, one = np.zeros(3), np.zeros(3), np.zeros(6)
  for body in range(1, model.nbody):
    mujoco.mj_objectVelocity(model, data, mujoco.mjtObj.mjOBJ_BODY, body, one, 0)
    place += model.body_mass[body] * data.xipos[body]
    velocity += model.body_mass[body] * one[3:]
  return place / model.body_mass.sum(), velocity / model.body_mass.sum()


def after_steps(env, num, seed=0):
  """Takes `num` random actions, some beyond the bounds; returns the last action and what it led to."""
  rng = np.random.default_rng(seed)
  env.reset(seed=seed)
  for _ in range(num):
    action = 1.5 * rng.standard_normal(env.definition.action_dim)
    result = env.step(action)
  return action, result


# --- Definitions -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "goal"), [("cheetah_vel", 1.3), ("cheetah_dir", -1)])
def test_half_cheetahs_reward_and_observation_are_rllabs(name, goal):
  env = make(name, goal=goal)
  action, (observation, reward, terminated, truncated, info) = after_steps(env, 30)
  com, velocity = body_momentum(env.model, env.data)
  np.testing.assert_allclose(observation, [*env.data.qpos[1:], *env.data.qvel, *com], atol=1e-12)
  progress = -abs(velocity[0] - goal) if name == "cheetah_vel" else goal * velocity[0]
  assert reward == pytest.approx(progress - 0.05 * sum(min(abs(a), 1) ** 2 for a in action), abs=1e-12)
  assert info["velocity"] == pytest.approx(velocity[0]) and info["goal"] == goal and not info["diverged"]
  assert (terminated, truncated) == (False, False)


@pytest.mark.parametrize(("name", "goal"), [("ant_vel", 1.3), ("ant_dir", -1), ("ant_goal", (2.0, -1.0))])
def test_ants_reward_and_observation_are_rllabs(name, goal):
  env = make(name, goal=goal)
  action, (observation, reward, *_) = after_steps(env, 26)
  com, velocity = body_momentum(env.model, env.data)
  forces = [min(max(force, -1), 1) for force in env.data.cfrc_ext.ravel()]
  parts = [*env.data.qpos, *env.data.qvel, *forces, *env.data.body("torso").xmat, *com]
  np.testing.assert_allclose(observation, parts, atol=1e-12)
  progress = {
    "ant_vel": 1 - abs(velocity[0] - 1.3),
    "ant_dir": -velocity[0],
    "ant_goal": 4 - abs(com[0] - 2) - abs(com[1] + 1),
  }[name]
  control = 0.005 * sum(min(abs(a), 1) ** 2 for a in action)
  contact = 0.0005 * sum(force**2 for force in forces)
  assert contact > 0.001
  assert reward == pytest.approx(progress - control - contact + 0.05, abs=1e-12)


def test_what_is_derived_belongs_to_the_new_state():
  # Positions of bodies as `mj_step` leaves them are those before the step; rllab calls forward() after each.
  env = make("ant_vel")
  after_steps(env, 5)
  there = mujoco.MjData(env.model)
  there.qpos[:], there.qvel[:] = env.data.qpos, env.data.qvel
  mujoco.mj_forward(env.model, there)
  np.testing.assert_allclose(env.data.xipos, there.xipos, atol=1e-12)


def test_contact_cost_is_there_on_the_ground_and_not_in_the_air():
  env = make("ant_vel", goal=0.0)
  env.reset(seed=0)
  forces = slice(29, 113)
  qpos = np.array(env.definition.initial_qpos)
  for height, touches in ((0.55, True), (5.0, False)):
    qpos[2] = height
    env.set_state(qpos, np.zeros(14))
    for _ in range(20):
      observation, reward, *_ = env.step(np.zeros(8))
    assert np.any(observation[forces] != 0) == touches
    cost = 1.05 - abs(observation[15]) - reward  # a falling ant does not move sideways, nor does a standing one much
    assert cost > 1e-3 if touches else abs(cost) < 1e-6


@pytest.mark.parametrize("name", ["cheetah_vel", "ant_vel"])
def test_resets_are_rllabs(name):
  definition = envs.DEFINITIONS[name]
  qpos, qvel = definition.initial_states(np.random.default_rng(0), 4000)
  start = np.zeros(9) if name == "cheetah_vel" else np.array([0, 0, 0.55, 1, 0, 0, 0, 0, 1, 0, -1, 0, -1, 0, 1.0])
  np.testing.assert_allclose(qpos.mean(axis=0), start, atol=1e-3)
  spread = np.full(len(start), 0.01)
  if name == "ant_vel":
    spread[3] = 0  # a normalised quaternion near 1 moves in its other three parts
    np.testing.assert_allclose(np.linalg.norm(qpos[:, 3:7], axis=1), 1, atol=1e-12)
  np.testing.assert_allclose(qpos.std(axis=0), spread, atol=5e-4)
  np.testing.assert_allclose(qvel.mean(axis=0), 0, atol=1e-2)
  np.testing.assert_allclose(qvel.std(axis=0), 0.1, atol=5e-3)


def test_ant_ends_where_it_falls_or_flies():
  env = make("ant_vel", goal=1.0)
  env.reset(seed=0)
  qpos = np.array(env.definition.initial_qpos)
  for height, ends in ((0.55, False), (0.1, True), (1.1, True), (0.9, False)):
    qpos[2] = height
    env.set_state(qpos, np.zeros(14))
    assert env.step(np.zeros(8))[2] == ends


def test_models_are_rllabs():
  cheetah, ant = make("cheetah_vel"), make("ant_vel")
  assert (cheetah.model.opt.timestep, cheetah.dt) == (0.01, 0.01)
  assert cheetah.model.opt.integrator == mujoco.mjtIntegrator.mjINT_EULER
  assert cheetah.model.body_mass.sum() == pytest.approx(14)
  assert (ant.model.opt.timestep, ant.dt) == (0.02, 0.02)
  assert ant.model.opt.integrator == mujoco.mjtIntegrator.mjINT_RK4
  np.testing.assert_array_equal(ant.model.geom_solimp[:, :3], np.tile([0.8, 0.8, 0.01], (ant.model.ngeom, 1)))
  torque = ant.model.actuator_gear[:, 0] * ant.model.actuator_ctrlrange[:, 1]
  np.testing.assert_array_equal(torque, 150)


@pytest.mark.parametrize(("name", "twin"), [("cheetah_vel_v5", "HalfCheetah-v5"), ("ant_vel_v5", "Ant-v5")])
def test_version_5_differs_from_gymnasiums_in_the_forward_reward_only(name, twin):
  ours, theirs = make(name, goal=0.7), gymnasium.make(twin).unwrapped
  np.testing.assert_array_equal(ours.reset(seed=3)[0], theirs.reset(seed=3)[0])
  rng = np.random.default_rng(0)
  for _ in range(10):
    action = 1.5 * rng.standard_normal(ours.definition.action_dim)
    observation, reward, terminated, _, info = ours.step(action)
    expected, their_reward, their_terminated, _, their_info = theirs.step(action)
    # HalfCheetah's solver starts cold with us, and stops at a tolerance.
    np.testing.assert_allclose(observation, expected, atol=1e-6)
    assert info["velocity"] == pytest.approx(their_info["x_velocity"], abs=1e-6)
    task_reward = -abs(their_info["x_velocity"] - 0.7)
    assert reward == pytest.approx(their_reward - their_info["reward_forward"] + task_reward, abs=1e-6)
    assert terminated == their_terminated


# --- Goals -----------------------------------------------------------------------------------------------------------


def test_published_test_goals():
  golden = json.loads((GOLDEN / "rl_test_goals.json").read_text())
  for name, goals in golden.items():
    ours = envs.published_test_goals(name)
    assert ours.dtype == np.float64
    np.testing.assert_array_equal(ours, np.reshape(goals, (40, -1)))
  assert envs.published_test_goals("cheetah_vel")[0, 0] == pytest.approx(2 * 0.4170220047)  # NumPy's first, seed 1
  assert envs.published_test_goals("ant_goal").shape == (40, 2)
  with pytest.raises(ValueError, match="name: expected one of"):
    envs.published_test_goals("walker")


@pytest.mark.parametrize(
  ("name", "low", "high"), [("cheetah_vel", 0, 2), ("ant_vel", 0, 3), ("ant_goal", -3, 3), ("cheetah_dir", -1, 1)]
)
def test_goals_fill_their_range(name, low, high):
  definition = envs.DEFINITIONS[name]
  goals = definition.sample_goals(np.random.default_rng(0), 4000)
  assert goals.shape == (4000, definition.goal_dim)
  if definition.goal_is_sign:
    assert set(goals.ravel()) == {-1.0, 1.0} and abs(goals.mean()) < 0.05
  else:
    assert low <= goals.min() < low + 0.01 and high - 0.01 < goals.max() <= high
    assert goals.mean() == pytest.approx((low + high) / 2, abs=0.1)


def test_a_goal_stays_until_another_is_given_and_is_drawn_anew_where_there_is_none():
  env = make("cheetah_vel", goal=1.5)
  env.reset(seed=0)
  assert env.goal == 1.5
  assert env.reset(options={"goal": 0.5})[1]["goal"] == 0.5
  assert env.reset()[1]["goal"] == 0.5
  env = make("cheetah_vel")
  assert env.reset(seed=0)[1]["goal"] != env.reset()[1]["goal"]
  with simulators.make("cheetah_vel", 3, 1) as vector:
    first, second = vector.reset(seed=0)[1]["goal"], vector.reset()[1]["goal"]
    assert len(np.unique([first, second])) == 6
    vector.reset(options={"goals": [[1.0], [2.0], [3.0]]})
    np.testing.assert_array_equal(vector.reset()[1]["goal"], [[1.0], [2.0], [3.0]])


def test_what_is_no_goal_is_named():
  with pytest.raises(ValueError, match="-1 or 1, got"):
    make("ant_dir", goal=0.5)
  with pytest.raises(ValueError, match=r"goals of shape \(1, 2\) expected, got \(1, 1\)"):
    make("ant_goal", goal=0.5)
  with pytest.raises(ValueError, match="finite"):
    make("ant_vel", goal=np.nan)
  with pytest.raises(ValueError, match="options: expected at most 'goal', got"):
    make("ant_vel").reset(options={"goals": 1})


# --- Batched simulators ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_batched_simulators_compute_what_single_environments_do(name):
  rng = np.random.default_rng(0)
  with simulators.make(name, 3, 2) as vector:
    observations, infos = vector.reset(seed=1)
    assert observations.dtype == np.float64 and vector.observation_space.contains(observations)
    states = [vector._physics.qpos.copy(), vector._physics.qvel.copy()]
    single = [make(name, goal=infos["goal"][i]) for i in range(3)]
    for i, env in enumerate(single):
      env.reset(seed=0)
      np.testing.assert_allclose(observations[i], env.set_state(states[0][i], states[1][i]), atol=1e-9)
    running = np.ones(3, bool)
    for _ in range(25):
      actions = 1.5 * rng.standard_normal((3, vector.single_action_space.shape[0]))
      observations, rewards, terminations, truncations, infos = vector.step(actions)
      assert not truncations.any()
      for i in np.flatnonzero(running):
        observation, reward, terminated, _, info = single[i].step(actions[i])
        np.testing.assert_allclose(observations[i], observation, atol=1e-9)
        assert rewards[i] == pytest.approx(reward, abs=1e-9) and terminations[i] == terminated
        assert infos["velocity"][i] == pytest.approx(info["velocity"], abs=1e-9)
      running &= ~terminations
    assert running.any()


@pytest.mark.parametrize("name", ["cheetah_vel", "ant_vel", "ant_dir_v5"])
def test_results_do_not_depend_on_the_number_of_threads(name):
  histories = []
  for threads in (1, 2):
    rng = np.random.default_rng(0)
    with simulators.make(name, 7, threads) as vector:
      history = [vector.reset(seed=[5, 6])[0]]
      for _ in range(20):
        history.extend(vector.step(rng.uniform(-1, 1, vector.action_space.shape))[:3])
    histories.append(history)
  for one, two in zip(*histories, strict=True):
    np.testing.assert_array_equal(one, two)


def test_same_seed_same_episode_whether_goals_are_given_or_not():
  with simulators.make("cheetah_vel", 4, 1) as vector:
    drawn, infos = vector.reset(seed=[1, 2])
    given, _ = vector.reset(seed=[1, 2], options={"goals": infos["goal"] + 1})
    other, _ = vector.reset(seed=[1, 3])
  np.testing.assert_array_equal(drawn, given)
  assert not np.any(drawn[:, :-3] == other[:, :-3])


def test_planar_kinematics_are_mujocos():
  model = make("cheetah_vel").model
  rng = np.random.default_rng(0)
  qpos, qvel = rng.normal(0, 2, (20, 9)), rng.normal(0, 5, (20, 9))
  place, velocity = PlanarBody(model).centre_of_mass(qpos, qvel)
  data = mujoco.MjData(model)
  for i in range(20):
    data.qpos[:], data.qvel[:] = qpos[i], qvel[i]
    mujoco.mj_forward(model, data)
    mujoco.mj_subtreeVel(model, data)
    np.testing.assert_allclose(place[i], data.subtree_com[1], atol=1e-9)
    np.testing.assert_allclose(velocity[i], data.subtree_linvel[1], atol=1e-9)
  with pytest.raises(ValueError, match="not planar"):
    PlanarBody(make("ant_vel").model)


def test_a_terminated_environment_is_frozen():
  with simulators.make("ant_vel", 3, 2) as vector:
    vector.reset(seed=0)
    assert vector.metadata["autoreset_mode"] == AutoresetMode.DISABLED
    qpos, qvel = vector._physics.qpos.copy(), vector._physics.qvel.copy()
    qpos[1, 2] = 0.1
    vector.set_states(qpos, qvel)
    zeros = np.zeros((3, 8))
    last, rewards, terminations, _, infos = vector.step(zeros)
    assert terminations.tolist() == [False, True, False] and rewards[1] != 0 and not infos["diverged"].any()
    for _ in range(3):
      observations, rewards, terminations, *_ = vector.step(zeros)
      np.testing.assert_array_equal(observations[1], last[1])
      assert rewards[1] == 0 and rewards[0] != 0 and terminations.tolist() == [False, True, False]
      assert not np.array_equal(observations[0], last[0])
    vector.reset()
    assert not vector.step(zeros)[2].any()


@pytest.mark.parametrize("name", ["cheetah_vel", "cheetah_vel_v5", "ant_vel"])
@pytest.mark.parametrize("how", ["state", "action"])
def test_a_diverging_simulation_is_masked_and_the_others_go_on(name, how):
  histories = []
  for spoilt in (False, True):
    rng = np.random.default_rng(0)
    with simulators.make(name, 3, 1) as vector:
      vector.reset(seed=0)
      qpos, qvel = vector._physics.qpos.copy(), vector._physics.qvel.copy()
      qvel[1, 3:] += 1e9 * (spoilt and how == "state")
      history = [vector.set_states(qpos, qvel)]
      for step in range(6):
        actions = rng.uniform(-1, 1, vector.action_space.shape)
        if spoilt and how == "action" and step == 2:
          actions[1, 0] = np.nan
        observations, rewards, terminations, _, infos = vector.step(actions)
        assert np.abs(observations).max() <= LARGEST and np.isfinite(rewards).all()
        assert infos["diverged"][1] <= terminations[1] and not infos["diverged"][[0, 2]].any()
        if infos["diverged"][1]:
          assert rewards[1] == 0
          np.testing.assert_array_equal(observations[1], history[-1][1])
        history.append(observations)
      assert infos["diverged"].tolist() == [False, spoilt, False]
    histories.append(np.array(history)[:, [0, 2]])
  np.testing.assert_array_equal(*histories)


def test_a_single_environment_that_diverges_says_so():
  env = make("ant_vel", goal=1.0)
  last, _ = env.reset(seed=0)
  observation, reward, terminated, _, info = env.step(np.full(8, np.nan))
  np.testing.assert_array_equal(observation, last)
  assert (reward, terminated, info["diverged"]) == (0.0, True, True)


@pytest.mark.parametrize("name", ["cheetah_vel", "ant_vel"])
def test_wrong_calls_are_named(name):
  with simulators.make(name, 2, 1) as vector:
    with pytest.raises(RuntimeError, match="call reset first"):
      vector.step(np.zeros((2, 8)))
    vector.reset(seed=0)
    with pytest.raises(ValueError, match=r"actions: expected shape \(2, \d\), got \(3,\)"):
      vector.step(np.zeros(3))
    with pytest.raises(ValueError, match="goals of shape"):
      vector.reset(options={"goals": [1.0, 2.0]})
    with pytest.raises(ValueError, match="options: expected at most 'goals'"):
      vector.reset(options={"goal": 1.0})
  with pytest.raises(RuntimeError):
    vector.reset(seed=0)
    vector.step(np.zeros(vector.action_space.shape))
  with pytest.raises(ValueError, match="name: expected one of"):
    simulators.make("walker", 2)
  with pytest.raises(ValueError, match="num_envs, sim_threads"):
    simulators.make(name, 0)


# --- Processes -------------------------------------------------------------------------------------------------------


def test_a_worker_that_dies_is_an_error_and_not_a_hang():
  vector = simulators.make("ant_vel", 2, 2)
  vector.reset(seed=0)
  workers = vector._workers
  workers[1].kill()
  workers[1].wait()
  with pytest.raises(RuntimeError, match="ended by signal 9"):
    vector.step(np.zeros((2, 8)))
  assert all(process.poll() is not None for process in workers)
  with pytest.raises(RuntimeError, match="closed"):
    vector.step(np.zeros((2, 8)))


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_workers_die_with_their_parent(how):
  # No __main__ guard here either: the workers do not run the script again.
  code = (
    "from maml_tf.rl import simulators; import os, time; v = simulators.make('ant_vel', 4, 2); v.reset(seed=0); "
    "print(*[w.pid for w in v._workers], flush=True); time.sleep(60)"
  )
  with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as parent:
    workers = [int(pid) for pid in parent.stdout.readline().split()]
    assert len(workers) == 2
    parent.send_signal(how)
    parent.wait(timeout=20)
    parent.stdout.read()
  for _ in range(200):
    if not any(_alive(pid) for pid in workers):
      return
    subprocess.run(["sleep", "0.05"], check=True)
  pytest.fail("workers outlive their parent")


def _alive(pid):
  try:
    return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
  except FileNotFoundError:
    return False


# --- Gymnasium -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("gym_id", [envs.POINT_ID, *(definition.gym_id for definition in envs.DEFINITIONS.values())])
@pytest.mark.filterwarnings("error", r"ignore:.*A Box observation space (min|max)imum value is")
def test_gymnasiums_checker_has_nothing_to_say(gym_id):
  check_env(gymnasium.make(gym_id).unwrapped, skip_render_check=True)


def test_a_copy_has_its_task_and_goes_on_by_itself():
  env = make("ant_vel")
  after_steps(env, 5)
  twin = pickle.loads(pickle.dumps(env))
  np.testing.assert_array_equal(twin.goal, env.goal)
  first, second = (copy.step(np.full(8, 0.3)) for copy in (env, twin))
  np.testing.assert_array_equal(first[0], second[0])
  assert first[1] == second[1] and twin.goal is not env.goal


def test_episodes_end_at_their_time_limit():
  envs.register()  # a second time: nothing changes, and nothing is said
  assert gymnasium.spec("maml_tf/PointNav-v0").max_episode_steps == 100
  env = gymnasium.make("maml_tf/HalfCheetahVel-v0", goal=1.0)
  env.reset(seed=0)
  ends = [env.step(np.zeros(6))[2:4] for _ in range(200)]
  assert not any(map(any, ends[:-1])) and ends[-1] == (False, True)


def test_a_fresh_process_makes_an_environment_without_importing_anything_else_nor_tensorflow():
  code = (
    "import sys, gymnasium as gym; env = gym.make('maml_tf.rl.envs:maml_tf/AntVel-v0', goal=1.5); env.reset(seed=0); "
    "from maml_tf.rl import simulators; v = simulators.make('cheetah_vel', 2, 1); v.reset(seed=0); v.close(); "
    "v = simulators.make('ant_vel', 2, 1); v.reset(seed=0); v.close(); "
    "print(env.unwrapped.goal, sorted({'tensorflow', 'keras'} & set(sys.modules)))"
  )
  done = python(code)
  assert done.stdout.split() == ["[1.5]", "[]"] and not done.stderr, done.stderr


def test_a_missing_mujoco_is_named():
  missing = "import sys; sys.modules['mujoco'] = None; import gymnasium as gym; "
  done = python(missing + "gym.make('maml_tf.rl.envs:maml_tf/AntVel-v0')")
  assert re.search("UserError: MuJoCo cannot be imported.*pip install mujoco", done.stderr.splitlines()[-1])


def test_a_missing_opengl_is_named(monkeypatch):
  monkeypatch.setenv("MUJOCO_GL", "bogus")
  env = make("ant_vel", render_mode="rgb_array")
  env.reset(seed=0)
  with pytest.raises(UserError, match=r"no OpenGL works here \(bogus: .*libegl1.*libosmesa6"):
    env.render()


@pytest.mark.parametrize("name", ["cheetah_vel", "cheetah_dir", "ant_vel", "ant_dir"])
def test_images_show_the_robot_wherever_it_is(name):
  try:
    Drawer(envs.DEFINITIONS[name]).close()
  except UserError as error:
    pytest.skip(str(error))
  env = make(name, goal=1.0, render_mode="rgb_array", width=120, height=90)
  env.reset(seed=0)
  images = []
  for place in (0.0, 7.0):
    qpos = np.array(env.definition.initial_qpos)
    qpos[0] = place
    env.set_state(qpos, np.zeros(env.model.nv))
    images.append(env.render().astype(float))
  env.close()
  assert images[0].shape == (90, 120, 3)
  # The camera follows: in the image's middle the robot's own colour (more red than blue), at either place.
  for image in images:
    middle = image[30:80, 20:100]
    assert (middle[..., 0] - middle[..., 2]).max() > 50


@pytest.mark.filterwarnings("ignore:.*that is not in the possible render_modes")
def test_wrong_render_modes_are_named():
  with pytest.raises(ValueError, match="render_mode: expected None or one of"):
    make("ant_vel", render_mode="ascii", disable_env_checker=True)
