"""What the command lines share: errors of the user as one line, an exit status, --help."""

import os
import sys

from absl import flags

from maml_tf.errors import UserError
from maml_tf.startup import import_tensorflow

__all__ = ["import_tensorflow", "main_of"]


def main_of(function, usage):
  """Parses absl flags and calls `function(arguments)`; returns the exit status. `usage` is what --help shows."""
  name = os.path.basename(sys.argv[0])
  flags.DEFINE_bool("help", False, "show this help", short_name="h", allow_override=True)
  try:
    try:
      arguments = flags.FLAGS(sys.argv)[1:]
    except flags.Error as error:
      raise UserError(str(error).replace("\n", " ")) from error
    if flags.FLAGS.help:
      print(f"{usage}\n{flags.FLAGS.module_help(sys.modules['__main__'])}")
      return 0
    function(arguments)
  except UserError as error:
    from maml_tf.experiments.config import in_flags

    print(f"{name}: {in_flags(str(error))}", file=sys.stderr)
    return 1
  except OSError as error:
    print(f"{name}: {error.filename or 'input or output'}: {error.strerror or error}", file=sys.stderr)
    return 1
  except KeyboardInterrupt:
    print(f"{name}: interrupted", file=sys.stderr)
    return 130
  return 0
