/**
 * The bridge plugin of CNI with host-local, executed as a runtime does it: ADD and DEL, a process each, from a shell that
 * does nothing else. Without ipMasq and portmap, which would execute iptables besides.
 */
import { existsSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { SluiceError } from '../../src/errors.ts';
import { type Place, runAt } from '../../src/lab/place.ts';
import { versionOf } from '../machine.ts';

export interface CniOptions {
  readonly folder: string;
  /** The namespace that is attached and detached. */
  readonly netnsPath: string;
}

export interface Cni {
  readonly given: string;
  /** Attaches and detaches so often; attachments a second, until the last link is gone. */
  cycles(count: number): Promise<number>;
}

const PLUGINS = '/usr/lib/cni';
export const hasCni = (): boolean => ['bridge', 'host-local'].every((name) => existsSync(join(PLUGINS, name)));

export const config = (folder: string): string =>
  JSON.stringify({
    cniVersion: '1.0.0',
    name: 'bench',
    type: 'bridge',
    bridge: 'bench0',
    isGateway: true,
    ipam: {
      type: 'host-local',
      dataDir: join(folder, 'leases'),
      ranges: [[{ subnet: '10.79.0.0/16' }]],
      routes: [{ dst: '0.0.0.0/0' }],
    },
  });

/** DEL returns when the link is gone, so the loop's end is the last link's. Arguments: count, configuration. */
const LOOP = `
export CNI_CONTAINERID=bench CNI_IFNAME=cni0 CNI_PATH=${PLUGINS}
date +%s%N
while [ "$count" -gt 0 ]; do
  CNI_COMMAND=ADD ${PLUGINS}/bridge <"$config" >/dev/null || exit 1
  CNI_COMMAND=DEL ${PLUGINS}/bridge <"$config" || exit 1
  count=$((count - 1))
done
date +%s%N
`;

/** `host`: where the bridge is made. */
export function prepareCni(host: Place, { folder, netnsPath }: CniOptions): Cni {
  mkdirSync(folder, { recursive: true });
  const file = join(folder, 'bridge.conf');
  writeFileSync(file, config(folder));
  return {
    given: `CNI plugins ${versionOf(['dpkg-query', '-s', 'containernetworking-plugins'], /^Version: (\S+)/m)}\n${config(folder)}`,
    async cycles(count) {
      const env = { count: String(count), config: file, CNI_NETNS: netnsPath };
      const { code, stdout, stderr } = await runAt(host, LOOP, { env, timeoutMs: 10_000 + 2_000 * count });
      const times = stdout.match(/^\d{15,}$/gm) ?? [];
      if (code !== 0 || times.length !== 2)
        throw new SluiceError('internal', `CNI: status ${code}: ${stdout}${stderr}`);
      return count / (Number(BigInt(times[1]!) - BigInt(times[0]!)) / 1e9);
    },
  };
}
