"""The campaign against faults in its long form. From the root of a checkout:

python -m tests.faults                                  # everything: 50 kills, every file, every damage: hours
python -m tests.faults --subjects=training,queue --kills=0 --repeats=3
python -m tests.faults --subjects= --kills=10           # only kills, full disks and two writers
"""

import argparse
import os
import pathlib
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
sys.path[:0] = [str(pathlib.Path(__file__).parent), str(pathlib.Path(__file__).parents[1])]

import campaign  # noqa: E402
import damage  # noqa: E402
import subjects  # noqa: E402


def main():
  parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__.splitlines()[0])
  parser.add_argument("--subjects", default=",".join(subjects.SUBJECTS), help="what to damage (default: %(default)s)")
  parser.add_argument("--damages", default=",".join(damage.KINDS), help="how (default: %(default)s)")
  parser.add_argument("--repeats", type=int, default=1, help="of each damage, at other places")
  parser.add_argument("--kills", type=int, default=50, help="shared by the domains (default: 50)")
  parser.add_argument("--domains", default=",".join(campaign.COMMANDS), help="to kill (default: %(default)s)")
  given = parser.parse_args()
  found = []

  def note(where, what):
    if what:
      found.append(where)
      print(f"FAULT {where}\n{what}", flush=True)

  for name in filter(None, given.subjects.split(",")):
    with campaign.temporary() as folder:
      case = campaign.Case(subjects.SUBJECTS[name](), folder)
      files = case.files()
      print(f"{name}: {len(files)} files", flush=True)
      for file in files:
        for kind in filter(None, given.damages.split(",")):
          for seed in range(given.repeats):
            note(f"{name} {file} {kind} {seed}", case.damaged(file, kind, seed))
      if name in ("training", "command"):
        for size in (0, 100, 2000, 8000):
          note(f"{name} full disk {size}", campaign.full_disk(case, size))
  domains = list(filter(None, given.domains.split(",")))
  for index, domain in enumerate(domains):
    share = given.kills // len(domains) + (index < given.kills % len(domains))
    with campaign.temporary() as folder:
      for what in campaign.killed_again_and_again(domain, folder, share) if share else []:
        note(f"kills {domain}", what)
  if given.kills:
    with campaign.temporary() as folder:
      for what in campaign.two_writers(folder):
        note("two writers", what)
  print(f"{len(found)} faults" if found else "no fault")
  return 1 if found else 0


if __name__ == "__main__":
  sys.exit(main())
