"""The site beside GitHub: the pages link to files of the whole checkout, and the front page is README.md.

What a page links to outside of docs/ becomes a file of the site, under project/; README.md becomes its index.
"""

import os
import pathlib
import re

from mkdocs.structure.files import File

ROOT = pathlib.Path(__file__).parents[1]
LINK = re.compile(r"(?<=\]\()([^)\s#]+)(#[^)\s]*)?(?=\))")
ALSO = ("CONTRIBUTING.md", "CHANGELOG.md", "data/README.md", "results/README.md", "pretrained/README.md")


def place_of(path):
  """Where a file of the checkout, a path from its root, is in the site; None: nowhere."""
  if path == "README.md":
    return "index.md"
  if path.startswith("docs/"):
    return path.removeprefix("docs/")
  return f"project/{path}" if (ROOT / path).is_file() else None


def original_of(place):
  """The other way round."""
  if place == "index.md":
    return "README.md"
  return place.removeprefix("project/") if place.startswith("project/") else f"docs/{place}"


def on_files(files, config):
  """Adds the index, and what pages link to outside of docs/."""
  pages = [original_of(file.src_uri) for file in files.documentation_pages()] + ["README.md", *ALSO]
  linked = {"README.md", *ALSO}
  for page in pages:
    text = (ROOT / page).read_text(encoding="utf-8")
    linked |= {target for target in map(lambda m, p=page: resolved(p, m[1]), LINK.finditer(text)) if target}
  for path in sorted(linked):
    place = place_of(path)
    if place is not None and files.get_file_from_path(place) is None:
      files.append(File.generated(config, place, abs_src_path=str(ROOT / path)))
  return files


def on_page_markdown(markdown, page, config, files):
  """Turns links within the checkout into links within the site; one to a folder or to nothing stays as its text."""
  here = original_of(page.file.src_uri)
  base = os.path.dirname(page.file.src_uri)

  def target(match):
    path = resolved(here, match[1])
    place = place_of(path) if path else None
    return match[0] if place is None else os.path.relpath(place, base or ".") + (match[2] or "")

  return LINK.sub(target, markdown)


def resolved(page, target):
  """A link of a page as a path from the checkout's root; None where it leads elsewhere."""
  if re.match(r"[a-z]+:", target):
    return None
  path = os.path.normpath(os.path.join(os.path.dirname(page), target)).replace(os.sep, "/")
  return None if path.startswith("..") else path
