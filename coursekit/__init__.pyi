from . import errors as errors
from . import grading as grading
from . import notebooks as notebooks
from . import parallel as parallel
from . import plots as plots
from . import tf as tf
from . import train as train
from . import units as units
