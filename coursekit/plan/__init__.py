"""Will it fit, how long, on what: memory, compute and communication before the run, and this machine.

The formulas stand in `coursekit.formulas`; here they take a shape, a layout and a recipe, and answer with a
breakdown that adds up.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
