"""Videos of policies: what a policy does before it has adapted to a task, and after."""

import contextlib
import os
import pathlib
import tempfile

import numpy as np
import tensorflow as tf

from maml_tf import tracing
from maml_tf.errors import UserError

INSTALL = 'pip install "maml_tf[render]"'
CAPTION_HEIGHT, FONT_SIZE = 36, 18  # in pixels
FASTEST_GIF = 25  # frames per second: browsers slow down what is much faster
WIDEST_GIF = 720  # pixels: a GIF is large


def record(environment, policy, weights, goal=None, horizon=None, seed=0):
  """Frames of one rollout of a policy that acts by its most likely actions.

  Args:
    environment: Gymnasium's name of it (those of `maml_tf.rl.envs` are known), or a `gymnasium.Env` that was made with
      render_mode="rgb_array".
    policy: of `rl.policies`. One that takes the goal with its observations (the oracle) is given it.
    weights: dict of name -> plain tensor, without a task axis.
    goal: a number or [G], handed to `reset(options={"goal": ...})`; None: the environment's own.
    horizon: steps at most; None: until the environment ends the episode.
    seed: of the reset, a non-negative integer.

  Returns:
    uint8 [H + 1, h, w, 3] for H steps, the first before any; fewer where the episode ends earlier.

  Raises:
    UserError: no such environment, or nothing to draw it with.
  """
  with _opened(environment, horizon) as env:
    return _roll_out(env, policy, weights, goal, horizon, seed)[0]


def before_and_after(environment, policy, weights, path, goal=None, horizon=None, seed=0, fps=None):
  """Writes a video of rollouts of one task side by side: a policy before it adapts to that task, and after.

  Args:
    environment, policy, goal, horizon, seed: as of `record`.
    weights: dict of caption -> weights: {"before": ..., "after 1 step": ...}; as many as there is room for.
    path: of the files, without a suffix.
    fps: frames per second; None: as the environment says (`metadata["render_fps"]`).

  Returns:
    The paths written: an MP4 and a GIF.
  """
  import_ffmpeg()  # before the work, not after it
  parts = []
  with _opened(environment, horizon) as env:
    fps = env.metadata.get("render_fps", 30) if fps is None else fps
    for name, each in weights.items():
      frames, reward, shown_goal = _roll_out(env, policy, each, goal, horizon, seed)
      about = f", goal {_as_text(shown_goal)}" if shown_goal is not None else ""
      parts.append(caption(frames, f"{name}{about}: return {reward:.1f}"))
  return write_video(side_by_side(parts), path, fps)


def write_video(frames, path, fps):
  """Writes frames as MP4 (H.264) and as GIF, each whole or not at all.

  The GIF leaves out frames where there are more than 25 in a second, and is at most 720 pixels wide.

  Args:
    frames: uint8 [N, h, w, 3].
    path: of the files, without a suffix; its folder is made.
    fps: frames per second.

  Returns:
    [path of the MP4, path of the GIF].

  Raises:
    UserError: imageio or its ffmpeg is missing; says what to install.
  """
  imageio = import_ffmpeg()
  frames = np.asarray(frames)
  if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3 or not len(frames):
    raise UserError(f"frames: expected uint8 [N, height, width, 3], got {frames.dtype} {list(frames.shape)}")
  path = pathlib.Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  mp4, gif = path.with_name(f"{path.name}.mp4"), path.with_name(f"{path.name}.gif")
  with _replacing(mp4) as temporary:
    # H.264 stores colours by blocks of two by two pixels; a larger block size would scale the frames.
    imageio.imwrite(temporary, _even(frames), plugin="FFMPEG", fps=fps, codec="libx264", macro_block_size=2)
  every = int(np.ceil(fps / FASTEST_GIF))
  duration = 10 * max(1, round(100 * every / fps))  # milliseconds, in the format's steps of 10
  with _replacing(gif) as temporary:
    imageio.imwrite(temporary, _narrow(frames[::every]), plugin="pillow", duration=duration, loop=0)
  return [mp4, gif]


def caption(frames, text):
  """Frames with a line of text above them: [N, h, w, 3] -> [N, h + 36, w, 3]. Text that is too wide is set smaller."""
  from PIL import Image, ImageDraw, ImageFont

  width = frames.shape[2]
  size = FONT_SIZE
  while size > 8 and ImageFont.load_default(size).getlength(text) > width - 12:
    size -= 1
  strip = Image.new("RGB", (width, CAPTION_HEIGHT), "white")
  middle = (width / 2, CAPTION_HEIGHT / 2)
  ImageDraw.Draw(strip).text(middle, text, fill="black", font=ImageFont.load_default(size), anchor="mm")
  strips = np.broadcast_to(np.asarray(strip), (len(frames), CAPTION_HEIGHT, width, 3))
  return np.concatenate([strips, frames], axis=1)


def side_by_side(parts, gap=8):
  """Videos of one height as one, with white between them; the last frame of a shorter one stays."""
  longest = max(len(part) for part in parts)
  white = np.full((longest, parts[0].shape[1], gap, 3), 255, np.uint8)
  columns = []
  for part in parts:
    stays = np.repeat(part[-1:], longest - len(part), axis=0)
    columns += [white, np.concatenate([part, stays])]
  return np.concatenate(columns[1:], axis=2)


@contextlib.contextmanager
def _opened(environment, horizon):
  """The environment that a name stands for, closed afterwards; one that was given is left open."""
  if not isinstance(environment, str):
    if environment.render_mode != "rgb_array":
      raise UserError(
        f'environment: it was made with render_mode={environment.render_mode!r}; make it with render_mode="rgb_array"'
      )
    yield environment
    return
  import gymnasium

  import maml_tf.rl.envs  # noqa: F401 (registers the tasks)

  try:
    env = gymnasium.make(environment, render_mode="rgb_array", max_episode_steps=horizon)
  except gymnasium.error.UnregisteredEnv as error:
    raise UserError(f"environment: Gymnasium knows none by the name of {environment!r} ({error})") from error
  try:
    yield env
  finally:
    env.close()


def _roll_out(env, policy, weights, goal, horizon, seed):
  """(frames [H + 1, h, w, 3], undiscounted return, the goal as the environment tells it, or None)."""
  options = None if goal is None else {"goal": np.atleast_1d(np.asarray(goal, np.float64))}
  observation, info = env.reset(seed=seed, options=options)
  shown_goal = info.get("goal", None if options is None else options["goal"])
  act = _mode_of(policy, weights, shown_goal)
  frames, total, ended = [_render(env)], 0.0, False
  while not ended and (horizon is None or len(frames) <= horizon):
    observation, reward, terminated, truncated, _ = env.step(act(observation))
    total, ended = total + float(reward), terminated or truncated
    frames.append(_render(env))
  return np.stack(frames), total, shown_goal


def _mode_of(policy, weights, goal):
  """Function observation [O] -> the most likely action, an array [A] or an integer."""

  @tracing.function
  def mode(observation):
    return policy.distribution(weights, observation[tf.newaxis, tf.newaxis]).mode()[0, 0]

  def act(observation):
    observation = np.asarray(observation, np.float32).ravel()
    if goal is not None and observation.size + np.size(goal) == policy.example_shape[0]:
      observation = np.concatenate([observation, np.ravel(goal).astype(np.float32)])
    if observation.shape != tuple(policy.example_shape):
      sizes = f"{observation.size} numbers, the policy takes {policy.example_shape[0]}"
      raise UserError(f"environment: an observation has {sizes}; give the policy's own environment")
    action = mode(tf.constant(observation)).numpy()
    return int(action) if policy.num_actions is not None else action

  return act


def _render(env):
  try:
    frame = env.render()
  except UserError:
    raise
  except Exception as error:  # each simulator, and each OpenGL below it, fails in a way of its own
    told = " ".join(f"{type(error).__name__}: {error}".split())
    raise UserError(
      f"{env}: cannot be drawn ({told}); MuJoCo needs an OpenGL (Debian, Ubuntu: apt-get install libegl1 "
      "libgl1-mesa-dri) and, without a screen, MUJOCO_GL=egl or MUJOCO_GL=osmesa"
    ) from error
  return np.asarray(frame, np.uint8)


def check(environment):
  """Draws one frame of an environment, by its name: what drawing and writing videos lack is named before it is needed.

  Raises:
    UserError: says what to install.
  """
  import_ffmpeg()
  with _opened(environment, 1) as env:
    env.reset(seed=0)
    _render(env)


def import_ffmpeg():
  """`imageio.v3`, with an ffmpeg behind it."""
  try:
    import imageio.v3
    import imageio_ffmpeg

    imageio_ffmpeg.get_ffmpeg_exe()
  except (ImportError, RuntimeError) as error:
    raise UserError(f"videos need imageio and its ffmpeg ({error}); they come with: {INSTALL}") from error
  return imageio.v3


@contextlib.contextmanager
def _replacing(path):
  """A temporary path, of the same suffix, that takes the place of `path` where nothing was raised."""
  with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as folder:
    temporary = pathlib.Path(folder, path.name)
    yield temporary
    os.replace(temporary, path)


def _even(frames):
  """With the last row and column twice where their number is odd."""
  height, width = frames.shape[1:3]
  return np.pad(frames, [(0, 0), (0, height % 2), (0, width % 2), (0, 0)], mode="edge")


def _narrow(frames):
  from PIL import Image

  height, width = frames.shape[1:3]
  if width <= WIDEST_GIF:
    return frames
  size = (WIDEST_GIF, max(1, round(height * WIDEST_GIF / width)))
  return np.stack([np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.LANCZOS)) for frame in frames])


def _as_text(goal):
  return ", ".join(f"{number:.2f}" for number in np.ravel(goal))
