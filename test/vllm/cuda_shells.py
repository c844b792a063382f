"""Lets the registry's torch, a CUDA build, load on a machine without CUDA, by empty shells of the libraries that it names.

The Python registry has no CPU build of torch for Linux. The one that it has runs on a CPU, but its shared objects name fourteen CUDA libraries
(4 GB of packages) as needed, so the loader wants a file with each name, each symbol version and, where binding is eager, each symbol,
before `import torch` comes back. Nothing in them is called on a CPU. So here each becomes a library of some kilobytes in which every
wanted name is one function that returns cudaErrorUnknown. What the wheels really name is read from the wheels: nothing here is by version.
The runtime library (libcudart) is the real one, 1 MB: constructors in torch do call it.

    .venv-vllm/bin/python test/vllm/cuda_shells.py      makes them in its own torch/lib; test/vllm/setup.sh runs it

Not for a machine with a GPU: a shell hides the real library. It touches only a venv that carries setup.sh's mark and lies outside the
system, and removes only what it made itself. x86-64 only. Needs gcc, nm and readelf.
"""
import importlib.util
import pathlib
import re
import subprocess
import sys

MARK = "kvlane-vllm"  # setup.sh writes this file into a venv that it made
OURS = "kvlane-shells.txt"  # in torch/lib: the names of the shells
CUDA_NAME = re.compile(r"cu[A-Z]|cu(blas|dnn|fft|file|pti|rand|solver|sparse)|nccl|nv")
SYSTEM = re.compile(r"(lib(c|m|dl|rt|pthread|stdc\+\+|gcc_s|gomp|util)|ld-linux.*)\.so")
RUNTIME = "libcudart.so"
ERROR_UNKNOWN = 999


def output_of(*command: object) -> str:
    return subprocess.run([str(word) for word in command], check=True, capture_output=True, text=True).stdout


def needed_by(library: pathlib.Path) -> set[str]:
    return set(re.findall(r"\(NEEDED\).*\[(.+)\]", output_of("readelf", "-dW", library)))


def versions_wanted(library: pathlib.Path) -> dict[str, str]:
    """symbol version → the library it is wanted from"""
    found, file = {}, ""
    section = output_of("readelf", "-VW", library).partition(".gnu.version_r")[2]
    for line in section.splitlines():
        if match := re.search(r"File: (\S+)", line):
            file = match[1]
        elif match := re.search(r"Name: (\S+)", line):
            found[match[1]] = file
    return found


def symbols(library: pathlib.Path, which: str) -> set[tuple[str, str]]:
    """(name, version) of what it defines or of what it wants; weak wishes may stay unfulfilled and are left out"""
    found = set()
    for line in output_of("nm", "-D", which, "--with-symbol-versions", library).splitlines():
        *_, kind, name = line.split()
        if which == "--defined-only" or kind == "U":
            found.add((re.split("@+", name)[0], name.rpartition("@")[2] if "@" in name else ""))
    return found


def make(path: pathlib.Path, version: str, names: set[str]) -> None:
    labels = "".join(f".globl {name}\n.type {name},@function\n{name}:\n" for name in sorted(names))
    source = f".text\n{labels}movl ${ERROR_UNKNOWN}, %eax\nret\n" + '.section .note.GNU-stack,"",@progbits\n'
    command = ["gcc", "-shared", "-nostdlib", f"-Wl,-soname,{path.name}", "-x", "assembler", "-", "-o", str(path)]
    script = path.with_suffix(".map")
    if version:
        script.write_text(f"{version} {{ global: *; }};\n")
        command.append(f"-Wl,--version-script={script}")
    subprocess.run(command, check=True, input=source, text=True)
    script.unlink(missing_ok=True)


def main() -> None:
    prefix = pathlib.Path(sys.prefix)
    spec = importlib.util.find_spec("torch")
    if sys.prefix == sys.base_prefix or not (prefix / MARK).exists():
        sys.exit(f"cuda_shells: {prefix} is not a venv made by test/vllm/setup.sh (no file {MARK} in it): nothing touched")
    if spec is None or spec.origin is None or not pathlib.Path(spec.origin).is_relative_to(prefix):
        sys.exit(f"cuda_shells: torch is not installed in {prefix}: nothing touched")
    lib = pathlib.Path(spec.origin).parent / "lib"

    listed = lib / OURS
    for name in listed.read_text().split() if listed.exists() else ():
        (lib / name).unlink(missing_ok=True)

    torch_libraries = sorted(lib.glob("*.so"))
    present = {path.name for path in lib.iterdir()}
    shells: set[str] = set()
    defined: set[str] = set()
    wanted: set[tuple[str, str]] = set()
    home_of: dict[str, str] = {}
    for library in torch_libraries:
        shells |= {name for name in needed_by(library) if name not in present and not SYSTEM.match(name) and not name.startswith(RUNTIME)}
        home_of |= versions_wanted(library)
        defined |= {name for name, _ in symbols(library, "--defined-only")}
        wanted |= symbols(library, "--undefined-only")
    for runtime in prefix.glob(f"lib/python*/site-packages/nvidia/*/lib/{RUNTIME}.*"):
        defined |= {name for name, _ in symbols(runtime, "--defined-only")}

    names: dict[str, dict[str, set[str]]] = {shell: {} for shell in sorted(shells)}  # shell → version → names
    unversioned = set()
    for name, version in wanted:
        if version and home_of.get(version) in shells:
            names[home_of[version]].setdefault(version, set()).add(name)
        elif not version and name not in defined and CUDA_NAME.match(name):
            unversioned.add(name)
    plain = [shell for shell, versions in names.items() if not versions]
    if unversioned and not plain:
        sys.exit(f"cuda_shells: {len(unversioned)} names without a version, {min(unversioned)} for one, and no library to put them in")
    listed.write_text("".join(f"{shell}\n" for shell in names))  # before they are made: a run that is cut off can be undone
    for shell, versions in names.items():
        if len(versions) > 1:
            sys.exit(f"cuda_shells: {shell} is wanted in several versions, which is not written yet: {sorted(versions)}")
        version, its_names = next(iter(versions.items()), ("", unversioned))  # nothing tells which plain one a plain name is from: each has all
        make(lib / shell, version, its_names)
    print(f"cuda_shells: {len(names)} in {lib}", file=sys.stderr)

    # The proof, in a process of its own: what a loader has once looked up it does not look up again.
    proof = "import torch; print(torch.cuda.is_available(), (torch.ones(8, 8) @ torch.ones(8, 8)).sum().item())"
    run = subprocess.run([sys.executable, "-c", proof], capture_output=True, text=True)
    if run.stdout.split() != ["False", "512.0"]:
        sys.exit(f"cuda_shells: 'False 512.0' is right (no CUDA, and it computes), torch says: {(run.stdout + run.stderr).strip()}")


main()
