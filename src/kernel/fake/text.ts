/** The whole fake as sorted text. */
import type { FakeCgroups } from './cgroup.ts';
import type { Space } from './space.ts';
import type { World } from './world.ts';

function fields(object: object): string {
  return Object.entries(object)
    .filter(([key, value]) => key !== 'other' && value !== undefined && value !== '' && value !== 0)
    .map(([key, value]) => `${key}=${typeof value === 'object' ? JSON.stringify(value) : String(value)}`)
    .join(' ');
}

function dumpSpace(name: string, space: Space): string[] {
  const say = (kind: string, things: readonly object[]): string[] =>
    things.map((thing) => `${name} ${kind} ${fields(thing)}`);
  return [
    ...say('link', [...space.links.values()]),
    ...say('address', space.addresses),
    ...say('route', space.routes),
    ...say('rule', space.rules),
    ...say('neighbour', space.neighbours),
    ...say('fdb', space.fdb),
    ...[...space.sysctls].map(([key, value]) => `${name} sysctl ${key}=${value}`),
    ...(space.nft.list('ruleset') ?? []).map((object) => `${name} nft ${JSON.stringify(object)}`),
  ];
}

export function dumpWorld(host: Space, world: World, cgroups: FakeCgroups): string {
  const lines = [
    ...dumpSpace('host', host),
    ...[...world.mounts].flatMap(([path, space]) => [`netns ${path}`, ...dumpSpace(path, space)]),
    ...cgroups.paths().map((path) => `cgroup ${path} ${cgroups.processes(path).join(',')}`.trim()),
  ];
  return `${lines.sort().join('\n')}\n`;
}
