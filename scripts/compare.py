"""Compares classifiers that do not meta-learn, on an embedding of unlabelled images (docs/unsupervised.md).

  python scripts/compare.py --datasource=omniglot                       # on 32 principal components
  python scripts/compare.py --datasource=omniglot --embedding=acai --output=results/unsupervised_omniglot_acai.json

Flags of scripts/main.py that say which embedding and which tasks it is can be given here too.
"""

import os
import shlex
import sys

from absl import flags
from common import import_tensorflow, main_of

FLAGS = flags.FLAGS
flags.DEFINE_list(
  "classifiers", None, "some of knn, linear, mlp, mlp_stopped_on_queries, cluster_matching, with commas"
)
flags.DEFINE_string("output", None, "results file to write, JSON")
TAKEN = (
  "datasource", "data_dir", "embedding", "embedding_size", "embedding_width", "embedding_epochs", "embedding_seed",
  "clusters", "image_size", "split", "seed", "eval_tasks", "eval_queries",
)  # fmt: skip
for _name in TAKEN:
  flags.DEFINE_string(_name, None, "as of scripts/main.py")
flags.DEFINE_bool("test_set", True, "on test classes rather than validation classes")


def run(arguments):
  from maml_tf.errors import UserError
  from maml_tf.experiments.command_line import parse

  if arguments:
    raise UserError(f"unexpected argument {arguments[0]!r}: flags look like --name=value")
  given = [f"--{name}={value}" for name in TAKEN if (value := getattr(FLAGS, name)) is not None]
  if FLAGS.datasource is None:
    given.append("--datasource=omniglot")
  config, _ = parse(
    [sys.argv[0], *given, "--tasks=cactus", f"--test_set={FLAGS.test_set}"], os.environ.get("MAML_TF_DATA")
  )
  import_tensorflow()
  from maml_tf.experiments import comparisons
  from maml_tf.results.files import write_results

  classifiers = FLAGS.classifiers or comparisons.USUAL
  content = comparisons.compare(config, classifiers, command=f"python {shlex.join(sys.argv)}")
  if FLAGS.output:
    write_results(FLAGS.output, content)
    print(f"wrote {FLAGS.output}")


if __name__ == "__main__":
  sys.exit(main_of(run, __doc__))
