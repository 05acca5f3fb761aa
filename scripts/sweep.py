"""Trains every point of a grid of settings with every seed, and prints one table with intervals over seeds.

  python scripts/sweep.py --name=steps --grid=update_lr=0.01,0.1 --grid=num_updates=1,5 --seeds=0,1,2 -- \
      --datasource=sinusoid --metatrain_iterations=2000

What follows `--` is what all points share, as scripts/main.py has it. It goes through the queue of
scripts/reproduce.py: it may be ended at any moment, and the same command goes on; `tensorboard --logdir` on the sweep's
folder shows its runs side by side, with their settings (HParams).
"""

import os
import pathlib
import signal
import sys

from absl import flags
from common import main_of

from maml_tf.errors import UserError
from maml_tf.experiments import command_line
from maml_tf.results import queue, sweeps
from maml_tf.results.state import Places

ROOT = pathlib.Path(__file__).parents[1]
FLAGS = flags.FLAGS
flags.DEFINE_string("name", "sweep", "of the sweep's folder in --logdir")
flags.DEFINE_multi_string("grid", [], "a setting and its values, update_lr=0.01,0.1; may be given several times")
flags.DEFINE_list("seeds", ["0"], "seeds of each point, with commas between them")
flags.DEFINE_integer("parallel", max(1, (os.cpu_count() or 1) // 2), "trainings at once", lower_bound=1)
flags.DEFINE_string("logdir", "logs", "folder of the sweeps")


def sweep(shared):
  rows = sweeps.rows(command_line.settings_in(shared), *_grid())
  folder = pathlib.Path(FLAGS.logdir) / FLAGS.name
  places = Places(sweeps.write_plan(folder, rows), folder, ROOT)
  work = queue.Queue(places, rows, parallel=FLAGS.parallel, say=lambda line: print(line, flush=True))
  for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, lambda *_: work.interrupt())
  work.run()
  lines = sweeps.text(sweeps.table(folder, rows))
  sweeps.write_table(folder / "table.md", lines)
  print("\n".join([*lines, f"written to {folder / 'table.md'}"]))
  if work.interrupted:
    raise KeyboardInterrupt
  if work.failed:
    raise UserError(f"{len(work.failed)} of {len(rows)} points failed: {', '.join(work.failed)}; see above")


def _grid():
  """(setting -> its values, seeds)."""
  grid = {}
  for text in FLAGS.grid:
    name, _, values = text.partition("=")
    if name in grid:
      raise UserError(f"--grid={name}: it is there twice; put all of its values into one")
    grid[name] = [command_line.settings_in([f"--{name}={value}"])[name] for value in values.split(",")]
  seeds = [command_line.settings_in([f"--seed={seed}"])["seed"] for seed in FLAGS.seeds]
  return grid, seeds


if __name__ == "__main__":
  sys.exit(main_of(sweep, __doc__))
