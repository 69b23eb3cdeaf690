/** An image of Debian's static busybox, as the docker archive that `docker save` would write: no network, no other tool. */
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { pack } from 'tar-stream';

/** What of an OCI image configuration a test sets. */
export interface BusyboxConfig {
  readonly Entrypoint?: readonly string[];
  readonly Cmd?: readonly string[];
  readonly Env?: readonly string[];
  readonly User?: string;
  readonly WorkingDir?: string;
  readonly StopSignal?: string;
  readonly ExposedPorts?: Readonly<Record<string, object>>;
  readonly Volumes?: Readonly<Record<string, object>>;
  /** Nanoseconds, as Docker has them. */
  readonly Healthcheck?: { readonly Test: readonly string[]; readonly Interval?: number; readonly Retries?: number };
}

async function bytesOf(archive: AsyncIterable<Uint8Array>): Promise<Buffer> {
  const chunks: Uint8Array[] = [];
  for await (const chunk of archive) chunks.push(chunk);
  return Buffer.concat(chunks);
}

function layer(files: Readonly<Record<string, string>>): Promise<Buffer> {
  const archive = pack();
  for (const name of ['bin', 'dev', 'etc', 'home', 'proc', 'root', 'sys', 'usr', 'usr/bin', 'var'])
    archive.entry({ name, type: 'directory', mode: 0o755 });
  archive.entry({ name: 'tmp', type: 'directory', mode: 0o1777 });
  archive.entry({ name: 'bin/busybox', mode: 0o755 }, readFileSync('/bin/busybox'));
  for (const name of execFileSync('/bin/busybox', ['--list'], { encoding: 'utf8' }).trim().split('\n'))
    if (name !== 'busybox') archive.entry({ name: `bin/${name}`, type: 'symlink', linkname: 'busybox' });
  const etc = {
    'etc/passwd': 'root:x:0:0:root:/root:/bin/sh\nweb:x:1000:1000::/home:/bin/sh\n',
    'etc/group': 'root:x:0:\nweb:x:1000:\n',
  };
  const folders = new Set<string>();
  for (const [name, text] of Object.entries({ ...etc, ...files })) {
    const folder = name.split('/').slice(0, -1).join('/');
    if (!/^(bin|etc|home|root|var|tmp)?$/.test(folder) && !folders.has(folder))
      archive.entry({ name: folder, type: 'directory', mode: 0o755 });
    folders.add(folder);
    archive.entry({ name, mode: 0o644 }, text);
  }
  archive.finalize();
  return bytesOf(archive as AsyncIterable<Uint8Array>);
}

/** A docker archive of one image, whose name is `name`. `files`: more of them, by path without the leading slash. */
export async function busyboxArchive(
  name = 'busybox:latest',
  config: BusyboxConfig = {},
  files: Readonly<Record<string, string>> = {},
): Promise<Buffer> {
  const tar = await layer(files);
  const diffId = `sha256:${createHash('sha256').update(tar).digest('hex')}`;
  const architecture = { x64: 'amd64', arm64: 'arm64' }[process.arch as 'x64' | 'arm64'];
  const image = JSON.stringify({
    architecture,
    os: 'linux',
    created: '2026-01-01T00:00:00Z',
    config: { Cmd: ['sh'], Env: ['PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'], ...config },
    rootfs: { type: 'layers', diff_ids: [diffId] },
    history: [{ created: '2026-01-01T00:00:00Z', created_by: 'busybox-static' }],
  });
  const id = createHash('sha256').update(image).digest('hex');
  const archive = pack();
  archive.entry({ name: `${id}.json` }, image);
  archive.entry({ name: 'layer.tar' }, tar);
  archive.entry(
    { name: 'manifest.json' },
    JSON.stringify([{ Config: `${id}.json`, RepoTags: [name], Layers: ['layer.tar'] }]),
  );
  archive.finalize();
  return bytesOf(archive as AsyncIterable<Uint8Array>);
}
