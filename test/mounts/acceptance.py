"""What must hold on every file system while it is well: blocks, names, permissions, damage, a full disk, what `ready` and `stats` say."""

from __future__ import annotations

import os
import stat
import time

from blocks import hexes
from checks import Checks, eventually
from places import Place, full
from stage import NAMESPACE, SLOT_BYTES, Stage, staged

SIZES = (SLOT_BYTES, 65_536, 5_000, 64)  # whole pages, and tails that are none
LONG = "f" * 128  # the longest hash; 64 and 10 more are a namespace's


def acceptance(checks: Checks, place: Place, engine: str) -> None:
    with staged(checks, place, engine) as stage:
        what_it_says(stage)
        there_and_back(stage)
        replaced_and_removed(stage)
        names_and_permissions(stage)
        damage(stage)
        if place.full_codes:
            no_room(stage)
        stage.check(not [name for name in stage.files() if ".tmp" in name], "no temporary stays", stage.files())


def what_it_says(stage: Stage) -> None:
    place = stage.place
    eventually("the mount is identified", lambda: "fs_type" in stage.mount(), 20)  # `ready` waits 80 ms for it
    mount = stage.mount()
    said = {name: mount.get(name) for name in ("fs_type", "direct", "device")}
    stage.check(said["fs_type"] == place.fs_type, f"fs_type is {place.fs_type}", said)
    stage.check(said["direct"] == place.direct, f"direct is {place.direct}", said)
    status = os.stat(place.outside)
    stage.check(said["device"] == f"{os.major(status.st_dev)}:{os.minor(status.st_dev)}", "the device is the mount's", said)
    [device] = stage.kv.stats(5000)["devices"]
    engines = {name: of["engine"] for name, of in device["classes"].items()}
    stage.check(set(engines.values()) == {stage.engine}, "the engine is the one asked for", engines)
    stage.checks.fact(place.name, "says", f"{said['fs_type']}, O_DIRECT {'yes' if said['direct'] else 'no'}")


def there_and_back(stage: Stage) -> None:
    for size in SIZES:
        keys = hexes(f"{stage.engine} {size}", 6)
        stored = stage.store(keys, 1, size)
        stage.check(stored.ok and stored.done == 6, f"6 blocks of {size} bytes are stored", stored)
        _, seen = stage.load(keys, size)
        stage.check(set(seen.values()) == {1}, f"6 blocks of {size} bytes come back byte for byte", seen)
    keys = hexes(f"{stage.engine} {SLOT_BYTES}", 6)
    found = stage.lookup([*keys, *hexes("not there", 4)])
    stage.check(found.present == (True,) * 6 + (False,) * 4 and found.prefix == 6 and found.complete, "a look-up knows what is there", found)
    _, seen = stage.load(hexes("not there", 2))
    stage.check(set(seen.values()) == {"NOT_FOUND"}, "what is not there is NOT_FOUND", seen)
    _, seen = stage.load(keys[:1], 65_536)
    stage.check(seen[keys[0]] == "LENGTH_MISMATCH", "another length is LENGTH_MISMATCH", seen)


def replaced_and_removed(stage: Stage) -> None:
    keys = hexes(f"{stage.engine} {SLOT_BYTES}", 6)
    kept = stage.store(keys[:2], 2)
    stage.check(kept.ok and kept.kept == 2, "a block that is there is kept", kept)
    _, seen = stage.load(keys[:2])
    stage.check(set(seen.values()) == {1}, "and is the old one", seen)
    for version in range(2, 6):  # recycling has something to overwrite with from the second on
        replaced = stage.store(keys[:3], version, replace=True)
        stage.check(replaced.ok, f"a block is replaced (version {version})", replaced)
        _, seen = stage.load(keys[:3])
        stage.check(set(seen.values()) == {version}, f"a load finds the new one (version {version})", seen)
    removed = stage.remove([*keys[:3], *hexes("not there", 1)])
    stage.check(removed.ok and removed.done == 4, "blocks are removed, and what is not there is no failure", removed)
    stage.check(stage.lookup(keys).present == (False,) * 3 + (True,) * 3, "what was removed is not found")
    stored = stage.store(keys[:3], 6)
    _, seen = stage.load(keys[:3])
    stage.check(stored.ok and set(seen.values()) == {6}, "removed keys can be stored again", seen)
    recycling = stage.mount()["recycling"]
    stage.check(recycling["on"] == stage.place.recycled, f"recycling is {'on' if stage.place.recycled else 'off'}, by itself", recycling)
    if stage.place.recycled:
        stage.check(recycling["recycled"] > 0, "and files were overwritten", recycling)
    stage.checks.fact(stage.place.name, "recycling", "on" if recycling["on"] else "off")


def names_and_permissions(stage: Stage) -> None:
    space = "N" + "-._9" * 15 + "abc@1234567890"  # 64 bytes and a generation: the longest
    with stage.kv.leasing(1, use="store") as slots:
        slots[0].view[:64] = b"n" * 64
        stored = stage.waited(stage.kv.store([f"{space}/{LONG[:70]}"], slots, bytes=64, timeout_ms=10_000), 10_000)
    stage.check(stored.ok, "the longest namespace is a name here", stored)
    stored = stage.store([LONG], 1, 64)
    _, seen = stage.load([LONG], 64)
    stage.check(stored.ok and seen[LONG] == 1, "the longest hash is a name here", stored)
    agreed = stage.waited(stage.kv.namespace("agreed", {"model": "m"}, timeout_ms=10_000), 10_000)
    again = stage.waited(stage.kv.namespace("agreed", {"model": "m"}, timeout_ms=10_000), 10_000)
    stage.check(agreed.ok and again.ok and again.state == "matches", "a namespace is agreed on", (agreed, again))
    bumped = stage.waited(stage.kv.namespace("agreed", {"model": "m"}, bump=True, timeout_ms=10_000), 10_000)
    stage.check(bumped.ok and bumped.generation > again.generation, "and gets a new generation", bumped)
    modes = {oct(stat.S_IMODE(os.stat(os.path.join(stage.place.outside, name)).st_mode)) for name in stage.files() if name.endswith(".kvb")}
    stage.check(modes == {"0o600"}, "block files are 0600", modes)
    roots = {oct(stat.S_IMODE(os.stat(directory).st_mode)) for directory, _, _ in os.walk(os.path.join(stage.place.outside, "blocks"))}
    stage.check(roots == {"0o700"}, "their directories are 0700", roots)


def damage(stage: Stage) -> None:
    keys = hexes(f"{stage.engine} damage", 3)
    stage.store(keys)
    flip(stage.block_path(keys[0]), 4096 + 70_000)
    flip(stage.block_path(keys[1]), 40)
    cut_short(stage.block_path(keys[2]), 70_000)
    _, seen = stage.load(keys)
    stage.check(seen[keys[0]] in ("CORRUPT", "NOT_FOUND"), "a flipped bit in a payload is found", seen)
    stage.check(seen[keys[1]] in ("CORRUPT", "NOT_FOUND"), "a flipped bit in a header is found", seen)
    stage.check(seen[keys[2]] in ("CORRUPT", "NOT_FOUND"), "a block that was cut short is found", seen)
    _, seen = stage.load(keys)
    stage.check("wrong" not in seen.values() and 1 not in seen.values(), "and again", seen)
    stored = stage.store(keys, 2)
    _, seen = stage.load(keys)
    stage.check(stored.ok and set(seen.values()) == {2}, "the same keys can be stored again", (stored, seen))


def flip(path: str, offset: int) -> None:
    with open(path, "r+b") as file:
        file.seek(offset)
        byte = file.read(1)
        file.seek(offset)
        file.write(bytes([byte[0] ^ 1]))
        file.flush()
        os.fsync(file.fileno())


def cut_short(path: str, size: int) -> None:
    os.truncate(path, size)


def no_room(stage: Stage) -> None:
    keys, more = hexes(f"{stage.engine} there", 2), hexes(f"{stage.engine} too much", 24)  # more than files are kept for recycling here
    stage.store(keys)
    with full(stage.place, SLOT_BYTES):
        refused = stage.store(more)
        codes = sorted({f"{failure.code} {failure.errno} in {failure.phase}" for failure in refused.failed})
        stage.check(refused.failed, "a full file system takes no 24 more blocks", refused)
        fair = stage.place.full_codes
        stage.check(all(failure.code in fair for failure in refused.failed), f"and says {' or '.join(fair)}", codes)
        stage.checks.fact(stage.place.name, "full", ", ".join(codes))
        _, seen = stage.load(keys)
        stage.check(set(seen.values()) == {1}, "what is there is still there when it is full", seen)
        _, seen = stage.load(more)
        stage.check(set(seen.values()) <= {1, "NOT_FOUND"}, "what did not fit is absent, or whole", seen)
    began = time.monotonic()
    while not (stored := stage.store(more)).ok and time.monotonic() - began < stage.place.full_after_s:
        time.sleep(0.1)
    stage.check(stored.ok, "with room again it stores again", stored)
    stage.checks.fact(stage.place.name, "room", f"seen within {time.monotonic() - began:.1f} s")
    _, seen = stage.load(more)
    stage.check(set(seen.values()) == {1}, "and all of it comes back", seen)
    stage.remove(more)


def checksums_skipped(checks: Checks, place: Place) -> None:
    """The planted fault: a sidecar that writes and believes blocks without a checksum."""
    with staged(checks, place, "threads", extra_arguments=("--test-unchecked",)) as stage:
        damage(stage)


__all__ = ["NAMESPACE", "acceptance", "checksums_skipped"]
