"""Ambiguous regression: a few noisy points of a sine wave or of a line (Finn, Xu and Levine 2018, section 5.1)."""

from maml_tf.experiments.domains import sinusoid
from maml_tf.experiments.domains.base import Domain

# The paper's appendix is not at hand; 5 points, 5 steps of 0.001 and 25 tasks are as in public code of it
# (cnguyen10/few_shot_meta_learning) and as in the sine waves of MAML.
PRESET = dict(
  metatrain_iterations=60000,
  update_batch_size=5,
  update_lr=0.001,
  num_updates=5,
  init_stddev=0.1,
  test_set=True,
  eval_queries=100,
  validate_every=5000,
  checkpoint_every=1000,
  validation_tasks=600,
)


def defaults(datasource, method, given):
  """As of sine waves: a baseline fine-tunes with the best step size of a grid, and trains for as long as MAML would."""
  changed = sinusoid.defaults(datasource, method, given)
  own = {name: value for name, value in PRESET.items() if name not in ("metatrain_iterations", "update_lr")}
  if method.meta_learns:
    own |= {name: PRESET[name] for name in ("metatrain_iterations", "update_lr")}
  return changed | own | {"jit_compile": False}


def check(config, require):
  require("eval_queries", config.eval_queries >= 1, "a whole number of at least 1")


DOMAIN = Domain(
  name="ambiguous",
  kind="ambiguous",
  datasources={"sine_or_line": "sine or line"},
  settings=sinusoid.DOMAIN.settings | {"hypotheses"},
  defaults=defaults,
  check=check,
  experiment="maml_tf.experiments.domains.ambiguous.experiment:AmbiguousExperiment",
)
