"""Make `schemas/vectors/*.json`, or with `--check` see that they are what would be made.

HPKE draws its own randomness, so sealed Welcomes are read from the files that are there; `--reseal` makes them anew.

    python tests/schemas/generate_vectors.py [--check] [--reseal]
"""

from __future__ import annotations

import argparse
import json
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from schemas.scenarios import basics, commits, handovers, members, messages, refused, welcomes

FOLDER = pathlib.Path(__file__).parents[2] / "schemas" / "vectors"


def main(arguments: list[str]) -> int:
    """Write or compare; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare instead of writing; 1 if they differ")
    parser.add_argument("--reseal", action="store_true", help="seal Welcomes anew")
    options = parser.parse_args(arguments)
    if options.reseal:
        welcomes.reseal()
    made = make()
    there = {path.stem: path.read_text() for path in FOLDER.glob("*.json")}
    wrong = sorted(name for name in made.keys() | there.keys() if made.get(name) != there.get(name))
    if options.check:
        print("\n".join(wrong) if wrong else f"{len(made)} vectors are what they should be")  # noqa: T201 - a command
        return 1 if wrong else 0
    for name in wrong:
        path = FOLDER / f"{name}.json"
        if name in made:
            path.write_text(made[name])
        else:
            path.unlink()
    print(f"{len(made)} vectors, {len(wrong)} changed")  # noqa: T201 - a command
    return 0


def make() -> dict[str, str]:
    """Return the text of each vector's file."""
    texts: dict[str, str] = {}
    for room in (basics, messages, refused, welcomes, commits, members, handovers):
        for vector in room.vectors():
            assert vector.name not in texts, vector.name
            texts[vector.name] = json.dumps(vector.fields, indent=1) + "\n"
    return texts


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
