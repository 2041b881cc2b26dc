"""Picture files, and the arithmetic of pixels, tiles and padding. Needs numpy, but not torch.

It imports none of its modules: padding and tiles work on machines without picture codecs.
"""
