"""The page of `maml-tf demo`: its answers against the SavedModels used by hand, and what is said of what is wrong."""

import base64
import io
import socket

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from strokes import AGAIN, DRAWN, png

from maml_tf.demo import answers, server
from maml_tf.experiments import demo_command

pytest.importorskip("flask", reason='the page needs the extra "demo"')
OMNIGLOT, SINUSOID = demo_command.PRETRAINED / "omniglot_5way", demo_command.PRETRAINED / "sinusoid"


def text_of(data):
  return server.PNG + base64.b64encode(data).decode()


@pytest.fixture(scope="module")
def app():
  return server.application(answers.Characters(OMNIGLOT), answers.Waves(SINUSOID))


@pytest.fixture(scope="module")
def client(app):
  return app.test_client()


def inputs(files):
  resized = [Image.open(io.BytesIO(f)).convert("L").resize((28, 28), Image.Resampling.LANCZOS) for f in files]
  return np.stack([1 - np.float32(image)[..., None] / 255 for image in resized])


def test_one_step_learns_the_drawn_characters(client):
  drawn, right = [png(strokes) for strokes in DRAWN], 0
  module = tf.saved_model.load(str(OMNIGLOT))
  weights = module.adapt(inputs(drawn), np.arange(5), 1)
  for index, strokes in enumerate(AGAIN):
    asked = png(strokes)
    said = client.post("/characters", json={"drawn": [text_of(d) for d in drawn], "asked": text_of(asked)}).get_json()
    together = np.concatenate([inputs(drawn), inputs([asked])])
    for when, logits in (
      ("before", module.predict(module.initialization(), together)), ("after", module.predict(weights, together))
    ):  # fmt: skip
      np.testing.assert_allclose(said[when], tf.nn.softmax(logits[-1]), rtol=1e-4, atol=1e-6)
    right += int(np.argmax(said["after"])) == index
  assert right >= 4


def test_with_fewer_characters_the_others_are_no_answer(client):
  asked = {"drawn": [text_of(png(strokes)) for strokes in DRAWN[:2]], "asked": text_of(png(AGAIN[1]))}
  said = client.post("/characters", json=asked).get_json()
  assert {len(said[when]) for when in ("before", "after")} == {2}
  assert sum(said["after"]) == pytest.approx(1, abs=1e-5)
  assert said["after"][1] > 0.5


def test_the_curves_are_those_of_the_saved_model_and_come_nearer(client):
  x = np.float32([-4, -2, 0, 2, 4])
  y = 3 * np.sin(x - 1)
  said = client.post("/wave", json={"points": np.stack([x, y], 1).tolist()}).get_json()
  grid, module = np.float32(said["x"])[:, None], tf.saved_model.load(str(SINUSOID))
  errors = []
  for curve in said["curves"]:
    expected = module.adapt_and_predict(x[:, None], y[:, None], grid, curve["steps"])[:, 0]
    np.testing.assert_allclose(curve["y"], expected, rtol=1e-4, atol=1e-5)
    errors.append(np.mean((np.float32(curve["y"]) - 3 * np.sin(grid[:, 0] - 1)) ** 2))
  assert [curve["steps"] for curve in said["curves"]] == [0, 1, 10]
  assert errors[2] < errors[1] < errors[0]


@pytest.mark.parametrize(
  ("path", "asked", "says"),
  [
    ("characters", {"drawn": [text_of(png(DRAWN[0]))], "asked": text_of(png(AGAIN[0]))}, "expected 2 to 5"),
    ("characters", {"drawn": [text_of(png(DRAWN[0]))] * 6, "asked": text_of(png(AGAIN[0]))}, "expected 2 to 5"),
    ("characters", {"drawn": [text_of(b"no picture")] * 2, "asked": text_of(png(AGAIN[0]))}, "character 1: not a"),
    ("characters", {"drawn": [server.PNG + "?"] * 2, "asked": ""}, "not base64"),
    ("characters", {"drawn": "x"}, "drawn: expected a list"),
    ("wave", {"points": []}, "points: expected 1 to 20"),
    ("wave", {"points": [[0, 1], [2]]}, "points: expected pairs"),
    ("wave", {"points": [[0, "x"]]}, "points: expected pairs"),
    ("wave", {"points": [[0, 1e999]]}, "finite"),
    ("wave", [1], "expected a JSON object"),
  ],
)
def test_bad_requests_get_one_line(client, path, asked, says):
  response = client.post(f"/{path}", json=asked)
  assert response.status_code == 400
  assert says in response.get_json()["error"]


def test_the_page_asks_this_machine_alone(client):
  response = client.get("/")
  page = response.get_data(as_text=True)
  assert "const WAYS = 5" in page
  assert [part for part in page.split('"') if part.startswith(("http:", "https:", "//"))] == [
    "http://www.w3.org/2000/svg"  # a name, which nothing fetches
  ]
  assert "default-src 'none'" in response.headers["Content-Security-Policy"]
  assert client.get("/", headers={"Host": "example.org"}).status_code == 400
  assert client.post("/wave", data=b"x" * (server.MOST_BYTES + 1)).status_code in (400, 413)


def never():
  pytest.fail("TensorFlow is imported before that is known")


def one_line(capsys, status, arguments, *says):
  assert demo_command.main(arguments, never) == status
  (line,) = capsys.readouterr().err.splitlines()
  assert line.startswith("maml-tf demo: ")
  assert all(part in line for part in says), line


def test_a_port_in_use_gets_one_line(capsys):
  with socket.socket() as taken:
    taken.bind((server.HOST, 0))
    taken.listen()
    port = taken.getsockname()[1]
    one_line(capsys, 1, [f"--port={port}"], f"--port={port}: Address already in use; name another")


def test_a_missing_model_and_other_mistakes_get_one_line(capsys, tmp_path, monkeypatch):
  one_line(capsys, 1, [f"--characters={tmp_path}"], str(tmp_path), "no SavedModel here")
  one_line(capsys, 1, ["--wave=nowhere"], "nowhere: no SavedModel here")
  for port in ("x", "-1", "65536"):
    one_line(capsys, 2, [f"--port={port}"], "--port", "from 0 to 65535")
  one_line(capsys, 2, ["--colour=red"], "--colour=red")
  monkeypatch.setattr(server.importlib.util, "find_spec", lambda name: None)
  one_line(capsys, 1, [], 'pip install "maml_tf[demo]"')


def test_a_model_of_something_else_gets_one_line(capsys):
  for arguments, says in (
    ([f"--characters={SINUSOID}"], "no classifier of pictures"),
    ([f"--wave={OMNIGLOT}"], "no regression of one number"),
  ):
    assert demo_command.main([*arguments, "--port=0"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert says in line
