/**
 * nftables DNAT in the client's own namespace, so that nothing but the translation is added to the direct path: one rule over
 * one flat map, the quickest layout there is, and several client addresses, so that ports are not used again too soon.
 */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { SluiceError } from '../../src/errors.ts';
import { type Place, runAt } from '../../src/lab/place.ts';
import { versionOf } from '../machine.ts';
import type { Peer } from './peer.ts';

export interface NftOptions {
  readonly folder: string;
  /** The address and port that are translated. */
  readonly address: string;
  readonly port: number;
  readonly backends: readonly { readonly address: string; readonly port: number }[];
}

/** Closed connections leave conntrack sooner than the two minutes in which their number would exceed every table. */
const SYSCTLS = [
  'net.netfilter.nf_conntrack_tcp_timeout_time_wait=5',
  'net.netfilter.nf_conntrack_tcp_timeout_close=1',
];

export const ruleset = ({ address, port, backends }: NftOptions): string => {
  const elements = backends.map(
    (backend, slot) => `${address} . tcp . ${port} . ${slot} : ${backend.address} . ${backend.port}`,
  );
  return `table ip bench
delete table ip bench
table ip bench {
  map backends {
    typeof ip daddr . meta l4proto . th dport . numgen random mod 65536 : ip daddr . tcp dport
    elements = { ${elements.join(', ')} }
  }
  chain output {
    type nat hook output priority -100;
    ip daddr ${address} dnat ip to ip daddr . meta l4proto . th dport . numgen random mod ${backends.length} map @backends
  }
}
`;
};

export async function startNft(client: Place, options: NftOptions): Promise<Peer> {
  const text = ruleset(options);
  mkdirSync(options.folder, { recursive: true });
  const file = join(options.folder, 'rules.nft');
  writeFileSync(file, text);
  for (const argv of [
    ['nft', '-f', file],
    ['sysctl', '-qw', ...SYSCTLS],
  ]) {
    const { code, stderr } = await runAt(client, argv);
    if (code !== 0) throw new SluiceError('internal', `${argv.join(' ')}: status ${code}: ${stderr}`);
  }
  return {
    given: `nftables ${versionOf(['nft', '--version'], /v(\S+)/)}, in the client's namespace\n${text}${SYSCTLS.join('\n')}`,
    stop: async () => void (await runAt(client, ['nft', 'delete', 'table', 'ip', 'bench'])),
  };
}
