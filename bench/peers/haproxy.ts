/** HAProxy in TCP mode, as quick as it goes: a thread a processor with a listener of its own, no logs, no checks. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { type Place, startAt } from '../../src/lab/place.ts';
import { versionOf } from '../machine.ts';
import { untilAnswered } from '../stage.ts';
import type { Peer, ProxyOptions } from './peer.ts';

const THREADS = availableParallelism();

export const config = ({ address, port, backends }: ProxyOptions): string => `global
  nbthread ${THREADS}
  maxconn 8000
  tune.listener.multi-queue on
defaults
  mode tcp
  balance random
  timeout connect 3s
  timeout client 1h
  timeout server 1h
  option tcp-smart-accept
  option tcp-smart-connect
frontend bench
  ${Array.from({ length: THREADS }, (_, thread) => `bind ${address}:${port} thread 1/${thread + 1} backlog 4096`).join('\n  ')}
  default_backend backends
backend backends
  ${backends.map((backend, at) => `server b${at + 1} ${backend}`).join('\n  ')}
`;

export async function startHaproxy(place: Place, options: ProxyOptions): Promise<Peer> {
  const text = config(options);
  mkdirSync(options.folder, { recursive: true });
  const file = join(options.folder, 'haproxy.cfg');
  writeFileSync(file, text);
  const program = startAt(place, ['haproxy', '-db', '-f', file]);
  await untilAnswered(options.client, options.address, options.port, program);
  return {
    given: `HAProxy ${versionOf(['haproxy', '-v'], /version (\S+)/)}\n${text}`,
    stop: async () => void (await program.stop()),
  };
}
