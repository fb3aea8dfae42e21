"""What this package stands on, from what is installed: the licences as a list, and an SBOM (CycloneDX 1.5).

`python scripts/supply_chain.py` writes docs/licences.md and prints the SBOM; `--check` says what is stale.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from importlib.metadata import Distribution, distribution
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
LICENCES = ROOT / "docs" / "licences.md"
NAME = "lan-cluster-simulator"
HEAD = """# Licences

What `pip install .` brings along, with the licence that each says of itself. Made by `python scripts/supply_chain.py`, which
prints an SBOM (CycloneDX 1.5, JSON) too; `requirements.lock` holds the hashes of all files of all of them.

| package | version | licence |
|---|---|---|
"""


def needed(name: str = NAME, seen: set[str] | None = None) -> Iterator[Distribution]:
    """The distribution and all that it needs here, extras left out, each once."""
    seen = set() if seen is None else seen
    found = distribution(name)
    seen.add(_normal(name))
    yield found
    for text in found.requires or ():
        wanted = Requirement(text)
        if _normal(wanted.name) in seen or (wanted.marker and not wanted.marker.evaluate({"extra": ""})):
            continue
        yield from needed(wanted.name, seen)


def licence(found: Distribution) -> str:
    """The SPDX expression where there is one, else the classifier, else the first line of what is said."""
    about = found.metadata
    classified = [
        line.rpartition(" :: ")[2] for line in about.get_all("Classifier") or () if "License ::" in line
    ]
    said = (about.get("License-Expression"), *classified, about.get("License"), "unknown")
    return next(text for text in said if text).splitlines()[0]


def licences() -> str:
    """The list as Markdown; of ourselves the version is left out, as it moves with each release."""
    rows = sorted(
        (_normal(one.name), one.version, licence(one)) for one in needed() if _normal(one.name) != NAME
    )
    return HEAD + "".join(f"| {name} | {version} | {text} |\n" for name, version, text in rows)


def sbom() -> dict[str, Any]:
    """The same as a CycloneDX document, with who needs whom."""
    found = {_normal(one.name): one for one in needed()}
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"component": _component(found[NAME], "application")},
        "components": [_component(one, "library") for name, one in sorted(found.items()) if name != NAME],
        "dependencies": [
            {
                "ref": _purl(one),
                "dependsOn": sorted(
                    _purl(found[name])
                    for name in {_normal(Requirement(text).name) for text in one.requires or ()}
                    if name in found and name != _normal(one.name)
                ),
            }
            for _, one in sorted(found.items())
        ],
    }


def _component(found: Distribution, kind: str) -> dict[str, Any]:
    said = licence(found)
    is_expression = bool(found.metadata.get("License-Expression"))
    named = {"expression": said} if is_expression else {"license": {"name": said}}
    return {
        "type": kind,
        "bom-ref": _purl(found),
        "name": found.name,
        "version": found.version,
        "purl": _purl(found),
        "licenses": [named],
    }


def _purl(found: Distribution) -> str:
    return f"pkg:pypi/{_normal(found.name)}@{found.version}"


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def main() -> None:
    """Write the list and print the SBOM, or with --check only say whether the list is stale."""
    if "--check" in sys.argv:
        sys.exit(0 if LICENCES.read_text(encoding="utf-8") == licences() else f"{LICENCES} is stale")
    LICENCES.write_text(licences(), encoding="utf-8")
    print(json.dumps(sbom(), indent=2))


if __name__ == "__main__":
    main()
