"""Models to be read: a GPT with the parts of GPT-2 and of Llama as options, and a mixture of experts."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
