"""What clients do to the server: completions of given token ids, one endless stream, and /v1/models every 100 ms.

Everything runs in one event loop, which measures how late it is itself: what it saw late by its own fault is taken off the stream's gaps
and the polls (the server may have been that quick, and nobody can tell), and the table shows how much that is at most.
"""
from __future__ import annotations

import asyncio
import json
import random
import time
from dataclasses import dataclass, field

import aiohttp

from model import FIRST_TOKEN, VOCAB

PREFIX_TOKENS = 3000
ANSWER_TOKENS = 16
STREAM_PROMPT_TOKENS = 64
STREAM_TOKENS = 6000  # then the next one begins
POLL_S = 0.1
LAG_S = 0.02


def prompt(name: str, tokens: int = PREFIX_TOKENS) -> list[int]:
    """Different from its first token on for every name, the same in every run."""
    drawn = random.Random(name)
    return [drawn.randrange(FIRST_TOKEN, VOCAB) for _ in range(tokens)]


@dataclass
class Answer:
    name: str
    sent: float
    asked: int = ANSWER_TOKENS
    seconds: float | None = None  # None: not answered in time
    status: int = 0
    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    cached: int = 0
    prompt_tokens: int = 0
    error: str = ""

    @property
    def hit(self) -> bool:
        """More than half of the prompt was not computed. For a prompt that this server has not seen yet: it came from the store."""
        return self.status == 200 and self.cached > self.prompt_tokens / 2

    def same_as(self, other: Answer) -> bool:
        return self.status == 200 and len(self.tokens) == self.asked and self.tokens == other.tokens[: self.asked]

    def logprob_difference(self, other: Answer) -> float:
        return max((abs(a - b) for a, b in zip(self.logprobs, other.logprobs)), default=0.0)


class Client:
    def __init__(self, url: str) -> None:
        self.url = url

    async def __aenter__(self) -> Client:
        connector = aiohttp.TCPConnector(limit=0, force_close=True)
        self.session = aiohttp.ClientSession(self.url, connector=connector, timeout=aiohttp.ClientTimeout(total=None))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.session.close()

    async def complete(self, name: str, within_s: float, ids: list[int] | None = None, tokens: int = ANSWER_TOKENS) -> Answer:
        ids = ids or prompt(name)
        body = {"model": "tiny", "prompt": ids, "max_tokens": tokens, "temperature": 0, "ignore_eos": True,
                "return_token_ids": True, "logprobs": 0}
        answer = Answer(name, time.monotonic(), asked=tokens, prompt_tokens=len(ids))
        try:
            async with asyncio.timeout(within_s), self.session.post("/v1/completions", json=body) as response:
                answer.status, text = response.status, await response.text()
            answer.seconds = time.monotonic() - answer.sent
            if answer.status != 200:
                answer.error = text[:200]
                return answer
            got = json.loads(text)
            choice = got["choices"][0]
            answer.tokens, answer.logprobs = choice["token_ids"], choice["logprobs"]["token_logprobs"]
            answer.cached = (got["usage"].get("prompt_tokens_details") or {}).get("cached_tokens") or 0
            if choice["finish_reason"] == "error":
                answer.status, answer.error = -1, "finish_reason: error"
        except TimeoutError:
            answer.error = f"no answer within {within_s:.0f} s"
        except (aiohttp.ClientError, OSError) as e:
            answer.error = repr(e)
        return answer

    async def burst(self, names: list[str], within_s: float) -> list[Answer]:
        return list(await asyncio.gather(*(self.complete(n, within_s) for n in names)))


@dataclass
class Series:
    """(when it ended, how long it took)."""

    points: list[tuple[float, float]] = field(default_factory=list)

    def largest(self, begin: float, end: float) -> float:
        return max((s for t, s in self.points if t - s < end and t > begin), default=0.0)

    def without(self, late: Series) -> Series:
        """Each one less the lateness that lies in it."""
        stalls = [(t - s, t) for t, s in late.points if s > LAG_S]
        return Series([(t, s - sum(max(0.0, min(t, b) - max(t - s, a)) for a, b in stalls)) for t, s in self.points])

    def when_largest(self, begin: float, end: float) -> float:
        """Seconds after the begin."""
        return max(((s, t - begin) for t, s in self.points if begin < t < end), default=(0.0, 0.0))[1]

    def count(self, begin: float, end: float) -> int:
        return sum(begin <= t <= end for t, _ in self.points)


class Background:
    """Runs beside everything else: the stream, the poll of /v1/models, and the measure of our own lateness."""

    def __init__(self, client: Client) -> None:
        self.client, self.errors = client, []
        self.gaps, self.models, self.lag = Series(), Series(), Series()
        self.last_token = self.polled = 0.0
        self.tasks: list[asyncio.Task] = []

    def start(self) -> None:
        self.tasks = [asyncio.create_task(each()) for each in (self.stream, self.poll, self.watch)]

    def largest_gap(self, begin: float, end: float) -> float:
        """The wait that is still going on counts as well."""
        return max(self.gaps.without(self.lag).largest(begin, end), end - self.last_token if self.last_token else 0.0)

    def slowest_models(self, begin: float, end: float) -> float:
        return max(self.models.without(self.lag).largest(begin, end), end - self.polled if self.polled else 0.0)

    async def stop(self) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)

    async def stream(self) -> None:
        n = 0
        while True:
            body = {"model": "tiny", "prompt": prompt(f"stream {n} {time.time()}", STREAM_PROMPT_TOKENS), "max_tokens": STREAM_TOKENS,
                    "temperature": 0, "ignore_eos": True, "stream": True}
            n += 1
            try:
                async with self.client.session.post("/v1/completions", json=body) as response:
                    last = 0.0
                    async for line in response.content:
                        if not line.startswith(b"data: {"):
                            continue
                        now = time.monotonic()
                        if last:
                            self.gaps.points.append((now, now - last))
                        last = self.last_token = now
                    if response.status != 200:
                        self.errors.append(f"stream: {response.status}")
            except (aiohttp.ClientError, OSError) as e:
                self.errors.append(f"stream: {e!r}")
                await asyncio.sleep(POLL_S)

    async def poll(self) -> None:
        due = time.monotonic()
        while True:
            begun = self.polled = time.monotonic()
            try:
                async with asyncio.timeout(30), self.client.session.get("/v1/models") as response:
                    await response.read()
                    if response.status != 200:
                        self.errors.append(f"/v1/models: {response.status}")
            except (TimeoutError, aiohttp.ClientError, OSError) as e:
                self.errors.append(f"/v1/models: {e!r}")
            now = time.monotonic()
            self.polled = 0.0
            self.models.points.append((now, now - begun))
            due = max(due + POLL_S, now)
            await asyncio.sleep(due - now)

    async def watch(self) -> None:
        while True:
            begun = time.monotonic()
            await asyncio.sleep(LAG_S)
            now = time.monotonic()
            self.lag.points.append((now, now - begun - LAG_S))
