"""Writes the front of a run as a result to be committed: with the command, the machine and the date.

paredown search examples/cifar10/task.toml --out runs/resnet20
python benchmarks/record.py runs/resnet20 benchmarks/results/resnet20.json \\
    --command "paredown search examples/cifar10/task.toml"
"""

from __future__ import annotations

import argparse
import datetime
import json
from pathlib import Path

from paredown.search import open_run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--command", required=True)
    arguments = parser.parse_args()
    run = open_run(arguments.run)
    front = run.front().to_dict()
    del front["run"]
    manifest = json.loads((arguments.run / "verified" / "t0" / "manifest.json").read_text())
    finished = datetime.datetime.fromtimestamp((arguments.run / "ledger.log").stat().st_mtime, datetime.UTC)
    status = run.status()
    result = {
        "command": arguments.command,
        "date": finished.date().isoformat(),
        "machine": manifest["machine"],
        "seconds": {"all": status["spent_s"], **status["seconds"]},
        "trials": status["trials"],
        "front": front,
    }
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
