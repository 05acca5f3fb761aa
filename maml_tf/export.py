"""SavedModels that adapt: written here, used with TensorFlow alone."""

import itertools
import json
import os
import pathlib
import shutil
import sys
import tempfile
from typing import Any

import tensorflow as tf

from maml_tf import checksums, pixels, randomness, tracing
from maml_tf.algorithms.base import completed
from maml_tf.errors import UserError

FORMAT_VERSION = 1
EXPORTED_BN_MODES = ("support", "transductive")


class ExportedModule(tf.Module):
  """What `save_module` writes.

  Attributes:
    saved_signatures: dict of name -> function of named tensors, for servers; None: none.
  """

  saved_signatures = None


class AdaptationModule(ExportedModule):
  """An initialisation together with the computations that adapt it and predict.

  Noise, where the algorithm draws any, is always the same: its seed is 0. Where its inputs are pictures, it has
  `prepare` as well, which makes inputs of them: `pictures.prepare`.

  Args:
    algorithm: of `algorithms.base`: `MAML` or a relative.
    weights: dict of name -> tensor: the meta-learned initialisation.
    specs: `TaskBatch` of `tf.TensorSpec` of one task (`TaskDistribution.specs`); the number of examples is left free.
    metadata: JSON-able dict that travels with the artefact; "pictures" in it is a `picture_metadata`.
    stored_dtype: of the weights in the file, tf.float16 for half the size; what it computes with and gives out has the
      dtype of `weights`. None: the same.
    bn_mode: whose statistics normalise query examples: "support", those of the support set under the adapted weights,
      so that one example can be asked at a time; or "transductive", the query examples' own, as published. One
      that was trained with running averages keeps those.
  """

  def __init__(self, algorithm, weights, specs, metadata=None, stored_dtype=None, bn_mode="support"):
    super().__init__(name="adaptation")
    if bn_mode not in EXPORTED_BN_MODES:
      raise UserError(f"export_bn_mode={bn_mode}: expected one of {', '.join(EXPORTED_BN_MODES)}")
    for name in ("support_x", "support_y"):
      if not isinstance(getattr(specs, name), tf.TensorSpec):
        raise UserError(
          f"{name}: it has several parts, and a SavedModel here takes one input and one kind of label; keep weights "
          "of such a model with to_keras(weights).save(path)"
        )
    algorithm = completed(algorithm).exported(bn_mode)
    dtype = next(iter(weights.values())).dtype
    self._weights = {
      name: tf.Variable(tf.cast(value, stored_dtype or dtype), name=name.replace("/", "_"))
      for name, value in weights.items()
    }
    self._fixed = list(algorithm.fixed_variables)
    specs = _Specs(specs, dtype)
    self._trace_initialization(dtype)
    metadata = _description(algorithm, weights, specs) | (metadata or {})
    self._default_steps = metadata["default_steps"]
    adapted = self._trace_adaptation(algorithm, specs)
    outputs = self._trace_prediction(algorithm, [*algorithm.ready_tasks(weights), adapted], specs)
    self._trace_metadata(metadata | {"outputs": outputs})
    if "pictures" in metadata:
      self._trace_preparation(metadata["pictures"], specs)
    self.saved_signatures = {"adapt_and_predict": self._signature(specs)}

  def _trace_initialization(self, dtype):
    @tracing.function
    def initialization():
      return {name: tf.cast(tf.identity(variable), dtype) for name, variable in self._weights.items()}

    initialization.get_concrete_function()
    self.initialization = initialization

  def _trace_metadata(self, metadata):
    text = json.dumps(metadata)

    @tracing.function
    def metadata_json():
      return tf.constant(text)

    metadata_json.get_concrete_function()
    self.metadata_json = metadata_json

  def _trace_adaptation(self, algorithm, specs):
    """Returns what `adapt` returns, a nest of symbolic tensors."""

    @tracing.function
    def adapt_traced_once(support_x, support_y, num_updates):
      support = support_x[tf.newaxis], support_y[tf.newaxis]
      task = algorithm.adapt_final(self.initialization(), *support, num_updates, randomness.make_seed(0))
      return tf.nest.map_structure(lambda value: value[0], task)

    @tracing.function
    def adapt(support_x, support_y, num_updates=self._default_steps):
      return adapt_traced_once(support_x, tf.cast(support_y, specs.labels[0].dtype), tf.cast(num_updates, tf.int32))

    for labels, steps in itertools.product(specs.labels, [self._default_steps, *specs.steps]):
      adapted = adapt.get_concrete_function(specs.x, labels, steps).structured_outputs
    self.adapt = adapt
    return adapted

  def _trace_prediction(self, algorithm, tasks, specs):
    """Returns the shape of one output, a list; None where an algorithm gives several, or of no fixed size."""

    @tracing.function
    def predict(weights, x):
      with tf.control_dependencies([_warning_of_one(x)] if algorithm.shares_statistics() else []):
        return algorithm.predict_one(weights, x)

    @tracing.function
    def adapt_and_predict(support_x, support_y, query_x, num_updates=self._default_steps):
      return predict(self.adapt(support_x, support_y, num_updates), query_x)

    for task in tasks:
      predict.get_concrete_function(_specs_of(task), specs.x)
    for labels, steps in itertools.product(specs.labels, [self._default_steps, *specs.steps]):
      outputs = adapt_and_predict.get_concrete_function(specs.x, labels, specs.x, steps).structured_outputs
    self.predict, self.adapt_and_predict = predict, adapt_and_predict
    return outputs.shape[1:].as_list() if tf.is_tensor(outputs) else None

  def _trace_preparation(self, described, specs):
    height, width, channels = specs.x.shape[1:]

    @tracing.function
    def prepare(pictures):
      return pixels.prepare(pictures, (height, width), channels, described["range"], described["inverted"])

    for dtype, given in itertools.product((tf.uint8, tf.float32), (1, 3)):
      prepare.get_concrete_function(tf.TensorSpec([None, None, None, given], dtype))
    self.prepare = prepare

  def _signature(self, specs):
    arguments = {"support_x": specs.x, "support_y": specs.labels[0], "query_x": specs.x, "num_updates": specs.steps[0]}
    named = [tf.TensorSpec(spec.shape, spec.dtype, name=name) for name, spec in arguments.items()]

    @tracing.function(input_signature=named)
    def signature(support_x, support_y, query_x, num_updates):
      return {"outputs": self.adapt_and_predict(support_x, support_y, query_x, num_updates)}

    return signature


class _Specs:
  """What the functions are traced with. A loaded function accepts no other dtypes: integers get both usual widths."""

  def __init__(self, task, dtype):
    x_dtype = dtype if task.support_x.dtype.is_floating else task.support_x.dtype
    self.x = tf.TensorSpec([None, *task.support_x.shape[1:]], x_dtype)
    y_shape, y_dtype = [None, *task.support_y.shape[1:]], task.support_y.dtype
    self.labels = [tf.TensorSpec(y_shape, d) for d in ([tf.int64, tf.int32] if y_dtype.is_integer else [y_dtype])]
    self.steps = [tf.TensorSpec([], tf.int32), tf.TensorSpec([], tf.int64)]


def _warning_of_one(x):
  """Says on stderr that one example is normalised by itself, where it is alone."""

  def warn():
    return tf.print(
      "maml_tf: one query example is normalised by its own statistics, which says little about its class; ask for "
      "several at once, or export the model anew with bn_mode=support",
      output_stream=sys.stderr,
    )

  return tf.cond(tf.equal(tf.shape(x)[0], 1), warn, tf.no_op)


def _specs_of(nest):
  return tf.nest.map_structure(lambda value: tf.TensorSpec(value.shape, value.dtype), nest)


def picture_metadata(range: tuple[float, float] = (0.0, 1.0), inverted: bool = False) -> dict:
  """What has to be known to make inputs of pictures, as the "pictures" of an artefact's metadata.

  Args:
    range: (value of black, value of white).
    inverted: whether dark pixels get the high values (ink is 1), rather than the light ones.

  Raises:
    ValueError: no such range.
  """
  low, high = map(float, range)
  if not low < high:
    raise ValueError(f"pictures: range is ({low:g}, {high:g}), expected (low, high)")
  return {"range": [low, high], "inverted": bool(inverted)}


def _description(algorithm, weights, specs):
  """What `load_initialization` needs to know, and what a task looks like."""
  optional = algorithm.optional_names(weights)
  return {
    "format_version": FORMAT_VERSION,
    "weights": list(weights),
    "model_weights": [name for name in weights if name not in optional],
    "has_steps": algorithm.has_steps,
    "default_steps": int(getattr(algorithm, "num_updates", 1)) if algorithm.has_steps else 0,
    "inputs": {"shape": specs.x.shape[1:].as_list(), "dtype": specs.x.dtype.name},
    "labels": {"shape": specs.labels[0].shape[1:].as_list(), "dtype": specs.labels[0].dtype.name},
    "normalises_queries_by": "their own statistics" if algorithm.shares_statistics() else "statistics known before",
  }


def save(learner: Any, state: dict, path: str | os.PathLike) -> None:
  """Writes the SavedModel of a learner's state, whole or not at all; an older one at `path` is replaced.

  Args:
    learner: a `Learner`.
    state: its state.
    path: folder to write.
  """
  save_module(learner.export_module(state), path)


def save_module(module: ExportedModule, path: str | os.PathLike) -> None:
  """Writes a SavedModel, whole or not at all; an older one at `path` is replaced.

  Args:
    module: a `tf.Module` whose functions are traced; an `ExportedModule` has signatures as well.
    path: folder to write.
  """
  path = pathlib.Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  temporary = pathlib.Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
  try:
    signatures = module.saved_signatures if isinstance(module, ExportedModule) else None
    tf.saved_model.save(module, str(temporary / "new"), signatures=signatures)
    checksums.write(temporary / "new")
    if path.exists():
      os.replace(path, temporary / "old")
    os.replace(temporary / "new", path)
  finally:
    shutil.rmtree(temporary, ignore_errors=True)


def load_initialization(
  path: str | os.PathLike, expected_shapes: dict | None = None, optional_shapes: dict | None = None
) -> tuple[dict[str, tf.Tensor], dict]:
  """Reads the initialisation of a SavedModel that `save` wrote.

  Args:
    path: its folder.
    expected_shapes: dict of name -> shape that the model's weights have to match; None: anything goes.
    optional_shapes: likewise of what an algorithm keeps beside them (learned step sizes, running statistics): returned
      where it is there; what is not named is left out.

  Returns:
    (dict of name -> tensor, metadata dict).

  Raises:
    UserError: not a SavedModel of this package, damaged, of a newer format, or of another architecture.
  """
  _, weights, metadata = load_module(path)
  if expected_shapes is not None:
    found = {n: tuple(weights[n].shape) for n in metadata["model_weights"]}
    check_shapes(path, found, expected_shapes)
    optional = {n: shape for n, shape in (optional_shapes or {}).items() if n in weights}
    check_shapes(path, {n: tuple(weights[n].shape) for n in optional}, optional)
    weights = {name: weights[name] for name in (*expected_shapes, *optional)}
  return weights, metadata


def load_module(path: str | os.PathLike) -> tuple[Any, dict[str, tf.Tensor], dict]:
  """(module, its initialisation: dict of name -> tensor, metadata dict) of a SavedModel that `save` wrote.

  Raises:
    UserError: not a SavedModel of this package, damaged, or of a newer format.
  """
  if not (pathlib.Path(path) / "saved_model.pb").is_file():
    raise UserError(f"{path}: no SavedModel here (a folder with saved_model.pb was expected)")
  damage = checksums.problem(path, required=False)  # exports had none at first
  if damage is not None:
    raise UserError(f"{path}: this SavedModel is damaged: {damage}; copy or export it anew")
  try:
    module = tf.saved_model.load(str(path))
    loaded = module.initialization()
    metadata = json.loads(module.metadata_json().numpy())
    weights = {name: loaded[name] for name in metadata["weights"]}  # a SavedModel forgets the order of a dict
  except Exception as error:
    first_line = str(error).strip().split("\n")[0]
    raise UserError(f"{path}: not a SavedModel that maml_tf exported ({first_line})") from error
  if metadata["format_version"] > FORMAT_VERSION:
    raise UserError(
      f"{path}: its format version is {metadata['format_version']}, this package reads up to "
      f"{FORMAT_VERSION}; install a newer maml_tf"
    )
  return module, weights, metadata


def check_shapes(path, found, expected):
  """Refuses weights of another architecture than expected; both are dicts of name -> shape.

  Raises:
    UserError: the message begins with `path`.
  """
  for name, shape in expected.items():
    if name not in found:
      raise UserError(f"{path}: another architecture: it has no weight {name}, which this model needs")
    if found[name] != tuple(shape):
      raise UserError(f"{path}: another architecture: {name} is {found[name]}, this model needs {tuple(shape)}")
  extra = [name for name in found if name not in expected]
  if extra:
    raise UserError(f"{path}: another architecture: it has a weight {extra[0]}, which this model lacks")


def __getattr__(name):
  """The import of TensorFlow 1 checkpoints, by the name that it had before it was a module of its own."""
  if name in ("import_tf1_checkpoint", "read_tf1_checkpoint"):
    from maml_tf import tf1_import

    return getattr(tf1_import, name)
  raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
