"""The page and what it asks, over HTTP on the loopback interface."""

import base64
import binascii
import importlib.util
import pathlib
import socket
from typing import Any

from maml_tf.errors import UserError

HOST = "127.0.0.1"
PAGE = pathlib.Path(__file__).with_name("page.html")
MOST_BYTES = 2**20  # of a request: six drawings are a tenth of that
# The page fetches nothing from anywhere else, whatever it is told.
POLICY = (
  "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; connect-src 'self'; img-src data:; "
  "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
PNG = "data:image/png;base64,"


def check_installed() -> None:
  """Raises `UserError` where Flask is missing."""
  if importlib.util.find_spec("flask") is None:
    raise UserError('the page needs Flask, which is not installed; pip install "maml_tf[demo]" brings it')


def listen(port: int) -> socket.socket:
  """A socket that listens on the loopback interface.

  Args:
    port: its number; 0: any that is free.

  Raises:
    UserError: it is in use, or may not be used.
  """
  listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
  listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # one that has just been left is no obstacle
  try:
    listening.bind((HOST, port))
    listening.listen()
  except OSError as error:
    listening.close()
    raise UserError(f"port={port}: {error.strerror}; name another one (0: any that is free)") from error
  return listening


def application(characters: Any, waves: Any) -> Any:
  """The Flask application.

  Args:
    characters: `answers.Characters`.
    waves: `answers.Waves`.
  """
  import flask

  app = flask.Flask(__name__, static_folder=None)
  # A page of somebody else's, under a name that leads to this machine, gets no answer.
  app.config.update(MAX_CONTENT_LENGTH=MOST_BYTES, TRUSTED_HOSTS=[HOST, "localhost"])

  @app.get("/")
  def page():
    return PAGE.read_text(encoding="utf-8").replace("{{ways}}", str(characters.ways))

  @app.post("/characters")
  def ask_characters():
    asked = _json(flask.request)
    if not isinstance(asked.get("drawn"), list):
      raise UserError("drawn: expected a list of pictures")
    return characters.probabilities([_png(text) for text in asked["drawn"]], _png(asked.get("asked")))

  @app.post("/wave")
  def ask_wave():
    return waves.curves(_json(flask.request).get("points", ()))

  @app.errorhandler(UserError)
  def refused(error):
    return {"error": str(error)}, 400

  @app.after_request
  def guarded(response):
    response.headers["Content-Security-Policy"] = POLICY
    response.headers["Cache-Control"] = "no-store"
    return response

  return app


def server(app: Any, listening: socket.socket) -> Any:
  """A server of that application at that socket; it has `serve_forever` and `shutdown`."""
  from werkzeug.serving import WSGIRequestHandler, make_server

  class Silent(WSGIRequestHandler):
    def log_request(self, *_, **__):
      pass

  host, port = listening.getsockname()
  return make_server(host, port, app, threaded=True, request_handler=Silent, fd=listening.fileno())


def _json(request):
  asked = request.get_json(silent=True)
  if not isinstance(asked, dict):
    raise UserError("expected a JSON object")
  return asked


def _png(text):
  """The bytes of a picture that a canvas gave as text."""
  if not isinstance(text, str) or not text.startswith(PNG):
    raise UserError(f"a picture: expected a text that begins with {PNG}")
  try:
    return base64.b64decode(text[len(PNG) :], validate=True)
  except binascii.Error as error:
    raise UserError(f"a picture: not base64 ({error})") from error
