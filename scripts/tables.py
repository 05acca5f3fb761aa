"""Prints tables of what results/ and pretrained/ hold, as Markdown, so that no figure is ever copied by hand.

python scripts/tables.py                      # all
python scripts/tables.py sinusoid omniglot    # these: names of tables, or of data sets
python scripts/tables.py --output=DIR         # and as DIR/NAME.md, .csv and .json
python scripts/tables.py --update             # and under their marks, `<!-- table: NAME -->`, in README.md, docs/,
                                              # pretrained/README.md and results/README.md, and the paper's
                                              # comparisons (omniglot, ...) to results/tables
"""

import functools
import pathlib
import sys

from absl import flags
from common import import_tensorflow, main_of

from maml_tf.results import documents, paper_tables, tables

FLAGS = flags.FLAGS
flags.DEFINE_bool("update", False, "put the tables under their marks in the documents")
flags.DEFINE_string("output", None, "folder to write each table to, as Markdown, CSV and JSON")

ROOT = pathlib.Path(__file__).parents[1]


def run(arguments):
  made = tables.make(ROOT, arguments)
  print(tables.as_text(made))
  if FLAGS.output or FLAGS.update:
    import_tensorflow()  # writing whole files or none is in the package that needs it
  if FLAGS.output:
    tables.write(made, pathlib.Path(FLAGS.output))
  if FLAGS.update:
    documents.update(ROOT, functools.partial(tables.make, ROOT))
    folder = ROOT / "results" / "tables"
    tables.write(tables.make(ROOT, paper_tables.NAMES), folder, ROOT)


if __name__ == "__main__":
  sys.exit(main_of(run, __doc__))
