"""Time and memory of the rounds of a stream: neither may grow with their number (beyond the data, which is there once).

A small classifier walks through a stream of random examples by FTML, judged after every batch. All tasks are alike, so
a round late in the stream has the work of one at its beginning.
"""

import time

import numpy as np

from benchmarks import circumstances
from benchmarks.images import resident

TASKS, EXAMPLES, BATCH, SIZE, CLASSES = 400, 100, 20, 64, 5
PARTS = 40


def measured(import_tensorflow, num_tasks):
  """What a results file keeps, printed; TensorFlow is imported by that function."""
  import_tensorflow()
  results = run(num_tasks)
  print("\n".join(report(results)))
  return {**results, **circumstances.describe()}


def run(num_tasks=TASKS):
  """{"rounds": [parts], "milliseconds_of_a_round": [parts], "resident_bytes": [parts], "data_bytes", ...}."""
  import tensorflow as tf

  learner = _learner(num_tasks)
  rounds = learner.stream.num_rounds
  state, run_rounds = learner.initial_state(0), _loop(learner)
  marks = np.unique(np.linspace(0, rounds, PARTS + 1).astype(int))[1:]
  run_rounds(state, tf.constant(0), tf.constant(1))  # traced, and with what TensorFlow keeps for itself
  times, memory, done = [], [], 0
  for mark in marks:
    began = time.perf_counter()
    state = run_rounds(state, tf.constant(done), tf.constant(int(mark) - done))
    state["loss"].numpy()
    times.append(1000 * (time.perf_counter() - began) / (int(mark) - done))
    memory.append(resident("VmRSS"))
    done = int(mark)
  return {
    "setting": {"tasks": num_tasks, "examples": EXAMPLES, "batch": BATCH},
    "data_bytes": sum(learner.stream.sequence.flat(name).nbytes for name in ("x", "y", "test_x", "test_y")),
    "rounds": marks.tolist(),
    "milliseconds_of_a_round": np.round(times, 4).tolist(),
    "resident_bytes": memory,
  }


def _learner(num_tasks):
  from maml_tf import MAML, models, tasks
  from maml_tf.online import STRATEGIES, OnlineLearner, Stream, UpdateProcedure

  rng = np.random.default_rng(0)
  x = rng.normal(size=(num_tasks, EXAMPLES + BATCH, SIZE)).astype(np.float32)
  y = rng.integers(0, CLASSES, size=x.shape[:2]).astype(np.int32)
  sequence = tasks.TaskSequence(x[:, :EXAMPLES], y[:, :EXAMPLES], x[:, EXAMPLES:], y[:, EXAMPLES:], BATCH)
  maml = MAML(models.MLP(CLASSES, (40, 40), (SIZE,), stddev=0.1), "crossentropy", inner_lr=0.05, num_updates=1)
  procedure = UpdateProcedure(maml, steps=5)
  return OnlineLearner(procedure, Stream(sequence), STRATEGIES["ftml"], meta_updates=5, meta_batch_size=5)


def _loop(learner):
  import tensorflow as tf

  from maml_tf import randomness, tracing

  @tracing.function
  def run_rounds(state, first, count):
    def body(done, state):
      return done + 1, learner.train_step(state, randomness.fold(randomness.make_seed(0), first + done))[0]

    return tf.while_loop(lambda done, state: done < count, body, (0, state))[1]

  return run_rounds


def report(results):
  """Lines of text: the first and the last tenth."""
  tenth = max(1, len(results["rounds"]) // 10)
  lines = [f"{results['rounds'][-1]:,} rounds, {results['data_bytes'] / 1e6:.1f} MB of data"]
  for name, part in (("first", slice(None, tenth)), ("last", slice(-tenth, None))):
    time_, memory = (np.median(results[key][part]) for key in ("milliseconds_of_a_round", "resident_bytes"))
    lines.append(f"{name} tenth: {time_:.2f} ms a round, {memory / 1e6:.1f} MB resident")
  return lines
