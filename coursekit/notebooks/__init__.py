"""Exercises: built from one source, checked for leaks, tested where the learner works."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
