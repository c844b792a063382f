"""Every exception this package raises.

KvlaneError
├── CallerMistake           the call itself cannot be right; the same call never succeeds
│   ├── ClientClosed        the client was closed, or belongs to the process that forked this one
│   ├── InvalidArgument     an argument is out of range (also a ValueError)
│   └── SlotNotLeased       the slot is in flight, quarantined or given back
└── ThingThatHappened       the call was right, the world was not
    ├── StartFailed         no sidecar could be started; `code` says why, `log_tail` what it said
    ├── SidecarGone         there is no sidecar just now, or it died before it answered
    ├── Saturated           a cap is reached: slots, queued lines or abandoned arenas
    ├── NoAnswer            a question about the sidecar itself was not answered in time
    └── TaskFailed          only from `result.check()`

What happens to blocks is data, not an exception: an engine looks at `result.failed` and recomputes. Exceptions are for
misuse, for a client that is off, and for `check()`, which asks for one.
"""

from __future__ import annotations

__all__ = [
    "CallerMistake",
    "ClientClosed",
    "InvalidArgument",
    "KvlaneError",
    "NoAnswer",
    "Saturated",
    "SidecarGone",
    "SlotNotLeased",
    "StartFailed",
    "TaskFailed",
    "ThingThatHappened",
]


class KvlaneError(Exception):
    """Everything kvlane raises. `code` is stable, the wording is not."""

    code: str = "KVLANE_ERROR"


class CallerMistake(KvlaneError):
    """The call cannot be right."""

    code = "CALLER_MISTAKE"


class ClientClosed(CallerMistake):
    """The client was closed."""

    code = "CLIENT_CLOSED"


class InvalidArgument(CallerMistake, ValueError):
    """An argument is out of range; the message says what would be right."""

    code = "INVALID_ARGUMENT"


class SlotNotLeased(CallerMistake):
    """The slot's memory is not the caller's just now."""

    code = "SLOT_NOT_LEASED"


class ThingThatHappened(KvlaneError):
    """The call was right, the world was not."""

    code = "HAPPENED"


class StartFailed(ThingThatHappened):
    """No sidecar could be started."""

    def __init__(self, message: str, *, code: str = "START_FAILED", log_tail: tuple[str, ...] = ()) -> None:
        super().__init__(message + "".join(f"\n    {line}" for line in log_tail[-12:]))
        self.code = code
        self.log_tail = log_tail


class SidecarGone(ThingThatHappened):
    """There is no sidecar just now."""

    code = "SIDECAR_GONE"


class Saturated(ThingThatHappened):
    """A cap is reached; trying again at once does not help."""

    code = "SATURATED"


class NoAnswer(ThingThatHappened):
    """The sidecar did not answer a question about itself in time."""

    code = "DEADLINE_EXCEEDED"


class TaskFailed(ThingThatHappened):
    """A task did not succeed and the caller asked for an exception."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
