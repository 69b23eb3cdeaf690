/** The TypeScript side of the maps' layouts against what the compiler recorded in the objects. */
import { execFileSync } from 'node:child_process';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import * as layout from '../../src/balancer/maps/layout.ts';
import { BpfObject } from '../../src/kernel/bpf/object.ts';

const root = join(import.meta.dirname, '../..');
const objectDir = join(root, 'dist/bpf');
execFileSync('sh', [join(root, 'src/bpf/build.sh')]);

interface BtfType {
  readonly id: number;
  readonly kind: string;
  readonly name: string;
  readonly size?: number;
  readonly members?: readonly { readonly name: string; readonly bits_offset: number }[];
  readonly values?: readonly { readonly name: string; readonly val: string }[];
}

/** `bpftool btf dump` of every object; a type may stand in several. */
const types = layout.OBJECTS.flatMap((name) => {
  const text = execFileSync('bpftool', ['-j', 'btf', 'dump', 'file', join(objectDir, name)], { encoding: 'utf8' });
  // Some versions print a negative enumerator as 64 unsigned bits, which a JSON number does not hold.
  return (JSON.parse(text.replace(/"val":(-?\d+)/g, '"val":"$1"')) as { types: BtfType[] }).types;
});
const structs = types.filter(({ kind }) => kind === 'STRUCT');
const enumerator = (name: string): number | undefined => {
  const found = types
    .flatMap(({ kind, values }) => (kind.startsWith('ENUM') ? (values ?? []) : []))
    .find((one) => one.name === name);
  return found && Number(BigInt.asIntN(32, BigInt(found.val)));
};

test.each(layout.STRUCTS.map((struct) => [struct.name, struct] as const))('struct %s', (name, struct) => {
  const found = structs.filter((type) => type.name === name);
  expect(found.length).toBeGreaterThan(0);
  for (const { size, members } of found) {
    expect(struct.size).toBe(size);
    expect(struct.offsets).toEqual(Object.fromEntries(members!.map((member) => [member.name, member.bits_offset / 8])));
  }
});

test('every map`s key and value have the size that we encode', () => {
  const sizes: Record<string, readonly [key: number, value: number]> = {
    sandboxes: [layout.COOKIE.size, layout.SANDBOX.size],
    resolvers: [layout.NUMBER.size, layout.RESOLVER.size],
    endpoints: [layout.NUMBER.size, layout.ENDPOINT.size],
    segments: [layout.NUMBER.size, layout.SEGMENT.size],
    stations: [layout.STATION_KEY.size, layout.STATION.size],
    allowed: [layout.ALLOWED_KEY.size, layout.NUMBER.size],
    endpoint_drops: [layout.NUMBER.size, layout.DROPS.size],
    frontends: [layout.FRONTEND_KEY.size, layout.FRONTEND.size],
    sets: [layout.NUMBER.size, layout.SET.size],
    slots: [layout.SLOT_KEY.size, layout.BACKEND.size],
    backends: [layout.BACKEND_KEY.size, layout.BACKEND.size],
    set_counters: [layout.NUMBER.size, layout.SET_COUNTERS.size],
    stages: [layout.NUMBER.size, layout.NUMBER.size],
    layout: [layout.NUMBER.size, layout.LAYOUT_VALUE.size],
    peers: [layout.COOKIE.size, layout.PEER.size],
    peers_overflow: [layout.NUMBER.size, layout.PEER.size],
    datagrams: [layout.NUMBER.size, layout.DATAGRAMS.size],
  };
  for (const name of layout.OBJECTS) {
    const object = new BpfObject(join(objectDir, name));
    const found = Object.fromEntries(
      Array.from(object.definitions.values(), ({ name: map, keySize, valueSize }) => [map, [keySize, valueSize]]),
    );
    object.close();
    expect(found).toEqual(sizes);
  }
});

test('numbers that both sides share', () => {
  expect(enumerator('STAGE_FROM_SANDBOX')).toBe(layout.STAGE.from_sandbox);
  expect(enumerator('STAGE_DNS')).toBe(layout.STAGE.dns);
  expect(enumerator('STAGE_FROM_TUNNEL')).toBe(layout.STAGE.from_tunnel);
  expect(enumerator('STATION_DIRECT')).toBe(layout.STATION_DIRECT);
  expect(enumerator('STATION_QUEUED')).toBe(layout.STATION_QUEUED);
  expect(enumerator('ENDPOINT_SPOOF')).toBe(layout.ENDPOINT_SPOOF);
  expect(enumerator('ENDPOINT_ALLOW')).toBe(layout.ENDPOINT_ALLOW);
  expect(enumerator('ALGORITHM_RANDOM')).toBe(layout.ALGORITHM_RANDOM);
  expect(enumerator('VERDICT_PASS')).toBe(layout.VERDICT_PASS);
  const reasons = Object.fromEntries(
    layout.DROP_REASONS.map((name, index) => [`DROP_${name.replace('-', '_').toUpperCase()}`, index]),
  );
  for (const [name, index] of Object.entries(reasons)) expect([name, enumerator(name)]).toEqual([name, index]);
  const dropReasons = types.find(({ kind, name }) => kind.startsWith('ENUM') && name === 'drop_reason');
  expect(dropReasons!.values!.map(({ name }) => name).filter((name) => name !== 'DROP_REASONS')).toEqual(
    Object.keys(reasons),
  );
});
