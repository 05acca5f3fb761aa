"""Videos: frames of the right rollout, files that can be read back, and what is missing named."""

import subprocess
import sys

import gymnasium
import numpy as np
import pytest
from PIL import Image

from maml_tf.errors import UserError
from maml_tf.rl import rendering
from maml_tf.rl.envs.point import PointNavEnv
from maml_tf.rl.policies import CategoricalMLP, GaussianMLP

imageio = pytest.importorskip("imageio.v3")
pytest.importorskip("imageio_ffmpeg")
POINT = "maml_tf/PointNav-v0"


def mover(velocity, observation_dim=2):
  """(policy, weights) that always moves the same way: the network's output is its last bias."""
  policy = GaussianMLP(observation_dim, 2, (4,))
  weights = {name: 0.0 * value for name, value in policy.initial_weights(0).items()}
  return policy, weights | {"dense_1/bias": weights["dense_1/bias"] + np.float32(velocity)}


def test_frames_are_those_of_the_rollout():
  goal, velocity = (0.3, 0.4), (0.3, -0.2)
  frames = rendering.record(POINT, *mover(velocity), goal=goal, horizon=6)
  assert (frames.shape, frames.dtype) == ((7, 400, 400, 3), np.uint8)
  env = PointNavEnv(goal=goal, render_mode="rgb_array")
  env.reset()
  for frame in frames:
    np.testing.assert_array_equal(frame, env.render())
    env.step(velocity)


def test_an_episode_that_ends_by_itself_ends_the_recording():
  frames = rendering.record(POINT, *mover((1.0, 1.0)), goal=(0.3, 0.3), horizon=20)
  assert len(frames) == 4  # there after three steps of 0.1


def test_without_a_horizon_the_environment_ends_it():
  assert len(rendering.record(POINT, *mover((0.0, 0.0)), goal=(0.3, 0.3))) == 101


def test_environment_that_was_given_is_used_and_left_open():
  env = PointNavEnv(render_mode="rgb_array")
  first = rendering.record(env, *mover((0.5, 0.0)), goal=(0.1, 0.4), horizon=3)
  again = rendering.record(env, *mover((0.5, 0.0)), horizon=3)  # a goal that was given stays
  np.testing.assert_array_equal(first, again)


def test_oracle_is_given_the_goal():
  policy, weights = mover((0.0, 0.0), observation_dim=4)
  first = np.zeros((4, 4), np.float32)
  first[2:, :2] = np.eye(2)  # relu of the goal, which the second layer passes on
  second = np.zeros((4, 2), np.float32)
  second[:2] = np.eye(2)
  weights |= {"dense_0/kernel": weights["dense_0/kernel"] + first, "dense_1/kernel": weights["dense_1/kernel"] + second}
  frames = rendering.record(POINT, policy, weights, goal=(0.4, 0.2), horizon=2)
  np.testing.assert_array_equal(frames, rendering.record(POINT, *mover((0.4, 0.2)), goal=(0.4, 0.2), horizon=2))


def test_integer_actions():
  class Switch(gymnasium.Env):
    render_mode, metadata = "rgb_array", {"render_modes": ["rgb_array"]}
    action_space = gymnasium.spaces.Discrete(3)

    def reset(self, *, seed=None, options=None):
      super().reset(seed=seed)
      self.last = 0
      return np.zeros(1, np.float32), {}

    def step(self, action):
      assert isinstance(action, int)
      self.last = action
      return np.zeros(1, np.float32), 1.0, False, False, {}

    def render(self):
      return np.full((4, 6, 3), self.last, np.uint8)

  policy = CategoricalMLP(1, 3, (4,))
  weights = {name: 0.0 * value for name, value in policy.initial_weights(0).items()}
  weights["dense_1/bias"] += np.float32([0, 0, 1])
  np.testing.assert_array_equal(rendering.record(Switch(), policy, weights, horizon=2)[:, 0, 0, 0], [0, 2, 2])


@pytest.mark.parametrize(("size", "fps"), [((40, 60), 20), ((41, 59), 10)])
def test_files_can_be_read_back(tmp_path, size, fps):
  colours = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255]], np.uint8)
  frames = np.broadcast_to(colours[:, None, None], (4, *size, 3))
  mp4, gif = rendering.write_video(frames, tmp_path / "new" / "a.b", fps)
  assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["a.b.gif", "a.b.mp4"]
  film = imageio.imread(mp4, plugin="FFMPEG")
  assert film.shape == (4, size[0] + size[0] % 2, size[1] + size[1] % 2, 3)
  np.testing.assert_allclose(film[:, 5, 5], colours, atol=12)  # H.264 loses some
  assert imageio.immeta(mp4, plugin="FFMPEG")["fps"] == fps
  moving = imageio.imread(gif, plugin="pillow", index=None)
  np.testing.assert_array_equal(moving[..., :3], frames)
  assert Image.open(gif).info["duration"] == 1000 / fps


def test_gif_leaves_out_what_is_too_fast_and_too_wide(tmp_path):
  frames = np.random.default_rng(0).integers(0, 255, (100, 8, 1000, 3), np.uint8)
  mp4, gif = rendering.write_video(frames, tmp_path / "fast", 100)
  assert imageio.improps(gif, plugin="pillow", index=None).shape[:3] == (25, 6, 720)
  assert Image.open(gif).info["duration"] == 40
  assert len(imageio.imread(mp4, plugin="FFMPEG")) == 100


def test_writing_that_fails_leaves_the_older_file(tmp_path, monkeypatch):
  frames = np.zeros((2, 16, 16, 3), np.uint8)
  before = [path.read_bytes() for path in rendering.write_video(frames, tmp_path / "a", 10)]

  def fail(path, *args, **kwargs):
    path.write_bytes(b"half of it")
    raise OSError("disk full")

  monkeypatch.setattr(imageio, "imwrite", fail)
  with pytest.raises(OSError, match="disk full"):
    rendering.write_video(frames + 9, tmp_path / "a", 10)
  assert sorted(path.name for path in tmp_path.iterdir()) == ["a.gif", "a.mp4"]
  assert [(tmp_path / name).read_bytes() for name in ("a.mp4", "a.gif")] == before


@pytest.mark.parametrize(
  "frames", [np.zeros((2, 4, 4, 3)), np.zeros((4, 4, 3), np.uint8), np.zeros((0, 4, 4, 3), "u1")]
)
def test_frames_of_another_kind_are_named(tmp_path, frames):
  with pytest.raises(UserError, match=r"frames: expected uint8 \[N, height, width, 3\], got"):
    rendering.write_video(frames, tmp_path / "a", 10)


def test_before_and_after_stand_side_by_side(tmp_path):
  policy, before = mover((0.0, 0.0))
  _, after = mover((1.0, 1.0))
  weights = {"before": before, "after 1 step": after}
  mp4, gif = rendering.before_and_after(POINT, policy, weights, tmp_path / "video", goal=(0.3, 0.3), horizon=8)
  film = imageio.imread(mp4, plugin="FFMPEG")
  height = 400 + rendering.CAPTION_HEIGHT
  assert film.shape == (9, height, 808, 3)
  still = rendering.record(POINT, policy, before, goal=(0.3, 0.3), horizon=8)
  moved = rendering.record(POINT, policy, after, goal=(0.3, 0.3), horizon=8)
  for frame in (0, 4, 8):  # the second has ended after three steps and stays
    differences = [
      np.abs(film[frame, -400:, :400].astype(int) - still[frame]),
      np.abs(film[frame, -400:, 408:].astype(int) - moved[min(frame, 3)]),
    ]
    assert max(d.mean() for d in differences) < 3
  assert (film[0, :30, :400] < 100).any()  # a caption
  assert gif.exists()


def test_captions_fit():
  frames = np.zeros((2, 10, 200, 3), np.uint8)
  captioned = rendering.caption(frames, "after 3 steps, goal -0.31, 0.22: return -12.3")
  assert captioned.shape == (2, 10 + rendering.CAPTION_HEIGHT, 200, 3)
  np.testing.assert_array_equal(captioned[:, -10:], frames)
  edges = captioned[0, : rendering.CAPTION_HEIGHT, [0, 1, -2, -1]]
  assert edges.min() == 255


def test_what_cannot_be_recorded_is_named():
  with pytest.raises(UserError, match='make it with render_mode="rgb_array"'):
    rendering.record(PointNavEnv(), *mover((0, 0)), horizon=1)
  with pytest.raises(UserError, match="Gymnasium knows none by the name of 'maml_tf/Nowhere-v0'"):
    rendering.record("maml_tf/Nowhere-v0", *mover((0, 0)))
  with pytest.raises(UserError, match="an observation has 2 numbers, the policy takes 3"):
    rendering.record(POINT, *mover((0, 0), observation_dim=3), horizon=1)


def test_missing_opengl_is_named(monkeypatch):
  def fail(self):
    raise AttributeError("'NoneType' object has\nno attribute 'eglQueryString'")

  monkeypatch.setattr(PointNavEnv, "render", fail)
  with pytest.raises(UserError, match=r"has no attribute 'eglQueryString'\); MuJoCo needs an OpenGL .*MUJOCO_GL=egl"):
    rendering.record(PointNavEnv(render_mode="rgb_array"), *mover((0, 0)), horizon=1)


@pytest.mark.parametrize("missing", ["imageio", "imageio_ffmpeg"])
def test_missing_packages_are_named_with_what_to_install(tmp_path, missing):
  code = f"""
import sys
sys.modules[{missing!r}] = None
import numpy as np
from maml_tf.errors import UserError
from maml_tf.rl import rendering
try:
  rendering.write_video(np.zeros((2, 4, 4, 3), np.uint8), "video", 10)
except UserError as error:
  print(error)
"""
  done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, cwd=tmp_path)
  assert 'pip install "maml_tf[render]"' in done.stdout, done.stderr[-2000:]
