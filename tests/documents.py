"""The project's pages in Markdown: their code blocks, headings, links and code in the text, as GitHub shows them."""

import os
import pathlib
import re
from typing import NamedTuple

ROOT = pathlib.Path(__file__).parents[1]
NOT_OURS = ("build", "dist", "logs", "site", "venv")  # as in .gitignore; hidden folders are not looked into either


class Block(NamedTuple):
  language: str
  text: str
  line: int


def pages():
  """Every page in the project, wherever it lies, in the order of its names."""
  found = []
  for folder, folders, files in os.walk(ROOT):
    folders[:] = [name for name in folders if not name.startswith(".") and name not in NOT_OURS]
    found += [pathlib.Path(folder, name) for name in files if name.lower().endswith((".md", ".markdown"))]
  return sorted(found)


def name_of(page):
  return page.relative_to(ROOT).as_posix()


def read(page):
  return page.read_text(encoding="utf-8")


def blocks(text):
  """The fenced code blocks, those in lists (indented) and between tildes too."""
  found, opened = [], None
  for number, line in enumerate(text.split("\n"), start=1):
    fence = re.match(r"^( *)(`{3,}|~{3,}) *([^`]*)$", line)
    if opened is None and fence:
      opened, lines = (fence[2], fence[3].strip(), number, len(fence[1])), []
    elif opened and fence and not fence[3] and fence[2].startswith(opened[0]):
      found.append(Block(opened[1], "\n".join(lines) + "\n", opened[2]))
      opened = None
    elif opened:
      lines.append(line[min(opened[3], len(line) - len(line.lstrip(" "))) :])
  assert opened is None, f"line {opened[2]}: a code block that does not end"
  return found


def prose(text):
  """The text without its code blocks."""
  lines, inside = [], False
  for line in text.split("\n"):
    fence = re.match(r"^ *(`{3,}|~{3,})", line)
    inside = inside != bool(fence)
    lines += [] if fence or inside else [line]
  return "\n".join(lines)


def code_spans(text):
  """What stands between backticks in the text; a span may go over the end of a line."""
  return [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", prose(text))]


def links(text):
  """Targets of links and images, and of references."""
  plain = re.sub(r"`[^`]+`", "", prose(text))
  return re.findall(r"\]\(([^)\s]+)[^)]*\)", plain) + re.findall(r"^\[[^\]]+\]: *(\S+)", plain, re.MULTILINE)


def anchors(text):
  """The anchors that GitHub gives to headings."""
  found = []
  for heading in re.findall(r"^#{1,6} +(.*?) *#*$", prose(text), re.MULTILINE):
    plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
    slug = re.sub(r"[^\w\- ]", "", plain.lower()).replace(" ", "-")
    again = sum(re.fullmatch(rf"{re.escape(slug)}(-\d+)?", earlier) is not None for earlier in found)
    found.append(f"{slug}-{again}" if again else slug)
  return found
