// mount.ts — a file system and its mount options, and what they mean for a cache when the server or the disk stops answering. Pure.
import { asWord } from '../completion/quoted.ts';
import { duration } from '../text/units.ts';
import { found } from './findings.ts';
import type { Finding } from './findings.ts';
import type { MountEntry } from './mountinfo.ts';

export interface MountContext {
  /** The directory, without links if it could be opened. */
  path: string;
  /** Of fs.fuse.default_request_timeout. */
  fuseTimeoutS: number | null;
  /** Who is to use it; null: not known. */
  uid: number | null;
}

type Look = (mount: MountEntry, context: MountContext) => Finding[];

/** What every hang costs, however it ends. */
const LANES = 'kvlane answers by its deadlines and refuses the mount at once meanwhile; each call that hangs keeps a thread and a slot (at most --stuck-max, 64 unless told otherwise)';
/** A client that gives up sooner takes a busy server for a dead one. */
const NFS_SOFT_MS_MIN = 3_000;
const NFS_TRANSFER_BYTES_MIN = 256 * 1024;
const NFS_TIMEO_DEFAULT = 600;
const NFS_RETRANS_DEFAULT = 2;

export function mountFindings(mount: MountEntry, context: MountContext): Finding[] {
  const kind = mount.type.startsWith('fuse') ? 'fuse' : mount.type;
  const look = Object.hasOwn(LOOKS, kind) ? LOOKS[kind]! : other;
  return [where(mount, context), ...look(mount, context), ...access(mount)];
}

function where(mount: MountEntry, { path }: MountContext): Finding {
  const what = `${path} lies on ${mount.point}: ${mount.type}, ${mount.source}, device ${mount.device}`;
  if (mount.point === '/') {
    return found('mount.where', 'warn', what, "it is no mount of its own: blocks fill the system's own file system, or the one that was to be mounted here is not", `if a file system belongs here: findmnt ${path}; mount it before the engine starts`);
  }
  if (mount.point !== path) return found('mount.where', 'ok', what, 'the store is a directory of that mount; if the mount is missing one day, kvlane.json is not found there, and nothing is written underneath');
  return found('mount.where', 'ok', what);
}

function access({ options, type }: MountEntry): Finding[] {
  const findings: Finding[] = [];
  if (options.has('ro')) findings.push(found('mount.read-only', 'bad', 'mounted read-only (ro)', 'blocks that are there could be loaded; nothing can be stored', 'mount -o remount,rw; if it became read-only by itself, the kernel met an error there: dmesg'));
  if (options.has('sync')) findings.push(found('mount.sync', 'warn', 'mounted with sync', 'each write of a store waits for the device or the server, which a cache does not need', 'mount -o remount,async'));
  if (options.has('dirsync') || options.has('wsync')) findings.push(found('mount.dirsync', 'warn', `mounted with ${options.has('dirsync') ? 'dirsync' : 'wsync'}`, 'each create and rename of a store waits for the device or the server, which a cache does not need', 'leave the option out of /etc/fstab, and mount it anew'));
  if (LOCAL.has(type) && !options.has('noatime')) {
    findings.push(found('mount.atime', 'note', `access times are kept (${options.has('relatime') ? 'relatime' : 'strictatime'})`,
      "kvlane opens its own files with O_NOATIME; of another user's files the kernel refuses that, and then a read may wait for a write of the journal", 'mount -o remount,noatime'));
  }
  return findings;
}

const LOCAL = new Set(['ext2', 'ext3', 'ext4', 'xfs', 'btrfs', 'f2fs', 'bcachefs', 'zfs']);

const LOOKS: Record<string, Look> = {
  nfs, nfs4: nfs, fuse,
  ext2: ext, ext3: ext, ext4: ext, xfs, btrfs, zfs, f2fs: plainLocal, bcachefs: plainLocal,
  tmpfs, ramfs: tmpfs,
  overlay, aufs: overlay,
  ceph, lustre,
  cifs, smb3: cifs,
  '9p': shared, virtiofs: shared,
  gpfs: cluster, beegfs: cluster, afs: cluster, gfs2: cluster, ocfs2: cluster,
  autofs,
};

function nfs({ type, options }: MountEntry): Finding[] {
  const version = type === 'nfs4' ? `NFS ${text(options, 'vers') ?? '4'}` : `NFS ${text(options, 'vers') ?? ''}`.trim();
  const timeo = number(options, 'timeo') ?? NFS_TIMEO_DEFAULT;
  const retrans = number(options, 'retrans') ?? NFS_RETRANS_DEFAULT;
  // timeo is in tenths of a second; each retry waits longer by as much again, and the sum counts once.
  const giveUpMs = timeo * 100 * (retrans + 1);
  const findings: Finding[] = [];
  const given = `timeo=${timeo}, retrans=${retrans}`;
  const softly = options.has('softerr') ? 'softerr' : options.has('soft') ? 'soft' : null;
  if (softly === null) {
    findings.push(found('mount.nfs', 'note', `${version}, hard (${given})`, `when the server dies, a call waits until it is back, however long that takes; ${LANES}`,
      'for a mount that holds nothing but this cache: -o softerr,timeo=50,retrans=2 gives the threads back after about 15 s'));
  } else if (giveUpMs < NFS_SOFT_MS_MIN) {
    findings.push(found('mount.nfs', 'warn', `${version}, ${softly} (${given}): a call fails after about ${duration(giveUpMs)}`, 'a server that is merely busy is taken for a dead one: loads and stores fail with EIO under load', `-o ${softly},timeo=50,retrans=2: about 15 s`));
  } else {
    findings.push(found('mount.nfs', 'ok', `${version}, ${softly} (${given})`,
      `when the server dies, a call fails with ${softly === 'softerr' ? 'ETIMEDOUT' : 'EIO'} after about ${duration(giveUpMs)}, and its thread is free again; a block that is damaged by that has a wrong checksum and is a miss`));
  }
  if ((text(options, 'proto') ?? '').startsWith('udp')) findings.push(found('mount.nfs-udp', 'warn', 'over UDP', 'fragments of different requests may be put together on a fast network; kvlane finds it by the checksum, and the block is lost', '-o proto=tcp'));
  if (options.has('intr') || options.has('nointr')) findings.push(found('mount.nfs-intr', 'note', `the option ${options.has('intr') ? 'intr' : 'nointr'} has been without effect since Linux 2.6.25`, 'it ends no call that hangs', 'leave it out'));
  const noCache = options.has('noac') ? 'noac' : number(options, 'acregmax') === 0 || number(options, 'actimeo') === 0 ? 'actimeo=0' : text(options, 'lookupcache') === 'none' ? 'lookupcache=none' : null;
  if (noCache !== null) findings.push(found('mount.nfs-attributes', 'warn', `${noCache}: nothing is known of a file without asking the server`, 'each block of a look-up is a round trip, and writes are synchronous with noac', `leave ${noCache} out: block files never change under their name without a new inode`));
  for (const which of ['rsize', 'wsize'] as const) {
    const bytes = number(options, which);
    if (bytes !== null && bytes < NFS_TRANSFER_BYTES_MIN) findings.push(found(`mount.nfs-${which}`, 'note', `${which}=${bytes}: a block of 1 MiB takes ${Math.ceil(1024 * 1024 / bytes)} requests`, '', `-o ${which}=1048576`));
  }
  return findings;
}

/** What is known of daemons by the name that they mount under. */
const DAEMONS: Record<string, readonly [why: string, todo: string]> = {
  sshfs: ['without keep-alives it waits for TCP to give up, some 15 min after the last answer', 'sshfs -o reconnect,ServerAliveInterval=5,ServerAliveCountMax=2'],
  glusterfs: ['a brick that dies is waited for, 42 s unless the volume says otherwise', 'gluster volume set VOLUME network.ping-timeout 5'],
  'ceph-fuse': ['it waits for ever for OSDs that are gone', 'ceph health before the engine; --client_mount_timeout bounds the mounting alone'],
  s3fs: ['an object store has no rename: each store is copied once more there', 'a directory of a file system with renames, if there is one'],
  'mountpoint-s3': ['it has no rename of files in most buckets', 'see what the probe says of rename'],
  gcsfuse: ['a rename copies the object and removes the old one', 'see what the probe says of rename'],
  rclone: ['without a cache it has no writes in place, and its renames may be copies', 'rclone mount --vfs-cache-mode writes'],
  juicefs: ['an object that cannot be had is asked for ten times, for up to a minute each, unless it was told otherwise', 'juicefs mount --get-timeout 5 --put-timeout 5 --io-retries 2'],
  hf3fs: ['3FS by its FUSE client: its own way past the kernel (USRBIO) is not used', ''],
  goofys: ['it has no writes in place', 'see what the probe says of writes'],
};

function fuse({ type, options, device, source, point }: MountEntry, { fuseTimeoutS, uid }: MountContext): Finding[] {
  const daemon = type.includes('.') ? type.slice(type.indexOf('.') + 1) : source;
  const [own, todo] = Object.hasOwn(DAEMONS, daemon) ? DAEMONS[daemon]! : ['', ''];
  // Of fuseblk the device is the disk's, and the connection has another number.
  const abort = type.startsWith('fuseblk') ? `sudo umount -f ${asWord(point)}` : `echo 1 | sudo tee /sys/fs/fuse/connections/${device.slice(device.indexOf(':') + 1)}/abort`;
  const findings = [
    found('mount.fuse', 'note', `FUSE, served by a process of this machine (${daemon})`,
      `when that process hangs, every call on the mount does, and a process that has a file open there hangs when it ends, killed or not; when it dies, calls fail with ENOTCONN; ${LANES}`,
      `to end a hang for good: ${abort}, then mount it anew`),
  ];
  if (own !== '') findings.push(found('mount.fuse-daemon', 'note', daemon, own, todo));
  if (fuseTimeoutS === 0) findings.push(found('mount.fuse-timeout', 'note', 'fs.fuse.default_request_timeout is 0: no request has a time limit', 'a daemon that hangs is waited for without end', 'sudo sysctl fs.fuse.default_request_timeout=60 before it is mounted; it then breaks a mount that hangs for longer, for all who use it'));
  const owner = number(options, 'user_id');
  if (owner !== null && uid !== null && owner !== uid && !options.has('allow_other')) findings.push(found('mount.fuse-owner', 'bad', `user ${owner} mounted it for himself (no allow_other); this is user ${uid}`, 'the kernel lets nobody else in', 'mount it as the user of the engine, or with -o allow_other'));
  return findings;
}

function ext({ type, options }: MountEntry): Finding[] {
  const findings = [found('mount.local', 'ok', `${type}, a file system of this machine`, `when its device stops answering, calls wait for it in the kernel; ${LANES}`)];
  if (text(options, 'data') === 'journal') findings.push(found('mount.journalled-data', 'warn', 'data=journal', 'all data is written twice, and O_DIRECT goes through the page cache', 'data=ordered, the default'));
  if (text(options, 'errors') === 'panic') findings.push(found('mount.errors', 'warn', 'errors=panic', 'a damaged cache takes the machine down with it', 'tune2fs -e remount-ro DEVICE'));
  return [...findings, ...trimming(options), ...barriers(options)];
}

function xfs({ options }: MountEntry): Finding[] {
  return [found('mount.local', 'ok', 'xfs, a file system of this machine', `when its device stops answering, calls wait for it in the kernel; ${LANES}`), ...trimming(options), ...barriers(options)];
}

function btrfs({ options }: MountEntry): Finding[] {
  const findings = [found('mount.local', 'ok', 'btrfs, a file system of this machine that copies on write', 'files that are replaced leave fragments; removed blocks are not overwritten (--recycle), since nothing is gained by it')];
  const compress = text(options, 'compress') ?? text(options, 'compress-force');
  if (compress !== null) findings.push(found('mount.compression', 'note', `compress=${compress}`, 'KV caches hardly shrink, and files that are compressed are read through the page cache', 'btrfs property set DIR compression none, before the store is made'));
  return [...findings, ...trimming(options)];
}

function zfs(): Finding[] {
  return [found('mount.local', 'ok', 'zfs, a file system of this machine that copies on write', 'O_DIRECT goes past its cache (ARC) from OpenZFS 2.3 on; before, each block is kept in memory a second time', 'zfs set atime=off recordsize=1M primarycache=metadata DATASET')];
}

function plainLocal({ type, options }: MountEntry): Finding[] {
  return [found('mount.local', 'ok', `${type}, a file system of this machine`, `when its device stops answering, calls wait for it in the kernel; ${LANES}`), ...trimming(options)];
}

function trimming(options: MountEntry['options']): Finding[] {
  if (!options.has('discard')) return [];
  return [found('mount.discard', 'note', 'mounted with discard', 'each file that is removed or replaced costs the device a command', 'mount -o remount,nodiscard, and systemctl enable --now fstrim.timer')];
}

function barriers(options: MountEntry['options']): Finding[] {
  if (!options.has('nobarrier') && text(options, 'barrier') !== '0') return [];
  return [found('mount.barriers', 'note', 'the device is not told to empty its cache (nobarrier)', 'after a power cut the file system itself may be damaged; blocks that are damaged are recognised', 'fine for a cache on a disk of its own')];
}

function tmpfs({ type, options }: MountEntry): Finding[] {
  const size = text(options, 'size');
  const limit = /^0[kmg]?$/i.test(size ?? '') ? null : size; // 0: none
  return [found('mount.memory', 'warn', `${type}: blocks lie in memory${limit === null ? '' : `, at most ${limit}`}`, 'they are gone after a reboot or umount, and count against the control group of whoever stored them; it cannot hang', 'a disk or a server, if blocks are to survive')];
}

function overlay({ type, options }: MountEntry): Finding[] {
  const upper = text(options, 'upperdir');
  return [found('mount.overlay', 'warn', `${type}${upper === null ? '' : ` over ${upper}`}: most likely the container's own layer`, 'blocks are gone with the container, nobody else sees them, and they fill the disk of the container runtime', 'a volume: docker run -v /mnt/cache:/mnt/cache; in Kubernetes a hostPath or a persistent volume')];
}

function ceph({ options }: MountEntry): Finding[] {
  const timeout = number(options, 'osd_request_timeout');
  if (timeout !== null && timeout > 0) return [found('mount.cluster', 'ok', `CephFS, osd_request_timeout=${timeout}`, `when OSDs are gone, a call fails after ${timeout} s`)];
  return [found('mount.cluster', 'note', 'CephFS', `when OSDs or the metadata server are gone, calls wait until they are back; ${LANES}`, '-o recover_session=clean, so that a client that was evicted comes back by itself; osd_request_timeout=30 makes calls fail instead')];
}

function lustre(): Finding[] {
  return [found('mount.cluster', 'note', 'Lustre', `when a server is gone, calls wait for its recovery, minutes as a rule; ${LANES}`, 'lctl get_param timeout at_max: they bound the waiting; lfs setstripe -c 1 DIR, as one block lies on one target')];
}

function cifs({ options }: MountEntry): Finding[] {
  if (options.has('hard')) return [found('mount.cifs', 'note', 'SMB, hard', `when the server dies, calls wait until it is back; ${LANES}`, '-o soft gives the threads back')];
  return [found('mount.cifs', 'ok', 'SMB, soft', 'when the server dies, calls fail after some of its echo_interval (60 s unless told otherwise)')];
}

function shared({ type }: MountEntry): Finding[] {
  return [found('mount.shared', 'note', `${type}, a directory of the host that runs this machine`, `when the host's side hangs, so do all calls here; ${LANES}`)];
}

function cluster({ type }: MountEntry): Finding[] {
  return [found('mount.cluster', 'note', `${type}, a file system of several machines`, `when a server is gone, calls wait for it, as its client is set; ${LANES}`)];
}

function autofs(): Finding[] {
  return [found('mount.autofs', 'warn', 'autofs: nothing was mounted here yet', 'the first call mounts it, and waits for that', 'mount it before the engine starts, or leave autofs out')];
}

function other({ type }: MountEntry): Finding[] {
  return [found('mount.unknown', 'note', `kvlane knows nothing of ${type}`, `it is served like any other file system: what matters is in the probe; ${LANES}`)];
}

function text(options: MountEntry['options'], name: string): string | null {
  const value = options.get(name);
  return typeof value === 'string' ? value : null;
}

function number(options: MountEntry['options'], name: string): number | null {
  const value = text(options, name);
  return value !== null && /^[0-9]+$/.test(value) ? Number(value) : null;
}
