"""Stands for `genvla` where a test is about the sweep alone: what a run leaves behind is copied from a folder that was prepared.

fake_genvla.py PREPARED fit|evaluate ...      PREPARED/plan.json says how the calls for a cell end, one after the other
"""

import json
import os
import shutil
import sys
from pathlib import Path

prepared, command, *words = Path(sys.argv[1]), *sys.argv[2:]
options = dict(word.removeprefix("--").split("=", 1) for word in words if "=" in word)
if "--resume" in words:
    options["run_dir"] = words[words.index("--resume") + 1]
if "--print_config" in words:
    if "nonsense" in options:
        print("genvla: error: Unknown option: nonsense", file=sys.stderr)
        sys.exit(2)
    sys.exit(0)
if hasattr(os, "sched_getaffinity"):
    with (prepared / "cores").open("a") as cores:
        cores.write(json.dumps(sorted(os.sched_getaffinity(0))) + "\n")
with (prepared / "calls").open("a") as calls:
    calls.write(json.dumps([command, *words]) + "\n")
if command == "evaluate":
    cell = Path(options["checkpoint"]).parent.parent.name
    Path(options["output"]).mkdir(parents=True)
    shutil.copy(prepared / cell / "evaluation" / "iteration_000012_heldout.json", Path(options["output"]) / "results.json")
    sys.exit(0)
run = Path(options["run_dir"])
plan = json.loads((prepared / "plan.json").read_text())
ending = 0
if plan.get(run.name):  # only then is it written: what a run beside this one has changed meanwhile is to stay
    ending = plan[run.name].pop(0)
    changed = prepared / f"plan.{run.name}"
    changed.write_text(json.dumps(plan))
    changed.replace(prepared / "plan.json")  # another run may be reading it
if ending:
    if ending != 1:  # stopped on its way, where a resume can go on
        run.mkdir(parents=True, exist_ok=True)
        (run / "config.yaml").write_text("")
    print(f"boom {ending}")
    sys.exit(ending)
shutil.copytree(prepared / run.name, run, dirs_exist_ok=True)
