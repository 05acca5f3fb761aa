"""Works through a plan: continues trainings, evaluates and publishes what they reach, within a budget of time.

Everything it knows is on the disk, so it may be killed at any moment: the next one looks there and goes on.
"""

import fcntl
import os
import time

from maml_tf.errors import UserError
from maml_tf.results import publishing
from maml_tf.results.children import Child
from maml_tf.results.state import newest, pace, publishes_unfinished

POLL_SECONDS = 0.2
SCAN_SECONDS = 10  # between looks for rows that another queue has let go
EVALUATION_SECONDS = 180  # where none has been timed yet
PUBLISHING_SECONDS = 60
ENDING_SECONDS = 60
LEAST_SECONDS = 20  # of training that are worth a start


class Queue:
  """The rows of a plan that this process works on.

  Args:
    places: `Places`.
    rows: `Row`s, in the order in which they are taken.
    seconds: the budget; None: as long as it takes.
    parallel: rows at once.
    flags: of every command of `scripts/main.py`.
    trains: False only evaluates and publishes what was reached.
    say: function of one line of text.
    report_seconds: between lines of progress.
    chosen: the rows to take; others of the same trainings are published along with them. None: all.
  """

  def __init__(
    self, places, rows, seconds=None, parallel=1, flags=(), trains=True, say=print, report_seconds=60, chosen=None
  ):
    self.places, self.rows, self.trains, self.say = places, rows, trains, say
    self.parallel, self.flags, self._report_seconds = parallel, list(flags), report_seconds
    self.failed = {}
    self._chosen = list(rows if chosen is None else chosen)
    self._jobs, self._taken, self._busy = [], set(), set()
    self._end = None if seconds is None else time.monotonic() + seconds
    self._seconds, self._scanned, self.interrupted = seconds, None, False

  def run(self):
    """Works until nothing is left to do or the time is up; `failed` then has the error of each row that failed."""
    self.places.own.mkdir(parents=True, exist_ok=True)
    reported = time.monotonic()
    while True:
      self._start_jobs()
      if not self._jobs:
        return
      time.sleep(POLL_SECONDS)
      for job in list(self._jobs):
        job.stop_if_due()
        if job.child is None or job.child.ended():
          self._advance(job)
      if time.monotonic() > reported + self._report_seconds:
        reported = time.monotonic()
        for job in self._jobs:
          self.say(f"{job.row.name}: {job.progress()}")

  def interrupt(self):
    """Ends the children, which keep a checkpoint; nothing more is started."""
    self.interrupted = True
    for job in self._jobs:
      if job.child is not None:
        job.child.stop()

  def left(self):
    """Seconds of the budget."""
    if self.interrupted:
      return 0
    return float("inf") if self._end is None else self._end - time.monotonic()

  def reserve(self, row):
    """Seconds that ending, evaluating and publishing take: kept free at the end, but no more than half the budget."""
    if self._seconds is None:
      return 0
    publishable = [r for r in self.companions(row) if publishes_unfinished(r)]
    evaluations = sum(_evaluation_seconds(self.places.content(r)) + PUBLISHING_SECONDS for r in publishable)
    return min(ENDING_SECONDS + evaluations, self._seconds / 2)

  def companions(self, row):
    """The rows whose numbers come from its trainings, itself first."""
    names = {training.name for training in row.trainings}
    shared = [r for r in self.rows if row.trains and r.trains and names & {t.name for t in r.trainings}]
    return [row, *(other for other in shared if other is not row)]

  def _start_jobs(self):
    now = time.monotonic()
    if len(self._jobs) >= self.parallel or self.left() <= 0:
      return
    if self._jobs and self._scanned is not None and now < self._scanned + SCAN_SECONDS:
      return
    self._scanned = now
    for row in self._chosen:
      if len(self._jobs) >= self.parallel:
        return
      if row.name not in self._taken and self._is_due(row):
        self._take(row)

  def _is_due(self, row):
    try:
      after = next((r for r in self.rows if r.name == row.after), None)
      if after is not None and not self.places.done(after):
        return False
      if self.places.done(row):
        return self._lacks_initialization(row)
      if self.trains and not self.places.finished(row):
        return self.left() - self.reserve(row) >= LEAST_SECONDS
      publishes = self.places.may_publish(row) and self.places.missing(row)
      return bool(publishes or publishing.to_keep(self.places, row))
    except UserError as error:
      self._fail(row, error)
      return False

  def _lacks_initialization(self, row):
    to_keep = publishing.has_initialization_to_keep(self.places, row)
    return to_keep and (self.trains or publishing.is_exported(self.places, row))

  def _take(self, row):
    """Starts on a row, unless another queue has it."""
    lock = open(self.places.own / f"{row.trainings[0].name if row.trains else row.name}.lock", "a")  # noqa: SIM115
    try:
      fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      lock.close()
      if row.name not in self._busy:
        self._busy.add(row.name)
        self.say(f"{row.name}: another queue has it")
      return
    self._taken.add(row.name)
    self._jobs.append(Job(self, row, lock))

  def _advance(self, job):
    """The next step of a job whose child, if there was one, has ended."""
    try:
      job.next()
    except StopIteration:
      self._close(job)
    except (UserError, OSError) as error:
      self._fail(job.row, error)
      self._close(job)

  def _fail(self, row, error):
    self._taken.add(row.name)
    self.failed[row.name] = str(error)
    self.say(f"{row.name}: FAILED: {error}")

  def _close(self, job):
    job.lock.close()
    self._jobs.remove(job)


class Job:
  """A row that is worked on: its child, and what comes after it.

  Args:
    queue: the `Queue`.
    row: the `Row`.
    lock: the open file of its lock.
  """

  def __init__(self, queue, row, lock):
    self.queue, self.places, self.row, self.lock = queue, queue.places, row, lock
    self.child, self._training, self._doing = None, None, "starting"
    self._reserve = queue.reserve(row)
    self._steps = self._work()

  def next(self):
    """Goes on to the next child.

    Raises:
      StopIteration: there is none.
      UserError: the last one failed.
    """
    if self.child is not None and (error := self.child.error()):
      raise UserError(error)
    self.child = None
    arguments = next(self._steps)
    self.child = Child(
      ["scripts/main.py", *arguments, *self.queue.flags],  # in the root: what is recorded names no folder
      self.places.own / f"{self.row.name}.log",
      self.places.root,
      locks=(self.lock.fileno(),),
      environment=_threads(self.queue.parallel),
    )

  def stop_if_due(self):
    reserve = self._reserve if self._training is not None else 0
    if self.child is not None and self.queue.left() <= reserve:
      self.child.stop()

  def progress(self):
    if self._training is None:
      return self._doing
    iterations = self._training.iterations
    there = pace(self.places.run(self.row, self._training), iterations)
    if there is None:
      return f"{self._doing}, of {iterations}"
    iteration, seconds, left = there
    return f"{iteration} of {iterations}, {seconds:.3g} s each, {duration(left)} left"

  def _work(self):
    """Yields the flags of one command of main.py after the other."""
    for training in self.row.trainings if self.row.trains else ():
      publishing.install(self.places, self.row, training)
      yield from self._train(training)
    for row in self.queue.companions(self.row):
      yield from self._settle(row)

  def _train(self, training):
    reached = newest(self.places.run(self.row, training))
    # One that was ended between its last iteration and its export: the same command makes up for it.
    finished = reached >= training.iterations and publishing.is_exported(self.places, self.row)
    if not self.queue.trains or finished or self.queue.left() <= self._reserve:
      return
    self._training, self._doing = training, f"training from iteration {reached}"
    self._say(self.row)
    yield training.flags(logdir=self.places.logdir)
    self._training = None
    reached = newest(self.places.run(self.row, training))
    self._doing = f"trained to iteration {reached} of {training.iterations}"
    self._say(self.row)

  def _settle(self, row):
    """Evaluates and publishes what a row's trainings have reached."""
    if self.queue.left() <= 0:
      return
    if not self.places.may_publish(row):
      with publishing.locked(self.places):
        publishing.keep(self.places, row)
      return
    while missing := self.places.missing(row):
      yield from self._evaluate(row, missing[0])
      if self.queue.left() <= 0:
        return
      publishing.collect(self.places, row)
      if missing[0] in self.places.missing(row):
        raise UserError(f"{self.places.file(row)}: the evaluation {missing[0]} is not in it, though it was made")
    if publishing.has_initialization_to_keep(self.places, row) and publishing.is_exported(self.places, row):
      publishing.keep_initialization(self.places, row)
      self.queue.say(f"{row.name}: its initialisation is in pretrained/{row.pretrained['folder']}")
    self.queue.say(f"{row.name}: {self.places.file(row)} has iteration {self.places.reached(row)} of {row.iterations}")

  def _evaluate(self, row, evaluation):
    for training in row.trainings:
      if not self.places.has(row, training, evaluation):
        self._doing = f"evaluating iteration {self.places.reached(row)} {evaluation or ''}".rstrip()
        self._say(row)
        yield training.flags(train=False, **evaluation, logdir=self.places.logdir_of(row))

  def _say(self, row):
    self.queue.say(f"{row.name}: {self._doing}")


def _evaluation_seconds(content):
  """What the longest of the evaluations in a results file took."""
  runs = (content or {}).get("runs", ())
  evaluations = [e for run in runs for e in (*run.get("evaluations", ()), run.get("evaluation") or {})]
  return max((e["wall_seconds"] for e in evaluations if "wall_seconds" in e), default=EVALUATION_SECONDS)


def _threads(parallel):
  """Rows that run beside each other share the cores."""
  if parallel == 1 or "TF_NUM_INTRAOP_THREADS" in os.environ:
    return {}
  return {"TF_NUM_INTRAOP_THREADS": str(max(1, (os.cpu_count() or 1) // parallel))}


def duration(seconds):
  """Readable: 2h05m, 3m20s, 12s."""
  seconds = int(seconds)
  hours, minutes = seconds // 3600, seconds // 60 % 60
  if hours:
    return f"{hours}h{minutes:02d}m"
  return f"{minutes}m{seconds % 60:02d}s" if minutes else f"{seconds}s"


def shard(rows, index, count):
  """The rows of every `count`-th training from the `index`-th on (from 1), the same whatever they have reached."""
  keys = [row.trainings[0].name if row.trains else row.after or row.name for row in rows]
  by_name = {row.name: key for row, key in zip(rows, keys, strict=True)}
  keys = [by_name.get(key, key) for key in keys]
  order = {key: position for position, key in enumerate(dict.fromkeys(keys))}
  return [row for row, key in zip(rows, keys, strict=True) if order[key] % count == index - 1]


def listing(places, rows):
  """A table: row, state, iterations reached, priority, why."""
  width = max((len(row.name) for row in rows), default=4)
  lines = [f"{'row':{width}}  {'state':10}  {'iterations':>15}  priority  why"]
  for row in rows:
    reached = f"{places.reached(row)}/{row.iterations}"
    lines.append(f"{row.name:{width}}  {_state(places, row):10}  {reached:>15}  {row.priority:8}  {row.why}")
  return lines


def _state(places, row):
  if places.done(row):
    return "done"
  if places.finished(row) and row.iterations:
    return "to evaluate"
  return "begun" if places.reached(row) else "not begun"
