"""Network file systems with servers of their own: who serves, and how a host mounts it.

A server keeps its files in a small file system in memory (`stored`), so that it can be full, and so that a block can be looked at behind
everybody's caches. All of it lies below `directory`, which is in memory too.
"""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

from checks import eventually
from hosts import CommandFailed, Host

IMPATIENT_S = 4  # what the clients are told that are to give up
FRAME_S = 40  # longer than a crowd works, and with the 10 s in which GlusterFS notices less than a minute
UP_S = 60.0  # glusterd takes seconds on an idle machine, and CI's is not


class Server:
    """`kind` is the name on the command line; `version` asks the program itself."""

    kind = ""
    programs: tuple[str, ...] = ()
    version_of: tuple[str, ...] = ()
    version_has = ""
    stored_in: tuple[str, ...] = ("stored",)
    stored_mib = 96  # enough for the stories; filled to the brim by one of them
    full_codes: tuple[str, ...] = ("NO_SPACE",)
    full_after_s = 0.0

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir(parents=True)
        self.host = Host(f"{self.kind} server")
        self.stored = [directory / name for name in self.stored_in]
        for one in self.stored:
            one.mkdir()
            self.host.run("mount", "-t", "tmpfs", "-o", f"size={self.stored_mib // len(self.stored)}m,mode=755", "tmpfs", str(one))

    @classmethod
    def lacking(cls) -> str:
        missing = [name for name in cls.programs if shutil.which(name, path=os.environ["PATH"] + ":/usr/sbin:/sbin") is None]
        return f"{', '.join(missing)} is not installed and could not be" if missing else ""

    def version(self) -> str:
        said = self.host.run("sh", "-c", " ".join(self.version_of) + " 2>&1 || true").splitlines()
        return ", ".join(line.split(",")[0].strip() for line in said if any(word in line for word in self.version_has.split("|")))

    def behind(self) -> list[Path]:
        """Where its files lie, from outside."""
        return [Path(self.host.path(str(one))) for one in self.stored]

    def up(self) -> None:
        raise NotImplementedError

    def mount(self, host: Host, at: str, *, impatient: bool = False) -> None:
        raise NotImplementedError

    def log(self, name: str) -> str:
        return str(self.directory / f"{name}.log")


class Sshfs(Server):
    """sshd on its host's address, with keys made now, for this run only."""

    kind = "sshfs"
    programs = ("sshd", "ssh", "ssh-keygen", "sshfs")
    version_of = ("sshfs", "--version", ";", "ssh", "-V")
    version_has = "SSHFS|OpenSSH"
    full_codes = ("NO_SPACE", "IO_ERROR")  # sftp has no word for it: EIO, and only when the file is closed

    def up(self) -> None:
        keys = self.directory
        for name in ("host_key", "user_key"):
            self.host.run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(keys / name))
        (keys / "authorized_keys").write_text((keys / "user_key.pub").read_text())
        (keys / "known_hosts").write_text(f"{self.host.address} {(keys / 'host_key.pub').read_text()}")
        (keys / "sshd_config").write_text(
            f"ListenAddress {self.host.address}:22\nHostKey {keys}/host_key\nAuthorizedKeysFile {keys}/authorized_keys\n"
            "PidFile none\nUsePAM no\nStrictModes no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n"
            "PermitRootLogin prohibit-password\nAllowTcpForwarding no\nX11Forwarding no\nSubsystem sftp internal-sftp\nLogLevel VERBOSE\n"
        )
        self.host.run("mkdir", "-p", "/run/sshd")
        self.daemon = self.host.start(["/usr/sbin/sshd", "-D", "-e", "-f", str(keys / "sshd_config")], self.log("sshd"))
        eventually("sshd listens", lambda: ":22" in self.host.run("ss", "-Hltn"), UP_S, 0.05)

    def mount(self, host: Host, at: str, *, impatient: bool = False) -> None:
        """As an administrator would: reconnect, and a keep-alive that notices a dead server, but not before a story is over."""
        keys = self.directory
        ssh = f"IdentityFile={keys}/user_key,IdentitiesOnly=yes,UserKnownHostsFile={keys}/known_hosts,StrictHostKeyChecking=yes"
        host.run("mkdir", "-p", at)
        options = f"{ssh},ConnectTimeout=20,BatchMode=yes,reconnect,default_permissions"
        options += f",ServerAliveInterval={IMPATIENT_S // 2 if impatient else 15},ServerAliveCountMax={2 if impatient else 4}"
        host.run("sshfs", "-F", "/dev/null", f"root@{self.host.address}:{self.stored[0]}", at, "-o", options, seconds=UP_S)


class Gluster(Server):
    """glusterd and a volume of two bricks, files spread over both by the hash of their names.

    A rename and an unlink of one name from two hosts can wait for each other in its locks (gluster/glusterfs#3089), until `network.frame-timeout`:
    half an hour, unless told otherwise."""

    kind = "gluster"
    programs = ("glusterd", "gluster", "glusterfsd", "glusterfs", "mount.glusterfs")
    version_of = ("glusterfs", "--version")
    version_has = "glusterfs 1"
    stored_in = ("brick1", "brick2")
    full_after_s = 15.0  # a brick looks every 5 s whether storage.reserve (1 %) is free, and says ENOSPC from one look to the next

    def up(self) -> None:
        host = self.host
        for own in ("/var/lib/glusterd", "/var/log/glusterfs"):
            host.run("mount", "-t", "tmpfs", "tmpfs", own)
        host.run("mkdir", "-p", "/run/gluster", "/var/log/glusterfs/bricks")
        host.run("glusterd", "--log-file", self.log("glusterd"), "--pid-file", str(self.directory / "glusterd.pid"), seconds=UP_S)
        bricks = [f"{host.address}:{one}/data" for one in self.stored]
        self.ask("volume", "create", "kv", *bricks, "force")
        self.ask("volume", "set", "kv", "network.frame-timeout", str(FRAME_S))
        self.ask("volume", "start", "kv")

    def ask(self, *words: str) -> None:
        last = ""
        for _ in range(20):  # it says "another transaction is in progress", or is not up yet
            try:
                self.host.run("gluster", "--mode=script", *words, seconds=UP_S)
                return
            except CommandFailed as error:
                last = str(error)
                time.sleep(0.3)
                if words[1] == "start" and "already started" in last:
                    return
        raise CommandFailed(last)

    def behind(self) -> list[Path]:
        return [one / "data" for one in super().behind()]

    def mount(self, host: Host, at: str, *, impatient: bool = False) -> None:
        self.ask("volume", "set", "kv", "network.ping-timeout", str(IMPATIENT_S if impatient else 42))  # 42 is its default
        host.run("mkdir", "-p", at, "/var/log/glusterfs")
        host.run("mount", "-t", "glusterfs", "-o", f"log-file={self.directory}/client-{host.cable}.log", f"{self.host.address}:/kv", at, seconds=UP_S)


class MooseFs(Server):
    """A master and one chunk server. It takes a new file only while it has room for a whole chunk (64 MiB), and for several more for each file
    that is being written; a client that finds none tries again for two minutes, in `close`. What is removed keeps its room for a day unless told
    otherwise. So a small one is full after some blocks, and its clients hang without any cut."""

    kind = "moosefs"
    programs = ("mfsmaster", "mfschunkserver", "mfsmount")
    version_of = ("mfsmount", "-V")
    version_has = "MFS|MooseFS"
    stored_mib = 65536  # in memory is only what was written
    full_codes = ()  # to the brim is farther than it goes by itself, and harms loads as well

    def up(self) -> None:
        host, own = self.host, self.directory
        (own / "master").mkdir()
        (own / "chunk").mkdir()
        (own / "master" / "metadata.mfs").write_bytes(b"MFSM NEW")
        (own / "exports.cfg").write_text("* / rw,alldirs,maproot=0:0\n* . rw\n")
        (own / "master.cfg").write_text(
            f"WORKING_USER = root\nWORKING_GROUP = root\nDATA_PATH = {own}/master\nEXPORTS_FILENAME = {own}/exports.cfg\n"
            "CHUNKS_LOOP_MIN_TIME = 60\nREPLICATIONS_DELAY_INIT = 1\n"
            f"MATOML_LISTEN_HOST = {host.address}\nMATOCS_LISTEN_HOST = {host.address}\nMATOCL_LISTEN_HOST = {host.address}\n"
        )
        (own / "hdd.cfg").write_text(f"{self.stored[0]}\n")
        (own / "chunk.cfg").write_text(
            f"WORKING_USER = root\nWORKING_GROUP = root\nDATA_PATH = {own}/chunk\nHDD_CONF_FILENAME = {own}/hdd.cfg\n"
            f"HDD_LEAVE_SPACE_DEFAULT = 1MiB\nMASTER_HOST = {host.address}\nCSSERV_LISTEN_HOST = {host.address}\nBIND_HOST = {host.address}\n"
        )
        host.run("mfsmaster", "-c", str(own / "master.cfg"), "start", seconds=UP_S)
        host.run("mfschunkserver", "-c", str(own / "chunk.cfg"), "start", seconds=UP_S)

    def mount(self, host: Host, at: str, *, impatient: bool = False) -> None:
        host.run("mkdir", "-p", at)
        host.run("mfsmount", at, "-H", self.host.address, "-o", f"mfsioretries={3 if impatient else 30}", seconds=UP_S)
        host.run("mfssettrashtime", "0", at)
        eventually("the chunk server is known", lambda: int(host.run("stat", "-f", "-c", "%b", at)) > 0, UP_S, 0.05)


SERVERS: dict[str, type[Server]] = {one.kind: one for one in (Sshfs, Gluster, MooseFs)}
