"""Damages files, fills disks, kills processes; and asks whether what comes then is right, or is said in one line."""

import contextlib
import fnmatch
import pathlib
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback

import damage
import small_runs
from subjects import FLAGS, Refused, run_of

ROOT = pathlib.Path(__file__).parents[2]
PATIENCE = 60  # seconds; what takes longer hangs


class Case:
  """One subject, made once: each damage is done to a copy.

  Args:
    subject: `subjects.Subject`.
    folder: an empty one.
  """

  def __init__(self, subject, folder):
    self.subject, self.folder = subject, pathlib.Path(folder)
    self.pristine = self.folder / "pristine"
    self.pristine.mkdir(parents=True)
    subject.make(self.pristine)
    with self.copied() as copy:
      self.right = subject.use(copy)

  @contextlib.contextmanager
  def copied(self):
    """A copy of the files under the same path each time: messages and hashes may have it in them."""
    copy = self.folder / "copy"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(self.pristine, copy, symlinks=True)
    try:
      yield copy
    finally:
      shutil.rmtree(copy, ignore_errors=True)

  def files(self):
    """Names of the files to damage, relative to the folder."""
    return [path.relative_to(self.pristine).as_posix() for path in self.subject.files(self.pristine)]

  def damaged(self, name, kind, seed=0):
    """Damages one file and uses the result: None where that is right or refused; else what is wrong."""
    with self.copied() as copy:
      damage.KINDS[kind](copy / name, damage.generator(self.subject.name, name, kind, seed))
      return self._judge(copy, name)

  def _judge(self, copy, name):
    with not_waited_for() as hangs:
      try:
        found = self.subject.use(copy)
      except Refused as refused:
        where = pathlib.Path(name)
        named = any(part in str(refused) for part in (where.name, where.parent.name)) or str(copy) in str(refused)
        return None if named else f"it does not say which file: {refused}"
      except BaseException:  # whatever it is, it is a finding
        return "it hangs" if hangs else traceback.format_exc()
    silent = any(fnmatch.fnmatch(pathlib.Path(name).name, pattern) for pattern in self.subject.silent)
    return None if found == self.right or silent else "silently another result"


class Hangs(BaseException):
  """It took longer than `PATIENCE`."""


@contextlib.contextmanager
def not_waited_for(seconds=PATIENCE):
  """Raises inside, after so many seconds; gives a list that is not empty then."""
  happened = []

  def ring(signum, frame):
    happened.append(True)
    raise Hangs

  before = signal.signal(signal.SIGALRM, ring)
  signal.alarm(seconds)
  try:
    yield happened
  finally:
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@contextlib.contextmanager
def no_file_larger_than(size):
  """A disk that is full after so many bytes of a file: writing more fails, in Python as in TensorFlow."""
  before = resource.getrlimit(resource.RLIMIT_FSIZE)
  handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
  resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
  try:
    yield
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, handler)


def full_disk(case, size):
  """The disk is full while the subject is used, and is emptied then: None where that is right; else what is wrong."""
  with case.copied() as copy:
    try:
      with no_file_larger_than(size):
        case.subject.use(copy)
    except Refused as refused:
      if "cannot be written" not in str(refused) and "cannot write" not in str(refused):
        return f"it does not say that the disk is full: {refused}"
    except BaseException:
      return traceback.format_exc()
    try:
      found = case.subject.use(copy)
    except BaseException:
      return f"afterwards: {traceback.format_exc()}"
    return None if found == case.right else "afterwards another result"


# --- processes ----------------------------------------------------------------------------------------------------

COMMANDS = {
  "sinusoid": dict(metatrain_iterations=40000, log_every=1000, validate_every=5000, checkpoint_every=1000),
  "quadratics": dict(datasource="quadratics", num_tasks=3000, metatrain_iterations=3000, log_every=100),
  "point": dict(
    datasource="point", metatrain_iterations=60, log_every=5, validate_every=20, checkpoint_every=5,
    meta_batch_size=4, horizon=10, rollouts_per_task=4, eval_tasks=4, validation_tasks=4,
  ),
}  # fmt: skip


def process_of(domain, logdir):
  flags = (FLAGS if domain == "sinusoid" else {}) | COMMANDS[domain] | {"logdir": logdir}
  arguments = [sys.executable, str(ROOT / "scripts" / "main.py"), *(f"--{n}={v}" for n, v in flags.items())]
  return subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def whole_run(domain, folder):
  """A run that nothing happens to: (its folder, seconds that it takes)."""
  began = time.monotonic()
  process = process_of(domain, folder)
  _, err = process.communicate()
  if process.returncode:
    raise AssertionError(err)
  return run_of(folder), time.monotonic() - began


def killed_again_and_again(domain, folder, kills, seed=0, say=print):
  """Kills a command so many times, at random moments, and starts it anew each time: a list of what is wrong."""
  folder = pathlib.Path(folder)
  whole, seconds = whole_run(domain, folder / "whole")
  rng, found, done, attempt = damage.generator(domain, seed), [], 0, 0
  while done < kills:
    attempt += 1
    logdir = folder / f"killed_{attempt}"
    while done < kills:
      process = process_of(domain, logdir)
      timer = threading.Timer(seconds * rng.uniform(0.2, 1.1), process.kill)
      timer.start()
      _, err = process.communicate()
      timer.cancel()
      if "Traceback" in err or process.returncode not in (0, -signal.SIGKILL):
        found.append(f"{domain}: status {process.returncode}: {err[-2000:]}")
      if process.returncode != -signal.SIGKILL:
        break
      done += 1
      say(f"{domain}: {done} of {kills} kills")
    process = process_of(domain, logdir)
    _, err = process.communicate()
    if process.returncode:
      found.append(f"{domain}: cannot go on: {err[-2000:]}")
      continue
    try:
      iteration = max(int(path.stem[5:]) for path in (whole / "checkpoints").glob("model*.npz"))
      small_runs.assert_same_run(whole, run_of(logdir), iteration)
    except AssertionError as error:
      found.append(f"{domain}: killed, it ends elsewhere: {error}")
  return found


def two_writers(folder):
  """A second command on a run that is under way is refused, and neither harms the other: a list of what is wrong."""
  folder = pathlib.Path(folder)
  first = process_of("sinusoid", folder)
  deadline = time.monotonic() + 120
  while not list(folder.glob("*/metrics.csv")) and time.monotonic() < deadline:
    time.sleep(0.05)
  second = process_of("sinusoid", folder)
  _, err = second.communicate()
  found = []
  if second.returncode != 1 or f"another process (pid {first.pid}) is using this run" not in err:
    found.append(f"the second: status {second.returncode}: {err[-2000:]}")
  _, err = first.communicate()
  if first.returncode:
    found.append(f"the first: status {first.returncode}: {err[-2000:]}")
  return found


def temporary():
  return tempfile.TemporaryDirectory(prefix="faults-")
