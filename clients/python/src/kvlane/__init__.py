"""kvlane: KV cache blocks in and out of a mounted file system, every request answered by its deadline.

`Client` for threads, `AsyncClient` for asyncio; `kvlane.testing` has a sidecar that does what a test tells it.
"""

from ._arena import Slot, SlotState
from ._budget import Budgets, SlotClass
from ._core import State
from ._messages import PROTOCOL
from ._messages import VERSION as __version__
from ._pending import Task
from .aio import AsyncClient
from .client import Client
from .errors import (
    CallerMistake,
    ClientClosed,
    InvalidArgument,
    KvlaneError,
    NoAnswer,
    Saturated,
    SidecarGone,
    SlotNotLeased,
    StartFailed,
    TaskFailed,
    ThingThatHappened,
)
from .options import Options
from .results import (
    SIDECAR_GONE,
    BlocksResult,
    ControlResult,
    Failure,
    LookupResult,
    NamespaceResult,
    Result,
)

__all__ = [
    "PROTOCOL",
    "SIDECAR_GONE",
    "AsyncClient",
    "BlocksResult",
    "Budgets",
    "CallerMistake",
    "Client",
    "ClientClosed",
    "ControlResult",
    "Failure",
    "InvalidArgument",
    "KvlaneError",
    "LookupResult",
    "NamespaceResult",
    "NoAnswer",
    "Options",
    "Result",
    "Saturated",
    "SidecarGone",
    "Slot",
    "SlotClass",
    "SlotNotLeased",
    "SlotState",
    "StartFailed",
    "State",
    "Task",
    "TaskFailed",
    "ThingThatHappened",
    "__version__",
]
