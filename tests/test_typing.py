"""The public names carry type hints, and the package says so."""

import inspect
import pathlib

import pytest

import maml_tf
from maml_tf import models, tasks

PUBLIC = {
  "MAML": maml_tf.MAML.__init__,
  "MAML.fit": maml_tf.MAML.fit,
  "load": maml_tf.load,
  "predict_folder": maml_tf.predict_folder,
  "from_arrays": tasks.from_arrays,
  "from_generator": tasks.from_generator,
  "sample": tasks.TaskDistribution.sample,
  "Episodes": tasks.Episodes.__init__,
  "Sinusoid": tasks.Sinusoid.__init__,
  "MLP": models.MLP.__init__,
  "ConvNet": models.ConvNet.__init__,
  "from_keras": models.from_keras,
  "apply": models.ExplicitModel.apply,
}


@pytest.mark.parametrize("function", PUBLIC.values(), ids=PUBLIC)
def test_every_argument_has_a_type(function):
  signature = inspect.signature(function)
  untyped = [name for name, p in signature.parameters.items() if name != "self" and p.annotation is p.empty]
  assert not untyped
  assert function.__name__ == "__init__" or signature.return_annotation is not signature.empty


def test_the_package_says_that_it_is_typed():
  assert (pathlib.Path(maml_tf.__file__).parent / "py.typed").is_file()
