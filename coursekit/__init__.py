"""Training utilities, exercises and grading for a course on how large models are trained.

Subpackages load when they are first used: `import coursekit` imports neither torch nor tensorflow.
"""

import lazy_loader

__version__ = "0.2.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
