"""`maml-tf demo`: a page in the browser on which trained networks learn."""

import argparse
import pathlib
import re

from maml_tf import saved_models
from maml_tf.demo import server
from maml_tf.errors import UserError
from maml_tf.experiments.command_line import fail
from maml_tf.experiments.predict_command import Parser

PROGRAM = "maml-tf demo"
PRETRAINED = pathlib.Path(__file__).parents[2] / "pretrained"  # of the checkout; an installed package has none


def parser():
  """What the command takes."""
  made = Parser(
    prog=PROGRAM, allow_abbrev=False,
    description="Serves a page, on this machine alone, on which one gradient step learns drawn characters and a few "
    "steps learn a sine wave: see docs/demo.md.",
  )  # fmt: skip
  made.add_argument("--port", type=_port, default=8000, help="of the loopback interface; 0: any (default: 8000)")
  made.add_argument(
    "--characters", metavar="SAVED_MODEL", default=PRETRAINED / "omniglot_5way",
    help="SavedModel of a classifier of pictures, or the run (default: pretrained/omniglot_5way)",
  )  # fmt: skip
  made.add_argument(
    "--wave", metavar="SAVED_MODEL", default=PRETRAINED / "sinusoid",
    help="SavedModel of a regression of one number on one, or the run (default: pretrained/sinusoid)",
  )  # fmt: skip
  return made


def main(arguments, prepare=lambda: None):
  """Runs the command until Ctrl-C; returns the exit status: 2 where the command line makes no sense, 1 for what fails.

  Args:
    arguments: those after `demo`.
    prepare: called before TensorFlow is imported.
  """
  try:
    given = parser().parse_args(arguments)
  except UserError as error:
    return fail(PROGRAM, error, 2)
  except SystemExit as error:  # --help
    return error.code
  try:
    # Before TensorFlow is imported, which takes seconds.
    server.check_installed()
    paths = [saved_models.find(path) for path in (given.characters, given.wave)]
    with server.listen(given.port) as listening:
      prepare()
      _serve(paths, listening)
  except UserError as error:
    return fail(PROGRAM, re.sub(r"^port=", "--port=", str(error)), 1)
  except KeyboardInterrupt:  # how it ends
    print()
  return 0


def _serve(paths, listening):
  from maml_tf.demo import answers

  app = server.application(answers.Characters(paths[0]), answers.Waves(paths[1]))
  host, port = listening.getsockname()
  print(f"http://{host}:{port}/ (Ctrl-C ends it)", flush=True)
  with server.server(app, listening) as serving:
    serving.serve_forever()


def _port(text):
  try:
    port = int(text)
  except ValueError:
    port = -1
  if not 0 <= port < 2**16:
    raise argparse.ArgumentTypeError(f"expected a whole number from 0 to 65535, got {text!r}")
  return port
