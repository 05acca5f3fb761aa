"""Every method of learning to learn, described once. Imports no TensorFlow.

One word, method, for two flags: the published code calls some of them baselines (`--baseline`), the others are learners
(`--learner`). A class outside of the package is a method as well: `--learner=module:Class`.
"""

import dataclasses
import importlib
import sys
from collections.abc import Mapping

from maml_tf.errors import UserError

REGRESSION, CLASSIFICATION, POLICIES, ONLINE = "regression", "classification", "policies", "online"

_INNER_LOOP = ("update_lr", "num_updates", "loss_reduction", "bn_mode", "mixed_precision")
_SECOND_ORDER = ("stop_grad", "checkpoint_inner_steps")
_SCHEDULE = ("meta_lr_schedule", "schedule_iterations")
_FINE_TUNED = ("loss_reduction", "bn_mode")
_GRADIENT_STEPS = ("update_lr", "grad_steps")


@dataclasses.dataclass(frozen=True)
class Method:
  """A method: what it is called, what it is made by, and what it can be told.

  Attributes:
    name: of the flag, of run directories and of results.
    title: in tables and legends.
    implementation: "module:Class" of an `algorithms.base.Algorithm`, made from (model, loss, **settings). Policies have
      a learner of their own.
    kinds: of the domains that it is for.
    shaped_by: settings that shape its training.
    evaluated_with: settings that count in its evaluation only.
    flag: "learner" or "baseline".
    defaults: what it has in place of a domain's defaults, where the domain has the setting.
    defaults_of_kind: likewise, by the kind of the domain.
    keeps_averages: whether it can normalise by averages over training (`--bn_mode=running`).
    hashed: what a run's hash has beside its settings.
    color: in figures.
  """

  name: str
  title: str
  implementation: str
  kinds: tuple
  shaped_by: tuple = ()
  evaluated_with: tuple = ()
  flag: str = "learner"
  defaults: Mapping = dataclasses.field(default_factory=dict)
  defaults_of_kind: Mapping = dataclasses.field(default_factory=dict)
  keeps_averages: bool = False
  hashed: Mapping = dataclasses.field(default_factory=dict)
  color: str = "tab:brown"

  @property
  def settings(self):
    """Names of the settings that it has, of those that a method may have or lack."""
    return (*self.shaped_by, *self.evaluated_with)

  @property
  def meta_learns(self):
    """Whether its meta-iterations are those of `--metatrain_iterations`."""
    return self.flag == "learner"

  @property
  def trains(self):
    return self.name != "random"

  @property
  def run_name(self):
    """Its name in a run directory's: without what file systems do not like."""
    return self.name.replace(":", "-")

  def load(self):
    """The class.

    Raises:
      UserError: there is no such module or class.
    """
    module, _, name = self.implementation.partition(":")
    return getattr(importlib.import_module(module), name)


_EXPORTED = ("export_bn_mode",)
_STEPS = ("eval_updates", *_EXPORTED)
_READS = {"max_pool": True, "jit_compile": False}
# From the weakest to the strongest in the paper's figures, which is the order of legends and tables.
METHODS = {
  method.name: method
  for method in (
    Method(
      "random", "random initialisation", "maml_tf.algorithms.pretraining:Pretraining",
      (REGRESSION, CLASSIFICATION, POLICIES), shaped_by=(*_FINE_TUNED, "mixed_precision"),
      evaluated_with=("update_lr", *_STEPS), flag="baseline", color="tab:gray",
    ),
    Method(
      "average", "averaged regressors", "maml_tf.algorithms.averaging:Averaging", (REGRESSION,),
      shaped_by=(*_FINE_TUNED, "num_regressors", "regulariser", "regulariser_strength"),
      evaluated_with=("update_lr", *_STEPS), flag="baseline", defaults={"meta_batch_size": 500}, color="rosybrown",
    ),
    # Ravi and Larochelle 2017: batches of 64 images of all training classes.
    Method(
      "finetune", "fine-tuning", "maml_tf.algorithms.classifier:FineTuning", (CLASSIFICATION,),
      shaped_by=_FINE_TUNED, evaluated_with=("update_lr", *_STEPS), flag="baseline",
      defaults={"meta_batch_size": 1, "max_pool": True}, color="rosybrown",
    ),
    Method(
      "neighbour", "nearest neighbour", "maml_tf.algorithms.classifier:NearestNeighbour", (CLASSIFICATION,),
      shaped_by=("bn_mode",), evaluated_with=_EXPORTED, flag="baseline",
      defaults={"meta_batch_size": 1, "max_pool": True}, color="darkkhaki",
    ),
    Method(
      "pretrain", "pretrained on all tasks", "maml_tf.algorithms.pretraining:Pretraining", (REGRESSION, POLICIES),
      shaped_by=_FINE_TUNED, evaluated_with=("update_lr", *_STEPS), flag="baseline", color="tab:red",
    ),
    Method(
      "maml", "MAML", "maml_tf.algorithms.maml:MAML", (REGRESSION, CLASSIFICATION, POLICIES),
      shaped_by=(*_INNER_LOOP, *_SECOND_ORDER, "inner"), evaluated_with=("train_update_lr", *_STEPS), color="tab:blue",
      keeps_averages=True,
    ),
    Method(
      "context", "context vector", "maml_tf.algorithms.context:Context", (REGRESSION, CLASSIFICATION),
      shaped_by=(*_INNER_LOOP, *_SECOND_ORDER, "context_size"), evaluated_with=("train_update_lr", *_STEPS),
      # A few numbers move outputs less than all weights do; 0.1 and 1 were alike after 5,000 iterations.
      defaults_of_kind={REGRESSION: {"update_lr": 0.1}}, color="goldenrod", keeps_averages=True,
    ),
    Method(
      "anil", "ANIL", "maml_tf.algorithms.anil:ANIL", (REGRESSION, CLASSIFICATION),
      shaped_by=(*_INNER_LOOP, *_SECOND_ORDER), evaluated_with=("train_update_lr", *_STEPS), color="tab:green",
      keeps_averages=True,
    ),
    Method(
      "metasgd", "Meta-SGD", "maml_tf.algorithms.metasgd:MetaSGD", (REGRESSION, CLASSIFICATION),
      shaped_by=(*_INNER_LOOP, *_SECOND_ORDER), evaluated_with=_STEPS, color="tab:purple",
      keeps_averages=True,
    ),
    # First order by nature; its runs are older than that it has no such setting.
    Method(
      "reptile", "Reptile", "maml_tf.algorithms.reptile:Reptile", (REGRESSION, CLASSIFICATION),
      shaped_by=(*_INNER_LOOP, *_SCHEDULE, "inner_optimizer", "inner_batch_size", "meta_optimizer"),
      evaluated_with=("train_update_lr", *_STEPS), hashed={"stop_grad": False}, color="tab:orange", keeps_averages=True,
    ),
    Method(
      "fomaml", "first-order MAML", "maml_tf.algorithms.fomaml:FirstOrderMAML", (REGRESSION, CLASSIFICATION),
      shaped_by=_INNER_LOOP, evaluated_with=("train_update_lr", *_STEPS), color="tab:olive", keeps_averages=True,
    ),
    Method(
      "boil", "BOIL", "maml_tf.algorithms.boil:BOIL", (REGRESSION, CLASSIFICATION),
      shaped_by=(*_INNER_LOOP, *_SECOND_ORDER), evaluated_with=("train_update_lr", *_STEPS), color="darkgreen",
      keeps_averages=True,
    ),
    # Rajeswaran et al. 2019, appendix: 16 steps of 0.1 on the mean loss.
    Method(
      "imaml", "implicit MAML", "maml_tf.algorithms.imaml:ImplicitMAML", (REGRESSION, CLASSIFICATION),
      shaped_by=(*_INNER_LOOP, "proximal_weight", "cg_iterations"), evaluated_with=("train_update_lr", *_STEPS),
      defaults={"num_updates": 16, "eval_updates": 16, "loss_reduction": "mean"},
      defaults_of_kind={CLASSIFICATION: {"update_lr": 0.1}}, color="navy", keeps_averages=True,
    ),
    # Antoniou et al. 2019: 100 epochs of 500 iterations; 15 of them with the losses of all steps, 50 first order.
    Method(
      "mamlpp", "MAML++", "maml_tf.algorithms.mamlpp:MAMLPlusPlus", (REGRESSION, CLASSIFICATION),
      shaped_by=(*_INNER_LOOP, "multi_step_iterations", "first_order_iterations", "per_step_norm", *_SCHEDULE),
      evaluated_with=_STEPS,
      defaults={"num_updates": 5, "loss_reduction": "mean", "meta_lr_schedule": "cosine", "jit_compile": False},
      defaults_of_kind={CLASSIFICATION: {"metatrain_iterations": 50000}}, color="deeppink", keeps_averages=True,
    ),
    # Ravi and Larochelle 2017: 32 filters, max-pooling, an episode at a time; 12 passes there.
    Method(
      "metalstm", "meta-learner LSTM", "maml_tf.algorithms.metalstm:MetaLSTM", (REGRESSION, CLASSIFICATION),
      shaped_by=("num_updates", "loss_reduction", "bn_mode"), evaluated_with=_STEPS,
      defaults=_READS | {"num_updates": 5, "eval_updates": 5, "num_filters": 32, "meta_batch_size": 4,
                         "loss_reduction": "mean"},
      color="sienna",
    ),
    # Santoro et al. 2016: 200 units, 128 places of 40, 4 heads.
    Method(
      "mann", "memory-augmented network", "maml_tf.algorithms.mann:MANN", (REGRESSION, CLASSIFICATION),
      shaped_by=("bn_mode", "recurrent_size", "memory_slots", "slot_size", "read_heads"), evaluated_with=_EXPORTED,
      defaults=_READS | {"recurrent_size": 200}, color="firebrick",
    ),
    Method(
      "lstm", "LSTM", "maml_tf.algorithms.lstm:LSTMReader", (REGRESSION, CLASSIFICATION),
      shaped_by=("bn_mode", "recurrent_size"), evaluated_with=_EXPORTED, defaults=_READS, color="slategray",
    ),
    Method(
      "snail", "SNAIL", "maml_tf.algorithms.snail:SNAIL", (REGRESSION, CLASSIFICATION),
      shaped_by=("bn_mode", "temporal_filters", "temporal_blocks"), evaluated_with=_EXPORTED, defaults=_READS,
      # The paper has no regression: as many filters as in its bandits.
      defaults_of_kind={REGRESSION: {"temporal_filters": 32}}, color="indigo",
    ),
    Method(
      "siamese", "siamese networks", "maml_tf.algorithms.siamese:Siamese", (CLASSIFICATION,),
      shaped_by=("bn_mode",), evaluated_with=_EXPORTED, defaults={"max_pool": True}, color="tan",
    ),
    Method(
      "statistician", "neural statistician", "maml_tf.algorithms.statistician:Statistician", (CLASSIFICATION,),
      shaped_by=("bn_mode", "statistic_size", "latent_size"), evaluated_with=_EXPORTED, defaults={"max_pool": True},
      color="plum",
    ),
    Method(
      "memory", "memory module", "maml_tf.algorithms.memory:Memory", (CLASSIFICATION,),
      shaped_by=("bn_mode", "memory_slots", "margin"), evaluated_with=_EXPORTED, defaults={"max_pool": True},
      color="darkkhaki",
    ),
    Method(
      "matching", "matching networks", "maml_tf.algorithms.matching:Matching", (CLASSIFICATION,),
      shaped_by=("bn_mode", "attention_scale", "full_context", "attention_steps"), evaluated_with=_EXPORTED,
      defaults={"max_pool": True}, color="teal",
    ),
    Method(
      "protonet", "prototypical networks", "maml_tf.algorithms.prototypical:Prototypical", (CLASSIFICATION,),
      shaped_by=("bn_mode",), evaluated_with=_EXPORTED, defaults={"max_pool": True}, color="tab:cyan",
    ),
    Method(
      "oracle", "oracle", "maml_tf.algorithms.pretraining:Pretraining", (REGRESSION, POLICIES), shaped_by=_FINE_TUNED,
      evaluated_with=("update_lr", *_STEPS), flag="baseline", color="black",
    ),
    # Online (`online.strategies`): what is done with the tasks of a stream. The inner loop is MAML's; without
    # `num_updates` there is none in the meta-update.
    Method(
      "scratch", "from scratch", "maml_tf.algorithms.maml:MAML", (ONLINE,), shaped_by=_GRADIENT_STEPS,
      color="tab:gray",
    ),
    Method("toe", "train on everything", "maml_tf.algorithms.maml:MAML", (ONLINE,), color="tab:red"),
    Method("ftl", "FTL", "maml_tf.algorithms.maml:MAML", (ONLINE,), shaped_by=_GRADIENT_STEPS, color="tab:orange"),
    Method(
      "ftml_head", "FTML, last layer", "maml_tf.algorithms.anil:ANIL", (ONLINE,),
      shaped_by=(*_GRADIENT_STEPS, "num_updates", *_SECOND_ORDER), color="tab:green",
    ),
    Method(
      "ftml", "FTML", "maml_tf.algorithms.maml:MAML", (ONLINE,),
      shaped_by=(*_GRADIENT_STEPS, "num_updates", *_SECOND_ORDER), color="tab:blue",
    ),
  )
}  # fmt: skip
NO_BASELINE = "None"


def named(flag, name):
  """The method of that flag and name; one of the user's own for "module:Class".

  Raises:
    UserError: there is none.
  """
  if flag == "learner" and ":" in name:
    return _plug_in(name)
  found = METHODS.get(name)
  if found is None or found.flag != flag:
    raise UserError(f"--{flag}={name}: expected one of {', '.join(names(flag))}")
  return found


def names(flag, kind=None):
  """What a flag can be, in a domain of that kind (None: anywhere)."""
  there = [m.name for m in METHODS.values() if m.flag == flag and (kind is None or kind in m.kinds)]
  if flag == "baseline":
    return [NO_BASELINE, *there]
  return there if kind in (POLICIES, ONLINE) else [*there, "module:Class"]


def in_order(names_of_methods):
  """The `Method`s of names, the known ones from the weakest to the strongest, then the others."""
  known = [method for name, method in METHODS.items() if name in names_of_methods]
  others = [name for name in names_of_methods if name not in METHODS]
  return known + [Method(name, name.partition(":")[2] or name, name, ()) for name in others]


def _plug_in(name):
  """The description that a class outside of the package gives of itself: its attributes `kinds` and `settings`."""
  module, _, class_name = name.partition(":")
  if "" not in sys.path:
    sys.path.insert(0, "")  # a file in the current folder, as with `python -m`
  try:
    implementation = getattr(importlib.import_module(module), class_name)
  except (ImportError, AttributeError, ValueError) as error:
    raise UserError(
      f"--learner={name}: {error}; expected module:Class, a file module.py in this folder or an installed package"
    ) from error
  from maml_tf.algorithms.base import CONTRACT, Algorithm

  missing = [member for member in CONTRACT if not hasattr(implementation, member)]
  if missing:
    raise UserError(f"--learner={name}: it has no {missing[0]}; expected the contract of maml_tf.algorithms.base")
  steps = _STEPS if implementation.has_steps else ()
  kinds = getattr(implementation, "kinds", Algorithm.kinds)
  settings = tuple(getattr(implementation, "settings", ()))
  return Method(name, class_name, name, kinds, shaped_by=settings, evaluated_with=steps)
