"""One experiment as a dataclass: domain, method and run, composed. Imports no TensorFlow: bad settings are refused at
once. Everything that follows from a setting's description is derived here, for all of them."""

import dataclasses
import functools
import hashlib
import json
import os
import pathlib
import re
import shlex

from maml_tf.errors import UserError
from maml_tf.experiments import methods
from maml_tf.experiments.domains import DATASOURCES, domain_of
from maml_tf.experiments.settings import COUNT_LIMIT, SETTINGS

_Values = dataclasses.make_dataclass(
  "_Values",
  [
    (s.name, s.kind | None if s.optional else s.kind, dataclasses.field(metadata={"help": s.help}))
    for s in SETTINGS.values()
  ],
  frozen=True,
)


class Config(_Values):
  """All settings of a run, each a field, as `settings.SETTINGS` describes them. `resolve` makes one."""

  @property
  def domain(self):
    """The `Domain` of the datasource."""
    return DATASOURCES[self.datasource]

  @functools.cached_property
  def description(self):
    """The `Method` that is trained and evaluated."""
    return _method_of(self.to_dict())

  @property
  def method(self):
    """Its name."""
    return self.description.name

  @property
  def iterations(self):
    """Iterations of the method; the oracle's are all pretraining (as in the published code)."""
    method = self.description
    if not method.trains:
      return 0
    return self.metatrain_iterations + (0 if method.meta_learns else self.pretrain_iterations)

  @property
  def pretrains_first(self):
    """Whether meta-training starts from weights that are pretrained first (both iteration counts given)."""
    return self.description.meta_learns and self.pretrain_iterations > 0

  @property
  def training_shots(self):
    return self.update_batch_size if self.train_update_batch_size == -1 else self.train_update_batch_size

  @property
  def training_lr(self):
    return self.update_lr if self.train_update_lr == -1 else self.train_update_lr

  def applies(self, name):
    """Whether a setting means anything in this domain and for this method."""
    return _foreign(SETTINGS[name], self.domain, self.description) is None

  def to_dict(self):
    return {name: getattr(self, name) for name in SETTINGS}

  def portable(self):
    """All settings but the folders of this machine, as a dict: what goes with weights that leave it."""
    return {name: value for name, value in self.to_dict().items() if not SETTINGS[name].local}


def resolve(datasource=None, **given):
  """The config of a domain and a method: their defaults, with what is given on top (None counts as not given).

  Args:
    datasource: name of the domain's data or environment; None: sinusoid.
    **given: settings by name.

  Returns:
    `Config`.

  Raises:
    UserError: an unknown name, one that the domain or the method does not have, or a value that makes no sense; the
      message names the flag.
  """
  datasource = SETTINGS["datasource"].default if datasource is None else datasource
  domain = domain_of(datasource)
  given = {name: _setting(name).typed(value) for name, value in given.items() if value is not None}
  method = _method_of(given)
  _check_method(method, domain, given)
  defaults = {s.name: s.default for s in SETTINGS.values()} | {"datasource": datasource}
  defaults |= _changed(datasource, method, given)
  config = Config(**(defaults | given))
  _refuse_foreign(config, given)
  _check(config)
  return config


def from_record(record):
  """The config that a file of a run holds. What meant nothing to that run, and was kept all the same, is left out.

  Args:
    record: dict of all settings.

  Raises:
    UserError: it is no record of a config.
  """
  if not isinstance(record, dict) or "datasource" not in record:
    raise UserError("config: expected the settings of a run, with its datasource")
  given = {name: value for name, value in record.items() if name != "datasource" and value is not None}
  if given.get("baseline", methods.NO_BASELINE) != methods.NO_BASELINE:
    given.pop("learner", None)  # a record has both flags, and the baseline is what was trained
  domain, method = domain_of(record["datasource"]), _method_of(given)
  there = {n: v for n, v in given.items() if n not in SETTINGS or _foreign(SETTINGS[n], domain, method) is None}
  config = Config(**({s.name: s.default for s in SETTINGS.values()} | {n: there[n] for n in there if n in SETTINGS}
                     | {"datasource": record["datasource"]}))  # fmt: skip
  useless = [n for n in there if n in SETTINGS and SETTINGS[n].when is not None and SETTINGS[n].when(config)]
  return resolve(record["datasource"], **{n: v for n, v in there.items() if n not in useless})


def check_paths(config):
  """Refuses paths that cannot work, before anything slow is imported. It writes nothing.

  Raises:
    UserError: the message names the flag and the path.
  """
  try:
    _check_logdir(config)
    if config.init_from is not None:
      _check_init_from(config.init_from)
    with_flags(config.domain.check_paths, config)
  except OSError as error:  # a name that is too long, a folder that may not be searched
    raise UserError(f"{error.filename}: {error.strerror}; name another path") from error
  except ValueError as error:  # a NUL in a path
    raise UserError(f"--logdir, --data_dir or --init_from: {error}; name another path") from error


def with_flags(function, *arguments):
  """Calls a function of the library; its errors name flags in place of arguments."""
  try:
    return function(*arguments)
  except UserError as error:
    text = in_flags(str(error))
    if text == str(error):
      raise
    raise type(error)(text) from error


# What errors of the library call a setting -> its flag.
_ARGUMENTS = {name: s.name for s in SETTINGS.values() for name in (s.library_name, s.argument, s.name) if name}
_NAMED = re.compile(rf"(?<![\w-])({'|'.join(sorted(_ARGUMENTS, key=len, reverse=True))})=(?=[^\s,;'\"])")


def in_flags(message):
  """A message of the library with flags in place of arguments: `Episodes(ways=3): ...`, `data_dir=x: ...`."""
  message = re.sub(r"^\w+\((\w+=[^)]*)\):", r"\1:", message)
  return _NAMED.sub(lambda match: f"--{_ARGUMENTS[match[1]]}=", message)


def training_settings(config, init_fingerprint=None, data_fingerprint=None):
  """What shapes training, as a JSON-able dict: its hash is in the run directory's name.

  Args:
    config: `Config`.
    init_fingerprint: of the weights of --init_from; None: there are none.
    data_fingerprint: of the training data where the datasource does not say which they are; None: it does.
  """
  method = config.description
  # Runs are older than that learners are methods.
  settings = {"method": "maml" if method.meta_learns else method.name, **method.hashed}
  if method.meta_learns and method.name != "maml":
    settings["learner"] = method.name
  for setting in _shaping(config):
    if setting.in_hash(config):
      settings[setting.hash_name or setting.name] = setting.value_in(config)
  if data_fingerprint is not None:
    settings["data"] = data_fingerprint
  if init_fingerprint is not None:
    settings["init_from"] = init_fingerprint
  return settings


def readable_name(config):
  """The readable part of a run directory's name, in the manner of the published code's."""
  shown = [(10, config.description.run_name)]
  shown += [(s.shown[0], s.shown[1](config)) for s in _shaping(config) if s.shown is not None]
  return ".".join(text for _, text in sorted(shown, key=lambda part: part[0]) if text is not None)


def run_name(config, init_fingerprint=None, data_fingerprint=None):
  """The name of a run directory: readable, and a hash of what shapes training, so that two trainings never share one.

  Args:
    config: a `Config`.
    init_fingerprint: as of `training_settings`.
    data_fingerprint: likewise.
  """
  text = json.dumps(training_settings(config, init_fingerprint, data_fingerprint), sort_keys=True)
  return f"{readable_name(config)}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def _shaping(config):
  """The settings that may shape this training."""
  method, domain = config.description, config.domain
  for setting in SETTINGS.values():
    there = domain.has(setting)
    there &= not setting.of_method or setting.name in method.shaped_by
    if there and (setting.when is None or setting.when(config) is None):
      yield setting


def train_command(config):
  """The shortest command line that trains as a config does."""
  settings = [s for s in SETTINGS.values() if s.repeats and s.name != "datasource"]
  settings.sort(key=lambda s: not s.decides)  # stable; defaults of the others hang on these
  given = {}
  for setting in settings:
    value = getattr(config, setting.name)
    useless = setting.when is not None and setting.when(config)
    if config.applies(setting.name) and not useless and value != _default(config.datasource, given, setting.name):
      given[setting.name] = value
  flags = {"datasource": config.datasource, **given}
  return shlex.join(["python", "scripts/main.py", *(f"--{name}={value}" for name, value in flags.items())])


def _default(datasource, given, name):
  """What a setting is where those are given; without a check: not all of them need be given yet."""
  method = _method_of(given)
  return (_changed(datasource, method, given) | given).get(name, SETTINGS[name].default)


def _changed(datasource, method, given):
  """What a domain, then a method, have in place of the settings' own defaults."""
  domain = DATASOURCES[datasource]
  changed = {**method.defaults, **method.defaults_of_kind.get(domain.kind, {})}
  own = {n: v for n, v in changed.items() if domain.has(SETTINGS[n])}
  return domain.defaults(datasource, method, given) | own


def default_of(datasource, name, **given):
  """The default of a setting in a domain; for its help."""
  return _default(datasource, given, name)


def _setting(name):
  if name not in SETTINGS:
    raise UserError(f"{name}: no such setting; there are {', '.join(SETTINGS)}")
  return SETTINGS[name]


def _method_of(given):
  """The `Method` that settings name, by either flag or by training iterations alone.

  Raises:
    UserError: there is none, or two.
  """
  baseline, learner = given.get("baseline", methods.NO_BASELINE), given.get("learner", SETTINGS["learner"].default)
  if baseline != methods.NO_BASELINE:
    return methods.named("baseline", baseline)
  # The published code's way to say it.
  if learner == "maml" and given.get("metatrain_iterations") == 0 and given.get("pretrain_iterations", 0) > 0:
    return methods.METHODS["pretrain"]
  return methods.named("learner", learner)


def _check_method(method, domain, given):
  """Refuses a method in a domain of another kind, and two methods at once."""
  if given.get("baseline", methods.NO_BASELINE) != methods.NO_BASELINE and "learner" in given:
    raise UserError(f"--learner={given['learner']}: expected no --learner with a baseline, which is trained instead")
  if domain.kind in method.kinds:
    return
  if method.name == "pretrain" and "baseline" not in given:
    raise UserError(
      f"--pretrain_iterations={given['pretrain_iterations']}: expected 0 here: tasks label their classes anew"
    )
  there = ", ".join(methods.names(method.flag, domain.kind))
  raise UserError(f"--{method.flag}={given.get(method.flag)}: expected one of {there}, with this --datasource")


def _foreign(setting, domain, method):
  """Who does not have a setting; None where it applies."""
  if not domain.has(setting):
    return f"the domain {domain.name}"
  if setting.of_method and setting.name not in method.settings:
    return f"--{method.flag}={method.name}"
  return None


def _refuse_foreign(config, given):
  """Refuses flags that would otherwise be ignored without a word."""
  for name, value in given.items():
    setting = SETTINGS[name]
    if setting.sentinel is not None and value == setting.sentinel:
      continue
    foreign = _foreign(setting, config.domain, config.description)
    if foreign is not None:
      raise UserError(f"--{name}={value}: expected no such flag here: {foreign} has no such setting")
    needs = setting.when(config) if setting.when is not None else None
    if needs is not None:
      raise UserError(f"--{name}={value}: expected no such flag, or {needs} with it, which alone uses it")


def _check(config):
  def require(name, holds, expected):
    if not holds:
      raise UserError(f"--{name}={getattr(config, name)}: expected {expected}")

  for setting in SETTINGS.values():
    if config.applies(setting.name):
      problem = setting.problem(getattr(config, setting.name))
      require(setting.name, problem is None, problem)
  _check_combinations(config, require)
  config.domain.check(config, require)


def _check_combinations(config, require):
  """Refuses settings that do not go together, in any domain."""
  require(
    "metatrain_iterations",
    config.pretrain_iterations + config.metatrain_iterations < COUNT_LIMIT,
    "a number that is, with --pretrain_iterations, below 2**31",
  )
  for name in ("train_update_batch_size", "train_update_lr"):
    value, same = getattr(config, name), getattr(config, name.removeprefix("train_"))
    require(name, not config.train or value in (-1, same), "-1, or --train=False: training itself goes by "
            f"--{name.removeprefix('train_')}")  # fmt: skip
  trains = config.description.trains
  if config.test_iter > 0:
    require("test_iter", not config.train, "--train=False with it: training goes on from the newest checkpoint")
    require("test_iter", config.init_from is None, "no --init_from with it: that is evaluated, not a checkpoint")
    require("test_iter", trains, "no --baseline=random with it, which has no checkpoints")
  without_weights = config.init_from is None or trains
  require("init_from", without_weights, "no --baseline=random with it, whose weights are drawn at random")
  idle = config.train and trains and config.iterations == 0
  require("metatrain_iterations", not idle, "at least 1 (or --pretrain_iterations above 0, or --train=False)")
  if config.applies("bn_mode") and config.bn_mode != "transductive":
    require("bn_mode", config.norm == "batch_norm", "transductive, or --norm=batch_norm with it")
    keeps = config.description.keeps_averages or config.bn_mode != "running"
    require("bn_mode", keeps, f"transductive or support: {config.description.title} keeps no averages")
  chunks = config.task_chunk
  divides = not config.train or chunks == 0 or config.meta_batch_size % chunks == 0
  require("task_chunk", divides, f"0 or a number that divides --meta_batch_size={config.meta_batch_size}")


def _check_logdir(config):
  flag = f"--logdir={config.logdir}"
  if not config.logdir:
    raise UserError(f"{flag}: expected the name of a folder")
  path = pathlib.Path(config.logdir).absolute()
  if config.train is False and config.init_from is None and config.description.trains and not path.exists():
    raise UserError(f"{flag}: no such folder, so there is no checkpoint to evaluate; train first, or name another")
  there = next(parent for parent in (path, *path.parents) if parent.exists())
  if not there.is_dir():
    raise UserError(f"{flag}: {there} is a file, a folder was expected; name another")
  if not os.access(there, os.W_OK | os.X_OK):
    read_only = os.statvfs(there).f_flag & os.ST_RDONLY
    reason = "the file system is read-only" if read_only else "permission denied"
    raise UserError(f"{flag}: cannot write in {there} ({reason}); name a folder that can be written")


def _check_init_from(init_from):
  flag, path = f"--init_from={init_from}", pathlib.Path(init_from)
  if not init_from or not path.exists():
    raise UserError(f"{flag}: no such folder; expected a SavedModel that maml_tf exported, <run>/saved_model")
  if not path.is_dir():
    raise UserError(f"{flag}: this is a file; expected a SavedModel, a folder with saved_model.pb in it")
  if not (path / "saved_model.pb").is_file():
    raise UserError(f"{flag}: no SavedModel in this folder; expected one with saved_model.pb in it")
