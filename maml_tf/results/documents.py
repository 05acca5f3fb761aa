"""Tables in documents: each stands below its mark, `<!-- table: NAME -->`, and is put there by `update`."""

import pathlib
import re

from maml_tf.errors import UserError

MARK = re.compile(r"<!-- table: (\w+) -->")
PLACES = ("README.md", "docs/*.md", "pretrained/README.md", "results/README.md")


def marked(root):
  """The documents of a checkout that have a mark: path -> names of their tables."""
  found = {}
  for path in (path for place in PLACES for path in sorted(pathlib.Path(root).glob(place))):
    names = [match[1] for line in path.read_text(encoding="utf-8").split("\n") if (match := MARK.fullmatch(line))]
    if names:
      found[path] = names
  return found


def update(root, make):
  """Puts the tables under their marks in all documents that have such; returns the paths of those that changed.

  Args:
    root: the checkout.
    make: function of names -> dict of name -> `Table`.
  """
  from maml_tf.training.checkpoints import write_atomically

  changed = []
  for path, new in renewed(root, make).items():
    if new != path.read_text(encoding="utf-8"):
      write_atomically(path, new)
      changed.append(path)
  return changed


def renewed(root, make):
  """Path -> text with the tables as they are now, of each document that has a mark.

  Raises:
    UserError: a mark of a table that there is not; the message names the document.
  """
  texts, root = {}, pathlib.Path(root)
  for path, names in marked(root).items():
    folder = path.parent.relative_to(root).as_posix()
    try:
      lines = {name: table.markdown(folder) for name, table in make(names).items()}
    except UserError as error:
      raise UserError(f"{path}: {error}") from error
    texts[path] = updated(path.read_text(encoding="utf-8"), lines)
  return texts


def updated(text, tables):
  """A document with each table (name -> lines) under its mark, in the place of the older one."""
  lines, new = text.split("\n"), []
  while lines:
    new.append(lines.pop(0))
    mark = MARK.fullmatch(new[-1])
    if mark:
      while lines and lines[0].startswith("|"):
        lines.pop(0)
      new += tables[mark[1]]
  return "\n".join(new)
