/** nginx as a stream proxy, as quick as it goes: a worker a processor with a socket of its own, no logs. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { type Place, startAt } from '../../src/lab/place.ts';
import { versionOf } from '../machine.ts';
import { untilAnswered } from '../stage.ts';
import type { Peer, ProxyOptions } from './peer.ts';

export const config = ({ folder, address, port, backends }: ProxyOptions): string => `daemon off;
user root;
worker_processes ${availableParallelism()};
pid ${join(folder, 'nginx.pid')};
error_log stderr crit;
load_module /usr/lib/nginx/modules/ngx_stream_module.so;
events {
  worker_connections 16384;
  multi_accept on;
}
stream {
  access_log off;
  upstream backends {
    random;
    ${backends.map((backend) => `server ${backend} max_fails=0;`).join('\n    ')}
  }
  server {
    listen ${address}:${port} reuseport backlog=4096;
    proxy_connect_timeout 3s;
    proxy_timeout 1h;
    proxy_pass backends;
  }
}
`;

export async function startNginx(place: Place, options: ProxyOptions): Promise<Peer> {
  const text = config(options);
  mkdirSync(options.folder, { recursive: true });
  const file = join(options.folder, 'nginx.conf');
  writeFileSync(file, text);
  const program = startAt(place, ['nginx', '-e', 'stderr', '-p', options.folder, '-c', file]);
  await untilAnswered(options.client, options.address, options.port, program);
  return {
    given: `nginx ${versionOf(['nginx', '-v'], /nginx\/(\S+)/)}\n${text}`,
    // Its master ends the workers; the group is killed when it does not.
    stop: async () => void (await program.stop()),
  };
}
