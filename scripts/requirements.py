"""Print the requirements of pyproject.toml's build system and extras, one a line.

The Makefile installs them before the project is built, so that the build needs no environment of
its own and `make lint` needs no build at all.
"""

import re
import sys
from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib
else:
    from pip._vendor import tomli as tomllib

project = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))
extras = project["project"]["optional-dependencies"]


def expand(requirement: str) -> list[str]:
    inner = re.fullmatch(r"restorert\[([\w,-]+)\]", requirement)
    if not inner:
        return [requirement]
    return [r for name in inner[1].split(",") for entry in extras[name] for r in expand(entry)]


wanted = list(project["project"]["dependencies"])
for group in sys.argv[1:]:
    if group == "build":
        wanted += [*project["build-system"]["requires"], "cmake>=3.22", "ninja"]
    else:
        wanted += [r for entry in extras[group] for r in expand(entry)]
print("\n".join(dict.fromkeys(wanted)))
