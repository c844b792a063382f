// What `kvlane doctor` reads in /proc/self/mountinfo, and what it makes of each file system and its options.
import { expect, test } from 'vitest';
import { mountFindings } from '../../clients/cli/doctor/mount.ts';
import { mountOf, parseMountinfo } from '../../clients/cli/doctor/mountinfo.ts';
import { placesFinding } from '../../clients/cli/doctor/places.ts';
import type { Finding } from '../../clients/cli/doctor/findings.ts';

const NFS = 'vers=4.2,rsize=1048576,wsize=1048576,namlen=255,hard,proto=tcp,timeo=600,retrans=2,sec=sys,clientaddr=10.0.0.2,local_lock=none,addr=10.0.0.1';
const line = (type: string, source: string, options = 'rw', own = 'rw,noatime', point = '/mnt/cache', device = '0:45'): string =>
  `101 28 ${device} / ${point} ${own} shared:7 master:2 - ${type} ${source} ${options}`;
const findings = (text: string, context: Partial<Parameters<typeof mountFindings>[1]> = {}): Finding[] =>
  mountFindings(parseMountinfo(text)[0]!, { path: '/mnt/cache', fuseTimeoutS: null, uid: 0, ...context });
const levels = (all: readonly Finding[]): Record<string, string> => Object.fromEntries(all.map(({ id, level }) => [id, level]));

test('a line of mountinfo is read whole, with any number of tags before the dash, and blanks, tabs and backslashes in its names', () => {
  const [mount, bare] = parseMountinfo(`36 35 98:0 /mnt1 /mnt/with\\040a\\011tab\\134and\\012more rw,noatime master:1 shared:3 - ext3 /dev/ro\\040ot rw,errors=continue\n40 35 0:5 / /dev rw - devtmpfs - rw\n\nnonsense\n`);
  expect(mount).toMatchObject({ id: 36, device: '98:0', root: '/mnt1', point: '/mnt/with a\ttab\\and\nmore', type: 'ext3', source: '/dev/ro ot' });
  expect([...mount!.options]).toEqual([['rw', true], ['noatime', true], ['errors', 'continue']]);
  expect(bare).toMatchObject({ id: 40, type: 'devtmpfs', source: '-' });
  expect(parseMountinfo('')).toEqual([]);
});

test('a mount is read-only when either it or its file system is', () => {
  for (const text of [line('ext4', '/dev/vda', 'ro'), line('ext4', '/dev/vda', 'rw', 'ro,noatime')]) {
    expect(parseMountinfo(text)[0]!.options.has('ro')).toBe(true);
    expect(levels(findings(text))).toMatchObject({ 'mount.read-only': 'bad' });
  }
});

test('a path lies on the mount with the longest name above it, and on the last of several in one place', () => {
  const mounts = parseMountinfo(['1 0 8:1 / / rw - ext4 /dev/a rw', '2 1 0:40 / /mnt rw - tmpfs t rw', '3 1 0:41 / /mnt rw - xfs /dev/b rw', '4 3 0:42 / /mnt/cache rw - nfs4 s:/x rw'].join('\n'));
  const at = (path: string): number | undefined => mountOf(path, mounts)?.id;
  expect([at('/mnt/cache'), at('/mnt/cache/a'), at('/mnt/cached'), at('/mnt'), at('/mntx'), at('/')]).toEqual([4, 4, 3, 3, 1, 1]);
  expect(mountOf('/x', [])).toBeNull();
});

test.each<[what: string, text: string, ids: Record<string, string>, says: RegExp]>([
  ['NFS 4 hard', line('nfs4', 'server:/export', NFS), { 'mount.nfs': 'note' }, /NFS 4\.2, hard \(timeo=600, retrans=2\).*softerr,timeo=50,retrans=2/s],
  ['NFS 4 soft', line('nfs4', 'server:/export', NFS.replace('hard', 'soft')), { 'mount.nfs': 'ok' }, /EIO after about 3 min/],
  ['NFS 4 softerr', line('nfs4', 'server:/export', NFS.replace('hard', 'softerr').replace('timeo=600', 'timeo=50')), { 'mount.nfs': 'ok' }, /ETIMEDOUT after about 15 s/],
  ['NFS soft and impatient', line('nfs4', 'server:/export', NFS.replace('hard', 'soft').replace('timeo=600,retrans=2', 'timeo=9,retrans=2')), { 'mount.nfs': 'warn' }, /fails after about 2\.7 s/],
  ['NFS soft and just patient enough', line('nfs4', 'server:/export', NFS.replace('hard', 'soft').replace('timeo=600,retrans=2', 'timeo=10,retrans=2')), { 'mount.nfs': 'ok' }, /after about 3 s/],
  ['NFS 3 over UDP, with an option of old', line('nfs', 'server:/export', 'vers=3,hard,intr,proto=udp,timeo=11,retrans=3,rsize=32768,wsize=262144'), { 'mount.nfs': 'note', 'mount.nfs-udp': 'warn', 'mount.nfs-intr': 'note', 'mount.nfs-rsize': 'note' }, /NFS 3, hard.*rsize=32768: a block of 1 MiB takes 32 requests/s],
  ['NFS without caches', line('nfs4', 'server:/export', `${NFS},noac`), { 'mount.nfs-attributes': 'warn' }, /noac/],
  ['sshfs', line('fuse.sshfs', 'me@host:/x', 'rw,user_id=0,group_id=0'), { 'mount.fuse': 'note', 'mount.fuse-daemon': 'note' }, /connections\/45\/abort.*ServerAliveInterval/s],
  ['GlusterFS', line('fuse.glusterfs', 'host:/vol', 'rw,user_id=0,group_id=0,allow_other'), { 'mount.fuse-daemon': 'note' }, /network\.ping-timeout/],
  ['3FS', line('fuse.hf3fs', 'hf3fs.stage', 'rw,user_id=0,group_id=0,allow_other'), { 'mount.fuse-daemon': 'note' }, /USRBIO/],
  ['a FUSE with a name that objects have', line('fuse.constructor', 'x', 'rw'), { 'mount.fuse': 'note' }, /\(constructor\)/],
  ['another one', line('fuse.__proto__', 'x', 'rw'), { 'mount.fuse': 'note' }, /\(__proto__\)/],
  ['a file system with such a name', line('toString', 'x', 'rw'), { 'mount.unknown': 'note' }, /knows nothing of toString/],
  ['NTFS by FUSE, whose device is the disk', line('fuseblk', '/dev/sda1', 'rw', 'rw', "/mnt/it's"), { 'mount.fuse': 'note' }, /to end a hang for good: sudo umount -f '\/mnt\/it'\\''s', then/],
  ['a FUSE of its own', line('fuse', 'stallfs', 'rw'), { 'mount.fuse': 'note' }, /\(stallfs\)/],
  ['CephFS', line('ceph', 'mon:/', 'rw,acl'), { 'mount.cluster': 'note' }, /recover_session=clean/],
  ['CephFS with a limit', line('ceph', 'mon:/', 'rw,osd_request_timeout=30'), { 'mount.cluster': 'ok' }, /fails after 30 s/],
  ['Lustre', line('lustre', 'mgs@tcp:/fs', 'rw,flock'), { 'mount.cluster': 'note' }, /at_max/],
  ['SMB', line('cifs', '//s/x', 'rw,hard'), { 'mount.cifs': 'note' }, /-o soft/],
  ['ext4', line('ext4', '/dev/vdb', 'rw'), { 'mount.local': 'ok' }, /ext4, a file system of this machine/],
  ['ext4 that does too much', line('ext4', '/dev/vdb', 'rw,data=journal,discard,nobarrier,errors=panic,sync', 'rw,relatime'), { 'mount.journalled-data': 'warn', 'mount.discard': 'note', 'mount.barriers': 'note', 'mount.errors': 'warn', 'mount.sync': 'warn', 'mount.atime': 'note' }, /relatime.*remount,noatime/s],
  ['xfs', line('xfs', '/dev/vdb', 'rw,attr2,inode64,wsync'), { 'mount.local': 'ok', 'mount.dirsync': 'warn' }, /mounted with wsync/],
  ['btrfs', line('btrfs', '/dev/vdb', 'rw,compress=zstd:3,discard=async'), { 'mount.compression': 'note', 'mount.discard': 'note' }, /compress=zstd:3/],
  ['zfs', line('zfs', 'tank/cache', 'rw,xattr'), { 'mount.local': 'ok' }, /OpenZFS 2\.3/],
  ['tmpfs', line('tmpfs', 'tmpfs', 'rw,size=8388608k'), { 'mount.memory': 'warn' }, /at most 8388608k/],
  ['tmpfs without a limit', line('tmpfs', 'tmpfs', 'rw,size=0k'), { 'mount.memory': 'warn' }, /blocks lie in memory \|/],
  ['a container\'s own layer', line('overlay', 'overlay', 'rw,lowerdir=/a,upperdir=/var/lib/docker/overlay2/x/diff,workdir=/w'), { 'mount.overlay': 'warn' }, /overlay2\/x\/diff/],
  ['a share of the host', line('virtiofs', 'share', 'rw'), { 'mount.shared': 'note' }, /virtiofs/],
  ['autofs', line('autofs', '/etc/auto.mnt', 'rw'), { 'mount.autofs': 'warn' }, /nothing was mounted/],
  ['what nobody has heard of', line('newfs', 'x', 'rw'), { 'mount.unknown': 'note' }, /knows nothing of newfs/],
])('%s is told with what it means', (_what, text, ids, says) => {
  const all = findings(text);
  expect(levels(all)).toMatchObject(ids);
  expect(all.map(({ what, why, do: todo }) => [what, why, todo].join(' | ')).join('\n')).toMatch(says);
});

test('whatever is wrong has something to do against it, and no finding is told twice', () => {
  const everything = 'rw,sync,dirsync,noac,intr,proto=udp,soft,timeo=1,retrans=1,rsize=1,wsize=1,discard,nobarrier,data=journal,errors=panic,compress=lzo,user_id=7';
  for (const type of ['nfs', 'nfs4', 'fuse.s3fs', 'ext4', 'xfs', 'btrfs', 'zfs', 'f2fs', 'tmpfs', 'overlay', 'ceph', 'lustre', 'cifs', '9p', 'gpfs', 'autofs', 'other']) {
    const all = findings(line(type, 'x', everything, 'rw,relatime'), { fuseTimeoutS: 0 });
    expect(new Set(all.map(({ id }) => id)).size).toBe(all.length);
    for (const { id, level, what, do: todo } of all) {
      expect(id).toMatch(/^mount\.[a-z-]+$/);
      expect(what).not.toBe('');
      if (level === 'bad' || level === 'warn') expect(todo, id).not.toBe('');
    }
  }
});

test('a directory on / is warned of, one below a mount is not', () => {
  expect(levels(findings(line('ext4', '/dev/vda', 'rw', 'rw', '/')))).toMatchObject({ 'mount.where': 'warn' });
  expect(levels(findings(line('ext4', '/dev/vda'), { path: '/mnt/cache/store' }))).toMatchObject({ 'mount.where': 'ok' });
});

test('a FUSE mount of another user is refused by the kernel, unless it was made for others', () => {
  const text = line('fuse.sshfs', 'h:/', 'rw,user_id=1000,group_id=1000');
  expect(levels(findings(text, { uid: 1001 }))).toMatchObject({ 'mount.fuse-owner': 'bad' });
  for (const all of [findings(text, { uid: 1000 }), findings(text, { uid: null }), findings(`${text},allow_other`, { uid: 1001 })]) expect(levels(all)).not.toHaveProperty('mount.fuse-owner');
});

test('what lies on the file system of the cache is found by names alone, through another mount of it too', () => {
  const mounts = parseMountinfo(['1 0 8:1 / / rw - ext4 /dev/a rw', '2 1 8:2 / /mnt/cache rw - ext4 /dev/b rw', '3 1 8:2 /logs /var/log rw - ext4 /dev/b rw'].join('\n'));
  const cache = mounts[1]!;
  const seen = placesFinding([{ what: 'the log', path: '/var/log/engine' }, { what: 'the node binary', path: '/usr/bin/node' }, { what: 'the home directory', path: '/mnt/cache/home' }], cache, mounts);
  expect(seen).toMatchObject({ level: 'warn', what: "on the cache's file system lie the log (/var/log/engine), the home directory (/mnt/cache/home)" });
  expect(placesFinding([{ what: 'the node binary', path: '/usr/bin/node' }], cache, mounts).level).toBe('ok');
});
