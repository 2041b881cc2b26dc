"""Restore one picture.

python examples/picture.py in.png out.png [HINet-GoPro.pth]
"""

import sys

import restorert as rr

source, target, *weights = sys.argv[1:]
# A checkpoint as its authors publish it, or the network whose weights come with the package.
network = rr.load_network(weights[0] if weights else "hinet-tiny")
# Built for the best runner of this machine when the picture's size is known, and then cached.
# On a GPU add precision="fp16".
engine = rr.EngineOnDemand(network)
rr.restore_image(source, target, engine)
assert engine.engine is not None
print(engine.engine.describe())
