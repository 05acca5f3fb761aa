"""Reproduces the paper's numbers: works through the rows of results/plan.json, within a budget of time.

  python scripts/reproduce.py --list
  python scripts/reproduce.py --for=2h30m
  python scripts/reproduce.py --only=rl_cheetah_vel_maml
  python scripts/reproduce.py --shard=1/4

Trainings go on from where they were, in --logdir or in results/checkpoints. It may be ended at any moment; the same
command goes on.
"""

import os
import pathlib
import re
import signal
import sys

from absl import flags
from common import main_of

from maml_tf.errors import UserError
from maml_tf.results import plan, queue
from maml_tf.results.state import Places

ROOT = pathlib.Path(__file__).parents[1]
FLAGS = flags.FLAGS
flags.DEFINE_bool("list", False, "show the rows and how far they have come")
flags.DEFINE_string("for", None, "time to work, such as 2h30m, 45m or 90s (default: until everything is done)")
flags.DEFINE_list("only", None, "names of rows, with commas between them (default: all)")
flags.DEFINE_string("shard", None, "part of the plan that this machine works on: 1/4 to 4/4 on four machines")
flags.DEFINE_integer("parallel", max(1, (os.cpu_count() or 1) // 2), "rows to work on at once", lower_bound=1)
flags.DEFINE_bool("train", True, "False: only evaluate and publish what trainings have reached")
flags.DEFINE_string("plan", str(ROOT / "results" / "plan.json"), "the plan; results files are written beside it")
flags.DEFINE_string("logdir", "logs", "folder of the run directories")
flags.DEFINE_string("data_dir", None, "folder of the data sets (default: MAML_TF_DATA, else data)")


def reproduce(arguments):
  if arguments:
    raise UserError(f"unexpected argument {arguments[0]!r}: flags look like --name=value")
  rows = plan.load(FLAGS.plan)
  chosen = _only(_shard(rows))
  seconds = None if FLAGS["for"].value is None else _seconds(FLAGS["for"].value)
  places = Places(FLAGS.plan, FLAGS.logdir, ROOT)
  if FLAGS.list:
    print("\n".join(queue.listing(places, chosen)))
    return
  data = [] if FLAGS.data_dir is None else [f"--data_dir={pathlib.Path(FLAGS.data_dir).absolute()}"]
  work = queue.Queue(
    places, rows, seconds, FLAGS.parallel, data, FLAGS.train, lambda line: print(line, flush=True),
    report_seconds=10 if sys.stdout.isatty() else 60, chosen=chosen,
  )  # fmt: skip
  for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, lambda *_: work.interrupt())
  work.run()
  if work.interrupted:
    raise KeyboardInterrupt
  if work.failed:
    raise UserError(f"{len(work.failed)} of {len(chosen)} rows failed: {', '.join(work.failed)}; see above")


def _only(rows):
  names = [row.name for row in rows]
  for name in FLAGS.only or ():
    if name not in names:
      raise UserError(f"--only={name}: no such row; there are {', '.join(names)}")
  return [row for row in rows if not FLAGS.only or row.name in FLAGS.only]


def _shard(rows):
  if FLAGS.shard is None:
    return rows
  match = re.fullmatch(r"(\d+)/(\d+)", FLAGS.shard)
  if not match or not 1 <= int(match[1]) <= int(match[2]):
    raise UserError(f"--shard={FLAGS.shard}: expected a part and a number of parts, from 1/4 to 4/4 for instance")
  return queue.shard(rows, int(match[1]), int(match[2]))


def _seconds(text):
  match = re.fullmatch(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?", text)
  if not text or not match:
    raise UserError(f"--for={text}: expected a time, such as 2h30m, 45m or 90s")
  hours, minutes, seconds = (int(part or 0) for part in match.groups())
  return 3600 * hours + 60 * minutes + seconds


if __name__ == "__main__":
  sys.exit(main_of(reproduce, __doc__))
