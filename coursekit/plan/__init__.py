"""Will it fit, how long, on what: memory, compute and communication before the run, and this machine."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
