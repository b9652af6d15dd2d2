"""Training on several processes: start them, average over them, count what they send."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

# Not lazily: the function and its module share a name, and whichever is imported last would own it. The
# module imports no torch.
from .launch import launch as launch  # noqa: E402
