"""Meta-reinforcement learning (Finn et al. 2017, section 5.3)."""

from maml_tf.experiments.domains.base import Domain

# cbfinn/maml_rl, maml_examples/maml_trpo_cheetah.py, with the paper's names where the published code has others:
# fast_batch_size is rollouts_per_task, fast_lr is update_lr, max_path_length is horizon, step_size is max_kl.
_CHEETAH = dict(
  metatrain_iterations=800,
  meta_batch_size=40,
  update_batch_size=1,  # means nothing here
  update_lr=0.1,
  rollouts_per_task=20,
  horizon=200,
  test_set=True,  # the 40 published test goals
  eval_tasks=40,
  eval_updates=3,
  log_every=1,
  validate_every=25,  # as many rollouts as several meta-iterations
  checkpoint_every=5,
  validation_tasks=20,
)
# The 0.02 is that of the snapshot that was evaluated (test_maml_cheetah_direc.py); the script has 0.01.
_CHEETAH_DIRECTION = _CHEETAH | dict(max_kl=0.02)
# maml_trpo_ant_direc.py; the evaluated snapshot's name has fbs40.
_ANT_DIRECTION = _CHEETAH | dict(rollouts_per_task=40)
# maml_trpo_point.py. The paper's text has a step size of 0.1.
_POINT = _CHEETAH | dict(
  metatrain_iterations=100, update_lr=0.5, horizon=100, eval_updates=4, validate_every=20, checkpoint_every=10,
  validation_tasks=40,
)  # fmt: skip
# For tests, in seconds: nothing published.
_BANDIT = _CHEETAH | dict(
  metatrain_iterations=20, meta_batch_size=20, rollouts_per_task=10, horizon=10, update_lr=0.5, eval_updates=2
)
PRESETS = {
  "point": _POINT,
  "cheetah_vel": _CHEETAH,
  "cheetah_dir": _CHEETAH_DIRECTION,
  "ant_vel": _CHEETAH,
  "ant_dir": _ANT_DIRECTION,
  "ant_goal": _CHEETAH,
  "cheetah_vel_v5": _CHEETAH,
  "cheetah_dir_v5": _CHEETAH,
  "ant_vel_v5": _CHEETAH,
  "ant_dir_v5": _CHEETAH,
  "bandit": _BANDIT,
  "tabular": _BANDIT,
}
_TITLES = {  # where a task's name would not do in a table
  "point": "2D navigation",
  "cheetah_vel": "HalfCheetah, velocity",
  "cheetah_dir": "HalfCheetah, direction",
  "ant_vel": "Ant, velocity",
  "ant_dir": "Ant, direction",
}
IN_THE_GRAPH = ("point", "bandit", "tabular")  # the others are simulated by MuJoCo
NOT_DRAWABLE = ("bandit", "tabular")

# Iterations of the policy that a baseline trains on all tasks (cbfinn/maml_rl, maml_examples/cluster_trpo_*.py), and
# its trajectories per iteration.
_BASELINE_ITERATIONS = {"point": 100, "cheetah": 1000, "ant": 2000}
_BASELINE_TRAJECTORIES = 100
_POINT_ORACLE_TRAJECTORIES = 10  # 1,000 transitions

# Step size of the first update at test time (cbfinn/maml_rl, maml_examples/test_maml_*.py), where it is not MAML's.
_TEST_STEP_SIZES = {
  ("point", "pretrain"): 0.5,
  ("cheetah_vel", "pretrain"): 0.02,
  ("cheetah_dir", "pretrain"): 0.2,
  ("ant_vel", "pretrain"): 0.2,
  ("ant_dir", "pretrain"): 0.2,
  ("point", "random"): 0.5,
  ("cheetah_vel", "random"): 0.1,
  ("cheetah_dir", "random"): 0.5,
  ("ant_vel", "random"): 1.0,
  ("ant_dir", "random"): 1.0,
}
# Transitions for each gradient at test time (likewise); rollouts are as many as make that, if none ends early.
_TEST_TRANSITIONS = {"ant_dir": 8000}
_DEFAULT_TEST_TRANSITIONS = 4000
# What later updates take of the first one's step size (likewise): half, and next to nothing for the ant's direction.
_LATER_STEPS = {"ant_dir": 0.01}


def defaults(datasource, method, given):
  """The environment's preset; a baseline trains one policy on all tasks, longer and from more rollouts."""
  preset = PRESETS[datasource]
  changed = dict(preset)
  if method.name in ("pretrain", "random"):
    changed["update_lr"] = _TEST_STEP_SIZES.get((datasource, method.name), preset["update_lr"])
  if method.trains and not method.meta_learns:
    iterations = _BASELINE_ITERATIONS.get(datasource.partition("_")[0], preset["metatrain_iterations"])
    changed["pretrain_iterations"] = 0 if given.get("metatrain_iterations", 0) > 0 else iterations
    changed |= {"metatrain_iterations": 0, "meta_batch_size": 1, "max_kl": 0.01}
    changed["rollouts_per_task"] = _BASELINE_TRAJECTORIES
  if method.name == "oracle":
    changed["eval_updates"] = 0
    if datasource == "point":
      changed["rollouts_per_task"] = _POINT_ORACLE_TRAJECTORIES
  return changed


def test_rollouts(datasource):
  """Rollouts of each goal for each gradient of an evaluation: the published number of transitions."""
  return _TEST_TRANSITIONS.get(datasource, _DEFAULT_TEST_TRANSITIONS) // PRESETS[datasource]["horizon"]


def test_step_sizes(datasource, first):
  """The first update's step size, then what later ones take (cbfinn/maml_rl, first_order_optimizer.py: half)."""
  return [first, first * _LATER_STEPS.get(datasource, 0.5)]


def check(config, require):
  drawable = config.datasource not in NOT_DRAWABLE
  require("render", drawable or not config.render, "False: there is nothing to see of a bandit or a table")
  pretrains = config.description.trains and not config.description.meta_learns
  require("pretrain_iterations", pretrains or config.pretrain_iterations == 0, "0, or --baseline=pretrain")


DOMAIN = Domain(
  name="policies",
  kind="policies",
  datasources={name: _TITLES.get(name, name) for name in PRESETS},
  settings=frozenset({
    "meta_batch_size", "pretrain_iterations", "rollouts_per_task", "horizon", "inner", "outer", "max_kl", "hvp",
    "hvp_subsample", "sim_threads", "render",
  }),
  defaults=defaults,
  check=check,
  experiment="maml_tf.experiments.domains.policies.experiment:PolicyExperiment",
)  # fmt: skip
