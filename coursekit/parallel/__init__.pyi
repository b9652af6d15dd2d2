from .launch import RankError as RankError
from .launch import RankFailure as RankFailure
from .launch import RankTimeoutError as RankTimeoutError
from .launch import launch as launch
