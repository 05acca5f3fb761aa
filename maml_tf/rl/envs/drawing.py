"""Images of a robot, drawn in a process of its own (`python -m maml_tf.rl.envs.drawing`).

Mesa's software OpenGL, which draws where there is no graphics card, and TensorFlow bring an LLVM each, and crash when
they meet in one process (https://github.com/tensorflow/tensorflow/issues/109933).
"""

import os
import sys
import tempfile
from typing import NamedTuple

import numpy as np

from maml_tf.errors import UserError
from maml_tf.rl.envs import child
from maml_tf.rl.envs.definition import Definition

NO_GL = (
  "images of the robot cannot be drawn, since no OpenGL works here ({tried}); install one (Debian, Ubuntu: apt-get "
  "install libegl1 libgl1-mesa-dri, or libosmesa6), and name it where there are several: MUJOCO_GL=egl or osmesa"
)
READY = b"r"


class Order(NamedTuple):
  """What the process has to know."""

  definition: Definition
  width: int
  height: int


class Drawer:
  """Draws a robot as seen by a camera that follows it.

  Without MUJOCO_GL, the first of GLFW (only where there is a screen), EGL and OSMesa is taken that works.

  Args:
    definition: a `Definition`.
    width, height: of the images, in pixels.

  Raises:
    UserError: no OpenGL works here; says what to install.
  """

  def __init__(self, definition, width=480, height=480):
    self._shape = (height, width, 3)
    tried = []
    for backend in _backends():
      self._process, complaint = _try(backend, Order(definition, width, height))
      if self._process is not None:
        return
      tried.append(f"{backend}: {complaint}")
    raise UserError(NO_GL.format(tried="; ".join(tried)))

  def draw(self, qpos):
    """The image [height, width, 3], uint8, of a robot whose joints are at qpos [nq]."""
    child.send(self._process, np.asarray(qpos, np.float64).tobytes())
    image = self._process.stdout.read(int(np.prod(self._shape)))
    if len(image) != np.prod(self._shape):
      raise RuntimeError(f"the process that draws ended with status {self._process.wait()}; make another environment")
    return np.frombuffer(image, np.uint8).reshape(self._shape).copy()

  def close(self):
    """Ends the process."""
    child.stop([self._process])


def _backends():
  if os.environ.get("MUJOCO_GL"):
    return [os.environ["MUJOCO_GL"]]
  screen = sys.platform != "linux" or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
  return ["glfw", "egl", "osmesa"] if screen else ["egl", "osmesa"]


def _try(backend, order):
  """(process, "") that draws with a backend, or (None, what it said last)."""
  with tempfile.TemporaryFile() as stderr:
    process = child.start(__name__, order, stderr=stderr, MUJOCO_GL=backend)
    if process.stdout.read(1) == READY:
      return process, ""
    child.stop([process])
    stderr.seek(0)
    lines = [line for line in stderr.read().decode(errors="replace").splitlines() if line.strip()]
    errors = [line for line in lines if "Error" in line] or lines
    return None, errors[0].strip() if errors else f"ended with status {process.returncode}"


def main():
  import mujoco  # before `physics`, which hides MUJOCO_GL from it

  from maml_tf.rl.envs import physics

  order, commands, answers = child.connect()
  model = physics.compile_model(order.definition)
  model.vis.global_.offwidth = max(order.width, model.vis.global_.offwidth)
  model.vis.global_.offheight = max(order.height, model.vis.global_.offheight)
  data = mujoco.MjData(model)

  def draw():
    mujoco.mj_forward(model, data)
    renderer.update_scene(data, camera="track")
    return renderer.render().tobytes()

  with mujoco.Renderer(model, order.height, order.width) as renderer:
    draw()  # some of what can fail does so only here
    answers.write(READY)
    answers.flush()
    while len(qpos := commands.read(8 * model.nq)) == 8 * model.nq:
      data.qpos[:] = np.frombuffer(qpos)
      answers.write(draw())
      answers.flush()


if __name__ == "__main__":
  main()
