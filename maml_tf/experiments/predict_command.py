"""`maml-tf predict`: labels for pictures, from the command line."""

import argparse

from maml_tf import saved_models
from maml_tf.datasets import own_pictures
from maml_tf.errors import UserError
from maml_tf.experiments.command_line import fail

PROGRAM = "maml-tf predict"


class Parser(argparse.ArgumentParser):
  """One whose errors are `UserError`s of one line."""

  def error(self, message):
    raise UserError(f"{message}; --help shows what there is")


def parser():
  """What the command takes."""
  made = Parser(
    prog=PROGRAM, allow_abbrev=False,
    description="Adapts a trained classifier to a few labelled pictures, and labels others: see docs/predicting.md.",
  )  # fmt: skip
  made.add_argument("--model", required=True, metavar="SAVED_MODEL", help="SavedModel of a run on images, or the run")
  made.add_argument("--support", required=True, metavar="FOLDER", help="labelled pictures: FOLDER/CLASS/PICTURE")
  made.add_argument("--query", required=True, metavar="FOLDER", help="pictures to label: FOLDER/PICTURE")
  made.add_argument(
    "--output", default="predictions", metavar="FOLDER",
    help="where labels.csv and contact_sheet.png are written (default: predictions)",
  )  # fmt: skip
  made.add_argument("--num_updates", type=_steps, metavar="STEPS", help="gradient steps (default: as in training)")
  return made


def main(arguments, prepare=lambda: None):
  """Runs the command; returns the exit status: 2 where the command line makes no sense, 1 for what fails later on.

  Args:
    arguments: those after `predict`.
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
    own_pictures.support_files(given.support)
    own_pictures.query_files(given.query)
    saved_models.find(given.model)
    prepare()
    _predict(given)
  except UserError as error:
    return fail(PROGRAM, error, 1)
  except OSError as error:
    return fail(PROGRAM, f"{error.filename or given.output}: {error.strerror or error}", 1)
  except KeyboardInterrupt:
    return fail(PROGRAM, "interrupted", 130)
  return 0


def _predict(given):
  from maml_tf import pictures

  found = pictures.predict_folder(given.model, given.support, given.query, num_updates=given.num_updates)
  width = max(map(len, found.files))
  for file, label, row in zip(found.files, found.labels, found.probabilities, strict=True):
    print(f"{file:{width}}  {row.max():4.0%}  {label}")
  table, sheet = found.write(given.output)
  print(f"\nlabels         {table}\ncontact sheet  {sheet}", flush=True)


def _steps(text):
  try:
    steps = int(text)
  except ValueError:
    steps = -1
  if steps < 0:
    raise argparse.ArgumentTypeError(f"expected a whole number, 0 or more, got {text!r}")
  return steps
