"""Draws the scenes of `pose_scenes` with MuJoCo, in a process of its own (`python -m maml_tf.datasets.pose_mujoco`).

Mesa's software OpenGL and TensorFlow bring an LLVM each, and crash when they meet in one process
(https://github.com/tensorflow/tensorflow/issues/109933).
"""

import json
import os
import pathlib
import subprocess
import sys
import tempfile

import numpy as np

import maml_tf
from maml_tf.datasets.pose_scenes import DOT, DOT_RADIUS
from maml_tf.errors import UserError

_SCENE = """
<mujoco>
  <visual><headlight ambient=".45 .45 .45" diffuse=".4 .4 .4" specular="0 0 0"/></visual>
  <worldbody>
    <light pos="1 1.4 3" dir="-.3 -.4 -.87" diffuse=".4 .4 .4" directional="true" castshadow="false"/>
    <geom type="plane" size="20 20 1" pos="0 0 -.1" rgba=".85 .87 .9 1"/>
    <geom type="box" size="1 1 .05" pos="0 0 -.05" rgba=".72 .6 .45 1"/>
    <geom type="cylinder" size="{dot_radius} .004" pos="{dot[0]} {dot[1]} .004" rgba=".9 .05 .05 1"/>
    <camera name="view" pos="{pos}" xyaxes="{axes}" fovy="{fovy}"/>
    <body name="object" mocap="true">{geoms}</body>
  </worldbody>
</mujoco>
"""


def draw(tasks, size):
  """Yields images uint8 [n, size, size, 3] of each task.

  Args:
    tasks: list of (parts, `Camera`, poses [n, 3]).
    size: height and width.

  Raises:
    UserError: no MuJoCo, or no OpenGL, works here.
  """
  order = {"size": size, "tasks": [{"scene": scene(p, c), "poses": poses.tolist()} for p, c, poses in tasks]}
  backends = [os.environ["MUJOCO_GL"]] if os.environ.get("MUJOCO_GL") else ["egl", "osmesa"]
  tried = []
  for backend in backends:
    with tempfile.TemporaryDirectory() as folder:
      images = pathlib.Path(folder) / "images"
      complaint = _run(order | {"file": str(images)}, backend)
      if complaint is None:
        with open(images, "rb") as file:
          for _, _, poses in tasks:
            shape = (len(poses), size, size, 3)
            yield np.frombuffer(file.read(int(np.prod(shape))), np.uint8).reshape(shape)
        return
    tried.append(f"{backend}: {complaint}")
  raise UserError(
    f"renderer=mujoco: no OpenGL works here ({'; '.join(tried)}); install MuJoCo and one (Debian, Ubuntu: apt-get "
    "install libegl1 libgl1-mesa-dri, or libosmesa6), or take renderer=numpy, which needs none"
  )


def scene(parts, camera):
  """The scene of an object as MJCF."""
  pos, right, up, _ = camera.frame()
  geoms = "".join(_geom(part) for part in parts)
  return _SCENE.format(
    dot=DOT, dot_radius=DOT_RADIUS, pos=_text(pos), axes=_text([*right, *up]), fovy=np.rad2deg(camera.fov), geoms=geoms
  )


def _geom(part):
  size = part.size if part.kind == "box" else (part.size[0], part.size[2])
  turn = (np.cos(part.yaw / 2), 0, 0, np.sin(part.yaw / 2))
  return (
    f'<geom type="{part.kind}" size="{_text(size)}" pos="{_text(part.center)}" quat="{_text(turn)}" '
    f'rgba="{_text(part.color)} 1"/>'
  )


def _text(numbers):
  return " ".join(f"{number:.8g}" for number in numbers)


def _run(order, backend):
  """Draws in a process of its own; None, or what it said last."""
  package = str(pathlib.Path(maml_tf.__file__).parent.parent)
  path = os.pathsep.join([package, *filter(None, [os.environ.get("PYTHONPATH")])])
  done = subprocess.run(
    [sys.executable, "-m", __name__], input=json.dumps(order), text=True, capture_output=True,
    env={**os.environ, "PYTHONPATH": path, "MUJOCO_GL": backend},
  )  # fmt: skip
  if done.returncode == 0:
    return None
  lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
  return ([line for line in lines if "Error" in line] or lines or [f"ended with status {done.returncode}"])[-1]


def main():
  import mujoco

  order = json.load(sys.stdin)
  with open(order["file"], "wb") as file:
    for task in order["tasks"]:
      model = mujoco.MjModel.from_xml_string(task["scene"])
      data = mujoco.MjData(model)
      with mujoco.Renderer(model, order["size"], order["size"]) as renderer:
        for x, y, yaw in task["poses"]:
          data.mocap_pos[0], data.mocap_quat[0] = (x, y, 0), (np.cos(yaw / 2), 0, 0, np.sin(yaw / 2))
          mujoco.mj_forward(model, data)
          renderer.update_scene(data, camera="view")
          file.write(renderer.render().tobytes())


if __name__ == "__main__":
  main()
