"""The house: what may import what, how long a file may be, and who knows of flags; read from the source itself."""

import ast
import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).parents[1]

# From the ground up. A module imports from floors below its own, and from its own floor without going in a circle.
FLOORS = (
  ("maml_tf.errors", "maml_tf.progress", "maml_tf.startup", "maml_tf.tracing", "maml_tf.randomness",
   "maml_tf.checksums", "maml_tf.linear", "maml_tf.memory", "maml_tf.pixels", "maml_tf.regular_files",
   "maml_tf.saved_models"),
  ("maml_tf.losses", "maml_tf.models", "maml_tf.tasks", "maml_tf.datasets"),
  ("maml_tf.maml", "maml_tf.over_tasks", "maml_tf.gradient_check"),
  ("maml_tf.algorithms",),
  ("maml_tf.training", "maml_tf.evaluation", "maml_tf.export", "maml_tf.tf1_import"),
  ("maml_tf.front", "maml_tf.gradient_check", "maml_tf.loading", "maml_tf.pictures", "maml_tf.contact_sheet",
   "maml_tf.demo"),
  ("maml_tf.online", "maml_tf.rl"),
  ("maml_tf.experiments",),
  ("maml_tf.results",),
  ("scripts", "benchmarks", "maml_tf.__main__"),
)  # fmt: skip
# Of functions that import when they are called.
LAZY_EXCEPTIONS = {
  ("maml_tf.export", "maml_tf.tf1_import"): "the module's name of before, kept for its users",
}
IMPORTED_BY_NAME = {"maml_tf": "the package, whose public names load on first use"}
MOST_LINES = {"maml_tf/maml.py": 349, "maml_tf": 400, "scripts": 99}


def sources(*folders):
  return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


FILES = sources("maml_tf", "scripts", "benchmarks")


def module_of(path):
  parts = path.relative_to(ROOT).with_suffix("").parts
  return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path): path for path in FILES}


def floor_of(module):
  for height, names in enumerate(FLOORS):
    if any(module == name or module.startswith(f"{name}.") for name in names):
      return height
  return None


def resolved(name):
  """The longest beginning of a dotted name that is a module here; None: it is somebody else's."""
  while name and name not in MODULES:
    name = name.rpartition(".")[0]
  return name or None


def imports(path):
  """(module that is imported, whether by the statement at the top of the file) for each import in a file."""
  tree = ast.parse(path.read_text(encoding="utf-8"))
  inside = {id(n) for function in ast.walk(tree) if isinstance(function, ast.FunctionDef) for n in ast.walk(function)}
  for node in ast.walk(tree):
    if isinstance(node, ast.Import):
      names = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom):
      assert node.level == 0, f"{path}: a relative import"
      names = [f"{node.module}.{alias.name}" for alias in node.names]
    else:
      continue
    for name in names:
      yield name, id(node) not in inside
  # Records name their implementations, "module:Class", and load them on first use.
  for node in ast.walk(tree):
    if (
      isinstance(node, ast.Constant) and isinstance(node.value, str) and re.fullmatch(r"maml_tf[\w.]*:\w+", node.value)
    ):
      yield node.value.partition(":")[0], False


def of_this_project(path):
  """(module here, whether at the top) for each import, by the module's own name."""
  for name, at_the_top in imports(path):
    if path.parts[-2] == "scripts" and f"scripts.{name.partition('.')[0]}" in MODULES:
      name = f"scripts.{name.partition('.')[0]}"
    module = resolved(name)
    if module is not None:
      yield module, at_the_top


@pytest.mark.parametrize("module", [name for name in MODULES if name != "maml_tf"])
def test_imports_run_downward(module):
  own = floor_of(module)
  assert own is not None, f"{module} is on no floor: add it to FLOORS"
  for other, at_the_top in of_this_project(MODULES[module]):
    if other in IMPORTED_BY_NAME or (not at_the_top and (module, other) in LAZY_EXCEPTIONS):
      continue
    assert floor_of(other) <= own, f"{module} imports {other}, which is above it"


def test_public_names_are_looked_up_below():
  """`from maml_tf import evaluation` is an import of `maml_tf.evaluation`, and `MAML` of its module."""
  for path in FILES:
    for name, at_the_top in imports(path):
      if name == "maml_tf.MAML":
        assert floor_of(module_of(path)) >= floor_of("maml_tf.front") or not at_the_top, path


def test_nothing_imports_in_a_circle():
  above = {m: {o for o, at_the_top in of_this_project(p) if at_the_top and o != m} for m, p in MODULES.items()}
  finished, open_now = set(), []

  def visit(module):
    assert module not in open_now, " -> ".join([*open_now[open_now.index(module) :], module])
    if module in finished:
      return
    open_now.append(module)
    for other in sorted(above[module]):
      visit(other)
    finished.add(open_now.pop())

  for module in MODULES:
    visit(module)


def test_the_exceptions_are_there():
  for module, other in LAZY_EXCEPTIONS:
    assert (other, False) in set(of_this_project(MODULES[module]))


@pytest.mark.parametrize("path", sources("maml_tf", "scripts"), ids=lambda path: str(path.relative_to(ROOT)))
def test_no_file_is_too_long(path):
  name = str(path.relative_to(ROOT))
  most = MOST_LINES.get(name, MOST_LINES[path.relative_to(ROOT).parts[0]])
  assert len(path.read_text(encoding="utf-8").splitlines()) <= most


def docstrings(tree):
  documented = (ast.Module, ast.ClassDef, ast.FunctionDef)
  return {id(node.body[0].value) for node in ast.walk(tree) if isinstance(node, documented) and ast.get_docstring(node)}


@pytest.mark.parametrize(
  "module", [name for name in MODULES if (floor_of(name) or 0) < floor_of("maml_tf.experiments")]
)
def test_a_library_says_arguments_and_not_flags(module):
  """Its errors name arguments; the experiments turn them into flags (`config.in_flags`)."""
  tree = ast.parse(MODULES[module].read_text(encoding="utf-8"))
  spared = docstrings(tree)
  for node in ast.walk(tree):
    if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in spared:
      assert not re.search(r"(^|[\s(])--[a-z]", node.value), f"{module}, line {node.lineno}: {node.value}"
