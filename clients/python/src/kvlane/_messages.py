"""What goes over the wire: types, codes, limits.

Made by protocol/generate.mjs from protocol/protocol.json. Do not edit;
run: npm run protocol:generate
"""

from __future__ import annotations

from typing import Final, Literal, NamedTuple, TypedDict

PROTOCOL: Final = 1
VERSION: Final = "0.1.0"

# bytes. One line without its newline. The largest request (blocks_max whole keys of key_bytes_max) takes about 0.8
# MiB, the largest answer to it about 0.7 MiB.
LINE_BYTES_MAX: Final = 1048576
# blocks. In one request. 64 Ki tokens at 16 a block; decoding takes a few milliseconds of the sidecar's only loop.
BLOCKS_MAX: Final = 4096
# bytes. namespace/hex. Room for a 64-character name with a generation and a 256-bit hash, and 4096 of them still
# fit a line.
KEY_BYTES_MAX: Final = 160
# characters. The name without its generation; a directory name on any file system.
NAMESPACE_CHARS_MAX: Final = 64
# digits. After the @ of a namespace: 32 bits of bumps.
GENERATION_DIGITS_MAX: Final = 10
# characters. The first two name the fan-out directory.
HEX_CHARS_MIN: Final = 2
# characters. A 512-bit hash; lower case only, so that one block has one name.
HEX_CHARS_MAX: Final = 128
# 2^53 - 1: what every JSON reader keeps exactly. Also the largest time in microseconds.
ID_MAX: Final = 9007199254740991
# bytes. An id that is a string, in UTF-8. It is echoed, never interpreted.
ID_BYTES_MAX: Final = 64
# characters. Mount names stand in every message and log line.
MOUNT_NAME_CHARS_MAX: Final = 64
# bytes. Of one block given as text or base64: for hands at a keyboard. Real blocks go through slots.
INLINE_BYTES_MAX: Final = 65536
# blocks. Inline blocks in one request: the answer to an inline load fits one line.
INLINE_BLOCKS_MAX: Final = 8
# bytes. A namespace's fingerprint as canonical JSON; it is kept in one small file.
FINGERPRINT_BYTES_MAX: Final = 16384
# levels. A fingerprint nests no deeper, so that comparing two is cheap.
FINGERPRINT_DEPTH_MAX: Final = 16
# entries. In one answer of list. A name of 255 control characters takes six bytes each in JSON, and so many of
# those still fit a line.
LIST_ENTRIES_MAX: Final = 512
# blocks. In one request of verify: each is read whole, and its finding may be a sentence.
VERIFY_BLOCKS_MAX: Final = 256
# characters. Of a path below a root that list or sweep is given; the longest that kvlane makes itself has 269.
PATH_CHARS_MAX: Final = 320
# ms. One hour, for timeout_ms and for how far ahead deadline_us may lie: more is a mistake of units.
TIMEOUT_MS_MAX: Final = 3600000
# ms. How long after the deadline a client waits for the sidecar's answer before it has the last word itself.
GRACE_MS: Final = 20
# ms. ready.now_us and the client's CLOCK_MONOTONIC further apart than this, beyond the start itself: not the same
# clock, the client refuses.
CLOCK_SKEW_MS_MAX: Final = 1000
# characters. How much of a bad value an error message repeats.
QUOTED_CHARS_MAX: Final = 60

LIMITS: Final[dict[str, int]] = {
    "line_bytes_max": LINE_BYTES_MAX,
    "blocks_max": BLOCKS_MAX,
    "key_bytes_max": KEY_BYTES_MAX,
    "namespace_chars_max": NAMESPACE_CHARS_MAX,
    "generation_digits_max": GENERATION_DIGITS_MAX,
    "hex_chars_min": HEX_CHARS_MIN,
    "hex_chars_max": HEX_CHARS_MAX,
    "id_max": ID_MAX,
    "id_bytes_max": ID_BYTES_MAX,
    "mount_name_chars_max": MOUNT_NAME_CHARS_MAX,
    "inline_bytes_max": INLINE_BYTES_MAX,
    "inline_blocks_max": INLINE_BLOCKS_MAX,
    "fingerprint_bytes_max": FINGERPRINT_BYTES_MAX,
    "fingerprint_depth_max": FINGERPRINT_DEPTH_MAX,
    "list_entries_max": LIST_ENTRIES_MAX,
    "verify_blocks_max": VERIFY_BLOCKS_MAX,
    "path_chars_max": PATH_CHARS_MAX,
    "timeout_ms_max": TIMEOUT_MS_MAX,
    "grace_ms": GRACE_MS,
    "clock_skew_ms_max": CLOCK_SKEW_MS_MAX,
    "quoted_chars_max": QUOTED_CHARS_MAX,
}

Id = int | str

Code = Literal[
    "INVALID_REQUEST",
    "LINE_TOO_LONG",
    "UNKNOWN_OP",
    "DUPLICATE_ID",
    "NOT_FOUND",
    "CORRUPT",
    "LENGTH_MISMATCH",
    "DEADLINE_EXCEEDED",
    "CANCELLED",
    "MOUNT_SUSPENDED",
    "SATURATED",
    "KEY_BUSY",
    "WRONG_STORE",
    "IO_ERROR",
    "NO_SPACE",
    "SLOT_BUSY",
    "SHUTTING_DOWN",
]

Op = Literal[
    "store",
    "load",
    "lookup",
    "remove",
    "namespace",
    "list",
    "verify",
    "sweep",
    "cancel",
    "stats",
    "stuck",
    "ping",
    "help",
    "shutdown",
]

Phase = Literal[
    "queue",
    "open",
    "stat",
    "header",
    "read",
    "write",
    "fsync",
    "rename",
    "unlink",
    "close",
]

LaneClass = Literal[
    "load",
    "store",
    "metadata",
]

MountState = Literal[
    "unknown",
    "ok",
    "suspended",
    "probing",
]

SlotWord = Literal[
    "free",
    "quarantined",
]

IfExists = Literal[
    "keep",
    "replace",
]

CancelState = Literal[
    "cancelled",
    "already_settled",
    "unknown",
]

NamespaceState = Literal[
    "created",
    "matches",
    "differs",
]

EntryType = Literal[
    "file",
    "directory",
    "link",
    "other",
    "escaped",
]

BlockFinding = Literal[
    "sound",
    "corrupt",
    "newer_format",
    "not_found",
    "unknown",
]

SweepState = Literal[
    "removed",
    "changed",
    "absent",
]

Backing = Literal[
    "hugetlb",
    "thp",
    "shmem",
]

Key = str

KeyOrHex = str

NamespaceWithGeneration = str

NamespaceName = str

MountName = str

TimeoutMs = int

DeadlineUs = int

Slot = int

Bytes = int

Fingerprint = dict[str, object]

Keys = list[KeyOrHex]

Slots = list[Slot]

BytesColumn = int | list[Bytes]


class _StoreBlockRequired(TypedDict):
    key: Key


class StoreBlock(_StoreBlockRequired, total=False):
    """Either slot and bytes, or text, or base64."""

    slot: Slot
    bytes: Bytes
    text: str
    base64: str


class _LoadBlockRequired(TypedDict):
    key: Key


class LoadBlock(_LoadBlockRequired, total=False):
    """slot and bytes; in an inline load no slot, and bytes only to insist on a length."""

    slot: Slot
    bytes: Bytes


class _ErrorBodyRequired(TypedDict):
    code: Code
    message: str


class ErrorBody(_ErrorBodyRequired, total=False):
    errno: str


Range = list[int]


class _FailedEntryRequired(TypedDict):
    code: Code


class FailedEntry(_FailedEntryRequired, total=False):
    """What went wrong with one block (block), or in the same way with several (blocks: inclusive ranges)."""

    block: int
    blocks: list[Range]
    phase: Phase
    waited_ms: int
    slot: SlotWord
    errno: str
    message: str
    outcome: Literal["unknown"]
    stored_bytes: int


class _InlineBlockRequired(TypedDict):
    block: int
    bytes: int


class InlineBlock(_InlineBlockRequired, total=False):
    """base64 where the bytes are not UTF-8 text."""

    text: str
    base64: str


class ListEntry(TypedDict):
    """One name in a directory of the store. Sizes and times beyond 2^53 - 1 are told as that; inode and changed_ns are
    exact, for sweep."""

    name: str
    type: EntryType
    bytes: int
    allocated_bytes: int
    modified_ms: int
    changed_ms: int
    inode: str
    changed_ns: str


class _VerifiedBlockRequired(TypedDict):
    finding: BlockFinding


class VerifiedBlock(_VerifiedBlockRequired, total=False):
    """What one block is, as it was read just now. Nothing was changed."""

    stored_bytes: int
    created_ms: int
    writer: str
    code: Code
    phase: Phase
    errno: str
    message: str


_StuckEntryRequired = TypedDict(
    "_StuckEntryRequired",
    {
        "mount": str,
        "class": LaneClass,
        "phase": Phase,
        "tid": int,
        "syscall": str,
        "since_us": int,
        "for_ms": int,
        "settled": bool,
    },
)


class StuckEntry(_StuckEntryRequired, total=False):
    """One call in the kernel: over stall_ms, or settled and not returned yet."""

    kind: str
    key: str
    slot: int
    task: Id


class _ArenaFactsRequired(TypedDict):
    owner: Literal["client", "sidecar"]
    path: str
    bytes: int
    slot_bytes: int
    slots: int
    page_bytes: int
    backing: Backing


class ArenaFacts(_ArenaFactsRequired, total=False):
    huge_bytes: int
    advice: str


class _MountInfoRequired(TypedDict):
    name: str
    root: str
    device: str | None
    state: MountState


class MountInfo(_MountInfoRequired, total=False):
    """device is null until the mount has answered; mounts with equal devices share lanes."""

    store_id: str
    fs_type: str
    direct: bool
    created: bool
    code: Code
    reason: str


Limits = dict[str, int]

OpenObject = dict[str, object]

CODES: Final[tuple[Code, ...]] = (
    "INVALID_REQUEST",
    "LINE_TOO_LONG",
    "UNKNOWN_OP",
    "DUPLICATE_ID",
    "NOT_FOUND",
    "CORRUPT",
    "LENGTH_MISMATCH",
    "DEADLINE_EXCEEDED",
    "CANCELLED",
    "MOUNT_SUSPENDED",
    "SATURATED",
    "KEY_BUSY",
    "WRONG_STORE",
    "IO_ERROR",
    "NO_SPACE",
    "SLOT_BUSY",
    "SHUTTING_DOWN",
)

OPS: Final[tuple[Op, ...]] = (
    "store",
    "load",
    "lookup",
    "remove",
    "namespace",
    "list",
    "verify",
    "sweep",
    "cancel",
    "stats",
    "stuck",
    "ping",
    "help",
    "shutdown",
)

PHASES: Final[tuple[Phase, ...]] = (
    "queue",
    "open",
    "stat",
    "header",
    "read",
    "write",
    "fsync",
    "rename",
    "unlink",
    "close",
)

LANE_CLASSES: Final[tuple[LaneClass, ...]] = (
    "load",
    "store",
    "metadata",
)

MOUNT_STATES: Final[tuple[MountState, ...]] = (
    "unknown",
    "ok",
    "suspended",
    "probing",
)

SLOT_WORDS: Final[tuple[SlotWord, ...]] = (
    "free",
    "quarantined",
)

IF_EXISTSES: Final[tuple[IfExists, ...]] = (
    "keep",
    "replace",
)

CANCEL_STATES: Final[tuple[CancelState, ...]] = (
    "cancelled",
    "already_settled",
    "unknown",
)

NAMESPACE_STATES: Final[tuple[NamespaceState, ...]] = (
    "created",
    "matches",
    "differs",
)

ENTRY_TYPES: Final[tuple[EntryType, ...]] = (
    "file",
    "directory",
    "link",
    "other",
    "escaped",
)

BLOCK_FINDINGS: Final[tuple[BlockFinding, ...]] = (
    "sound",
    "corrupt",
    "newer_format",
    "not_found",
    "unknown",
)

SWEEP_STATES: Final[tuple[SweepState, ...]] = (
    "removed",
    "changed",
    "absent",
)

BACKINGS: Final[tuple[Backing, ...]] = (
    "hugetlb",
    "thp",
    "shmem",
)


class CodeFacts(NamedTuple):
    """What a code means, and what the caller should do next."""

    meaning: str
    next: str


CODE_TABLE: Final[dict[Code, CodeFacts]] = {
    "INVALID_REQUEST": CodeFacts(
        (
            "The line is not a request: not JSON, a field missing, unknown, out of range. The message says which "
            "field, what it must be and what it was."
        ),
        "Mend the client; the same line never succeeds.",
    ),
    "LINE_TOO_LONG": CodeFacts(
        "A line of more than line_bytes_max; it was skipped up to its newline.",
        "Split the request.",
    ),
    "UNKNOWN_OP": CodeFacts(
        "No such operation; the message names the nearest one.",
        "Mend the client, or install matching versions.",
    ),
    "DUPLICATE_ID": CodeFacts(
        (
            "The id belongs to a request that is not answered yet. The answer has id null, duplicate_of and line; the "
            "first request goes on."
        ),
        "Mend the client: an id is free again once its answer came.",
    ),
    "NOT_FOUND": CodeFacts(
        "There is no such block (or only one of a newer format).",
        "A miss: recompute, and store it.",
    ),
    "CORRUPT": CodeFacts(
        (
            "The file does not hold what its header promises, or is no block at all. No byte of it counts; the slot's "
            "contents are undefined."
        ),
        "A miss: recompute, and store it.",
    ),
    "LENGTH_MISMATCH": CodeFacts(
        "A valid block of another length than asked; it is left alone.",
        "A miss for this layout. Check that the namespace's fingerprint covers whatever decides the block size.",
    ),
    "DEADLINE_EXCEEDED": CodeFacts(
        (
            "Not finished in time; phase says where it was. The kernel may still be at work: the entry says whether "
            "the slot is free or quarantined."
        ),
        (
            "Treat a load as a miss and a store as not done. Do not touch a quarantined slot before slots_freed names "
            "it."
        ),
    ),
    "CANCELLED": CodeFacts(
        "A cancel settled it.",
        "As for DEADLINE_EXCEEDED: mind the slot's state.",
    ),
    "MOUNT_SUSPENDED": CodeFacts(
        "The mount does not answer for this class of operation; refused at once, nothing was started.",
        "A miss, now. A mount event with state ok says when to use it again; no need to poll.",
    ),
    "SATURATED": CodeFacts(
        "No lane may be added: the cap of stuck calls, queued work or threads is reached. Nothing was started.",
        "A miss, now. Try again after a recovered or mount event, or with back-off.",
    ),
    "KEY_BUSY": CodeFacts(
        "An earlier store or remove of this key still sits in a name-changing call.",
        "Skip this store; a later one may succeed.",
    ),
    "WRONG_STORE": CodeFacts(
        "The directory is not the store that was there at the start: unmounted, remounted elsewhere, or never made.",
        "Miss. Mount it again (it is noticed within a second), or make a store with --create.",
    ),
    "IO_ERROR": CodeFacts(
        "The kernel refused; errno says how.",
        "Miss. Look at errno and the machine; retrying at once rarely helps.",
    ),
    "NO_SPACE": CodeFacts(
        "The file system is full or over quota; nothing half-visible was left.",
        "Stop storing for a while; loads still work.",
    ),
    "SLOT_BUSY": CodeFacts(
        "The slot is part of an unanswered request or quarantined. Nothing was started.",
        "Mend the client's leasing: a slot is free after its answer, or after slots_freed.",
    ),
    "SHUTTING_DOWN": CodeFacts(
        "The sidecar is leaving.",
        "Miss. Start a new sidecar with a new arena.",
    ),
}


class _StoreMessageRequired(TypedDict):
    id: Id
    op: Literal["store"]


class StoreMessage(_StoreMessageRequired, total=False):
    mount: MountName
    timeout_ms: TimeoutMs
    deadline_us: DeadlineUs
    blocks: list[StoreBlock]
    namespace: NamespaceWithGeneration
    keys: Keys
    slots: Slots
    bytes: BytesColumn
    if_exists: IfExists


class _LoadMessageRequired(TypedDict):
    id: Id
    op: Literal["load"]


class LoadMessage(_LoadMessageRequired, total=False):
    mount: MountName
    timeout_ms: TimeoutMs
    deadline_us: DeadlineUs
    blocks: list[LoadBlock]
    namespace: NamespaceWithGeneration
    keys: Keys
    slots: Slots
    bytes: BytesColumn
    inline: bool


class _LookupMessageRequired(TypedDict):
    id: Id
    op: Literal["lookup"]
    keys: Keys


class LookupMessage(_LookupMessageRequired, total=False):
    mount: MountName
    timeout_ms: TimeoutMs
    deadline_us: DeadlineUs
    namespace: NamespaceWithGeneration


class _RemoveMessageRequired(TypedDict):
    id: Id
    op: Literal["remove"]
    keys: Keys


class RemoveMessage(_RemoveMessageRequired, total=False):
    mount: MountName
    timeout_ms: TimeoutMs
    deadline_us: DeadlineUs
    namespace: NamespaceWithGeneration


class _NamespaceMessageRequired(TypedDict):
    id: Id
    op: Literal["namespace"]
    name: NamespaceName
    fingerprint: Fingerprint


class NamespaceMessage(_NamespaceMessageRequired, total=False):
    mount: MountName
    timeout_ms: TimeoutMs
    deadline_us: DeadlineUs
    bump: bool


class _ListMessageRequired(TypedDict):
    id: Id
    op: Literal["list"]
    path: str


class ListMessage(_ListMessageRequired, total=False):
    mount: MountName
    timeout_ms: TimeoutMs
    deadline_us: DeadlineUs
    cookie: str
    entries_max: int


class _VerifyMessageRequired(TypedDict):
    id: Id
    op: Literal["verify"]
    keys: Keys


class VerifyMessage(_VerifyMessageRequired, total=False):
    mount: MountName
    timeout_ms: TimeoutMs
    deadline_us: DeadlineUs
    namespace: NamespaceWithGeneration


class _SweepMessageRequired(TypedDict):
    id: Id
    op: Literal["sweep"]
    path: str
    inode: str
    changed_ns: str


class SweepMessage(_SweepMessageRequired, total=False):
    mount: MountName
    timeout_ms: TimeoutMs
    deadline_us: DeadlineUs


class CancelMessage(TypedDict):
    id: Id
    op: Literal["cancel"]
    task: Id


class StatsMessage(TypedDict):
    id: Id
    op: Literal["stats"]


class _StuckMessageRequired(TypedDict):
    id: Id
    op: Literal["stuck"]


class StuckMessage(_StuckMessageRequired, total=False):
    over_ms: int


class PingMessage(TypedDict):
    id: Id
    op: Literal["ping"]


class HelpMessage(TypedDict):
    id: Id
    op: Literal["help"]


class _ShutdownMessageRequired(TypedDict):
    id: Id
    op: Literal["shutdown"]


class ShutdownMessage(_ShutdownMessageRequired, total=False):
    timeout_ms: TimeoutMs


class _ErrorAnswerRequired(TypedDict):
    id: int | str | None
    ok: Literal[False]
    error: ErrorBody


class ErrorAnswer(_ErrorAnswerRequired, total=False):
    """The whole request was refused. id is null when the line has none that can be read, or one that is taken
    (duplicate_of)."""

    duplicate_of: Id
    line: int


class _StoreAnswerRequired(TypedDict):
    id: Id
    ok: bool
    done: int


class StoreAnswer(_StoreAnswerRequired, total=False):
    kept: int
    failed: list[FailedEntry]


class _LoadAnswerRequired(TypedDict):
    id: Id
    ok: bool
    done: int


class LoadAnswer(_LoadAnswerRequired, total=False):
    blocks: list[InlineBlock]
    failed: list[FailedEntry]


class LookupAnswer(TypedDict):
    """One entry a key; null: not known at the deadline. prefix counts the leading trues."""

    id: Id
    ok: Literal[True]
    present: list[bool | None]
    prefix: int
    complete: bool


class _RemoveAnswerRequired(TypedDict):
    id: Id
    ok: bool
    done: int


class RemoveAnswer(_RemoveAnswerRequired, total=False):
    failed: list[FailedEntry]


class NamespaceAnswer(TypedDict):
    """key_namespace is what the client writes into its keys. fingerprint is the stored one."""

    id: Id
    ok: Literal[True]
    state: NamespaceState
    name: str
    generation: int
    key_namespace: str
    fingerprint: Fingerprint


class ListAnswer(TypedDict):
    """Some of the names in one directory, in no order; cookie asks for those that follow, null: there are none."""

    id: Id
    ok: Literal[True]
    entries: list[ListEntry]
    cookie: str | None


class VerifyAnswer(TypedDict):
    """One entry a key; complete is false where one is unknown."""

    id: Id
    ok: Literal[True]
    blocks: list[VerifiedBlock]
    complete: bool


class SweepAnswer(TypedDict):
    id: Id
    ok: Literal[True]
    state: SweepState


class CancelAnswer(TypedDict):
    id: Id
    ok: Literal[True]
    state: CancelState


class StatsAnswer(TypedDict):
    id: Id
    ok: Literal[True]
    stats: OpenObject


class _StuckAnswerRequired(TypedDict):
    id: Id
    ok: Literal[True]
    stuck: list[StuckEntry]


class StuckAnswer(_StuckAnswerRequired, total=False):
    more: int


class PingAnswer(TypedDict):
    id: Id
    ok: Literal[True]
    now_us: int


class HelpAnswer(TypedDict):
    id: Id
    ok: Literal[True]
    help: OpenObject


class ShutdownAnswer(TypedDict):
    id: Id
    ok: Literal[True]


class ReadyEvent(TypedDict):
    """The first line, before anything is asked. timeout_ms and stall_ms are the defaults this sidecar runs with."""

    event: Literal["ready"]
    protocol: int
    version: str
    pid: int
    now_us: int
    engine: str
    timeout_ms: int
    stall_ms: int
    arena: ArenaFacts
    mounts: list[MountInfo]
    limits: Limits


_MountEventRequired = TypedDict(
    "_MountEventRequired",
    {
        "event": Literal["mount"],
        "mount": str,
        "class": LaneClass,
        "state": MountState,
        "was": MountState,
        "reason": str,
    },
)


class MountEvent(_MountEventRequired, total=False):
    code: Code


_StalledEventRequired = TypedDict(
    "_StalledEventRequired",
    {
        "event": Literal["stalled"],
        "mount": str,
        "class": LaneClass,
        "phase": Phase,
        "tid": int,
        "syscall": str,
        "since_us": int,
        "for_ms": int,
        "settled": bool,
    },
)


class StalledEvent(_StalledEventRequired, total=False):
    kind: str
    key: str
    slot: int
    task: Id


_RecoveredEventRequired = TypedDict(
    "_RecoveredEventRequired",
    {
        "event": Literal["recovered"],
        "mount": str,
        "class": LaneClass,
        "phase": Phase,
        "tid": int,
        "syscall": str,
        "since_us": int,
        "for_ms": int,
        "settled": bool,
    },
)


class RecoveredEvent(_RecoveredEventRequired, total=False):
    kind: str
    key: str
    slot: int
    task: Id


class SlotsFreedEvent(TypedDict):
    """Quarantined slots that the kernel has given back; always after the answer that quarantined them."""

    event: Literal["slots_freed"]
    slots: list[int]


RequestMessage = (
    StoreMessage
    | LoadMessage
    | LookupMessage
    | RemoveMessage
    | NamespaceMessage
    | ListMessage
    | VerifyMessage
    | SweepMessage
    | CancelMessage
    | StatsMessage
    | StuckMessage
    | PingMessage
    | HelpMessage
    | ShutdownMessage
)

Answer = (
    ErrorAnswer
    | StoreAnswer
    | LoadAnswer
    | LookupAnswer
    | RemoveAnswer
    | NamespaceAnswer
    | ListAnswer
    | VerifyAnswer
    | SweepAnswer
    | CancelAnswer
    | StatsAnswer
    | StuckAnswer
    | PingAnswer
    | HelpAnswer
    | ShutdownAnswer
)

Event = ReadyEvent | MountEvent | StalledEvent | RecoveredEvent | SlotsFreedEvent
