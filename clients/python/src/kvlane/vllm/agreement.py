"""The namespace: agreed with the store before anything is claimed or stored, and given a new generation by reset_cache.

Polled from the hooks, never waited for, except by reset_cache and then for its budget only. Surprising: a reset that could
not be written down yet is as good as done for this engine: without an agreed namespace nothing is claimed or stored, and
the next thing that is asked of the store is the new generation.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from ..errors import KvlaneError
from ..results import NamespaceResult
from .fingerprint import Identity

if TYPE_CHECKING:
    from .._pending import Task
    from ..client import Client

ASK_TIMEOUT_MS = 1000
"""Of one try; a mount that is slower is asked again."""
BACKOFF_FIRST_US = 50_000
BACKOFF_MAX_US = 500_000
"""Between tries. Short, so that a mount that is back serves within a second; each costs one line."""


class Agreement:
    def __init__(
        self,
        client: Client,
        identify: Callable[[], Identity | None],
        say: Callable[[str], None],
        now_us: Callable[[], int],
    ) -> None:
        self.key_namespace: str | None = None
        """With its generation. None: not agreed."""
        self.refusal = ""
        """Why there never will be one."""
        self._client = client
        self._identify = identify
        self._say = say
        self._now_us = now_us
        self._identity: Identity | None = None
        self._task: Task[NamespaceResult] | None = None
        self._bump = False
        self._asked_bump = False
        self._backoff_us = BACKOFF_FIRST_US
        self._next_us = 0

    def poll(self) -> str | None:
        """Moves on as far as it goes without waiting. Returns the agreed namespace."""
        if self._task is not None and self._task.result is not None:
            result, self._task = self._task.result, None
            self._hear(result)
        if self.key_namespace is None and self._task is None and not self.refusal:
            self._ask()
        return self.key_namespace

    def reset(self, wait_ms: float) -> bool:
        """A new generation. False: not answered yet; it goes on trying."""
        if self.refusal:
            return True  # nothing is ever served or stored
        self._bump, self.key_namespace = True, None
        self._task = None  # the answer to a former question is of no use
        self._next_us, self._backoff_us = 0, BACKOFF_FIRST_US
        self.poll()
        asked = self._in_flight()
        if asked is not None:
            self._client.wait(asked, wait_ms)
            if asked.result is None:
                return False
            self.poll()
        return self.key_namespace is not None

    def _in_flight(self) -> Task[NamespaceResult] | None:
        return self._task

    def _ask(self) -> None:
        if self._now_us() < self._next_us:
            return
        if self._identity is None:
            self._identity = self._identify()
            if self._identity is None:
                return
            if self._identity.warning:
                self._say(self._identity.warning)
        identity = self._identity
        self._asked_bump = self._bump
        self._next_us = self._now_us() + self._backoff_us  # a refusal comes at once, and is not asked again at once
        self._backoff_us = min(2 * self._backoff_us, BACKOFF_MAX_US)
        try:
            self._task = self._client.namespace(
                identity.name, identity.fingerprint, bump=self._bump, timeout_ms=ASK_TIMEOUT_MS
            )
        except KvlaneError as error:
            self._refuse(f"the namespace {identity.name} cannot be asked for: {error}")
            return
        if self._task.result is not None:
            result, self._task = self._task.result, None
            self._hear(result)

    def _hear(self, result: NamespaceResult) -> None:
        name = self._identity.name if self._identity is not None else "?"
        if not result.ok:
            if result.code == "INVALID_REQUEST":
                self._refuse(f"the store refuses the namespace {name}: {result.message}")
            return
        if result.state == "differs":
            self._refuse(
                f"the namespace {name} holds blocks of another configuration; set the option namespace to another name, "
                "or remove that namespace from the store"
            )
            return
        if self._asked_bump != self._bump:
            return  # a reset came in between: its generation is still to come
        self._bump = False
        self.key_namespace = result.key_namespace
        self._backoff_us = BACKOFF_FIRST_US

    def _refuse(self, why: str) -> None:
        self.refusal = why
        self._say(why)
