"""Fuzz the decoders under coverage guidance, by hand: python tests/fuzz/atheris_decoders.py -max_total_time=60.

Needs `pip install atheris`. The first byte of an input chooses the target; a corpus directory may be named as
libFuzzer's other options are. With TARGET=rekey in the environment only that target is fed.
"""

from __future__ import annotations

import os
import pathlib
import sys
import tempfile

import atheris  # type: ignore[import-not-found, import-untyped, unused-ignore] # not a dependency

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))

with atheris.instrument_imports(include=["brokerkm"]):
    from fuzz.targets import TARGETS, run, seeds

NAMES = [os.environ["TARGET"]] if "TARGET" in os.environ else list(TARGETS)


def feed(data: bytes) -> None:
    """Feed one input."""
    if data:
        run(NAMES[data[0] % len(NAMES)], data[1:])


def main() -> None:
    """Write the corpus to begin with, unless one is named, and fuzz."""
    with tempfile.TemporaryDirectory() as folder:
        arguments = list(sys.argv)
        if all(argument.startswith("-") for argument in arguments[1:]):
            for place, name in enumerate(NAMES):
                for number, data in enumerate(seeds(name)):
                    (pathlib.Path(folder) / f"{name}-{number}").write_bytes(bytes((place,)) + data)
            arguments.append(folder)
        atheris.Setup(arguments, feed)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
