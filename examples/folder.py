"""Restore every picture of a folder, with one engine for all of their sizes.

python examples/folder.py photos/ restored/
"""

import logging
import sys

import restorert as rr

# Shows each engine that is built, and what else the library has to say.
logging.basicConfig(level=logging.INFO, format="%(message)s")
source, target = sys.argv[1:]
# A picture that is larger than all before it makes it build again, in steps of 512 pixels.
engine = rr.EngineOnDemand(rr.load_network("hinet-tiny"))
# A picture that cannot be restored does not stop the others.
report = rr.restore_folder(
    source,
    target,
    engine,
    progress=lambda phase, share: print(f"{phase}: {share:.0%}"),
)
print(f"{len(report.restored)} restored")
for picture, error in report.failed.items():
    print(f"{picture}: {error}")
sys.exit(bool(report.failed))
