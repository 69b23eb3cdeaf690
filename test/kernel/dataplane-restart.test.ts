/** What survives the daemon, what is adopted, completed, repaired and carried over to another layout, under traffic. */
import { execFileSync, spawnSync } from 'node:child_process';
import { readdirSync, rmdirSync, unlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { STATION, STATION_DIRECT, STATION_KEY } from '../../src/balancer/maps/layout.ts';
import type { Dataplane } from '../../src/contracts/dataplane.ts';
import {
  closeFd,
  linkDetach,
  linkInfo,
  mapDelete,
  mapEntries,
  mapInfo,
  mapLookup,
  mapUpdate,
  objectGet,
} from '../../src/kernel/bpf/bpf.ts';
import { Bed, type BedSandbox, idOf, objectDir, PYTHON } from './dataplane-bed.ts';
import { SLOWNESS } from './kernel-bed.ts';

const VIP = '10.96.0.10';
const SET = 1;
const PORT = 8080;
const KEEP = {
  sandboxes: new Set<string>(),
  endpoints: new Set<string>(),
  segments: new Set<string>(),
  frontends: [],
  sets: new Set<number>(),
};

let bed: Bed;
let plane: Dataplane;
let client: BedSandbox;
let servers: BedSandbox[];

const backends = () => servers.map(({ number, ipv4 }) => ({ number, address: ipv4, port: PORT }));
const frontend = { view: 1, address: VIP, port: 80, protocol: 'tcp', set: SET } as const;
const keep = () => ({
  sandboxes: new Set(bed.sandboxes.map(({ id }) => id)),
  endpoints: new Set(bed.sandboxes.map(({ endpoint }) => endpoint.id)),
  segments: new Set<string>(),
  frontends: [frontend, { ...frontend, protocol: 'udp' as const }],
  sets: new Set([SET]),
});

/** All that a controller does after its start. */
function fill(on: Dataplane): void {
  for (const sandbox of bed.sandboxes) {
    on.ensureSandbox(sandbox);
    on.ensureEndpoint(sandbox.endpoint);
  }
  on.ensureBackends(SET, backends());
  for (const one of keep().frontends) on.ensureFrontend(one);
}

const connects = (n = 5): Promise<unknown[]> =>
  bed.python(client.namespace, `say([ask(TCP, '${VIP}', 80)[1:] for _ in range(${n})])`);
const served = Array.from({ length: 5 }, () => [VIP, 80]);

interface Load {
  stop(): Promise<{ readonly ok: number; readonly failed: readonly string[] }>;
}
/** Connects to the VIP without a pause until it is stopped. */
async function load(): Promise<Load> {
  const child = bed.spawn(client.namespace, [
    PYTHON,
    '-u',
    '-c',
    `
import socket, select, sys, json, errno
ok, failed = 0, []
print('ready')
while not select.select([sys.stdin], [], [], 0)[0]:
    try:
        s = socket.create_connection(('${VIP}', 80), 3); s.recv(64); s.close(); ok += 1
    except OSError as e: failed.append(str(e))
print(json.dumps({'ok': ok, 'failed': failed[:5]}))`,
  ]);
  let text = '';
  await new Promise<void>((resolve) => {
    child.stdout!.on('data', (chunk) => {
      text += chunk;
      resolve();
    });
  });
  return {
    async stop() {
      const ended = new Promise((resolve) => child.once('close', resolve));
      child.stdin!.end('x');
      await ended;
      return JSON.parse(text.trim().split('\n').at(-1)!);
    },
  };
}

/** Identities of everything pinned: `maps/frontends` → map id, `links/connect4` → link id. */
function identities(generation = 1): Record<string, number> {
  const found: Record<string, number> = {};
  for (const [kind, idOfPin] of [
    ['maps', (fd: number) => mapInfo(fd).id],
    ['links', (fd: number) => linkInfo(fd).id],
  ] as const) {
    for (const name of bed.pinned(kind, generation)) {
      const fd = objectGet(bed.pin(kind, name, generation))!;
      found[`${kind}/${name}`] = idOfPin(fd);
      closeFd(fd);
    }
  }
  return found;
}

function withPin<T>(kind: string, name: string, fn: (fd: number) => T): T {
  const fd = objectGet(bed.pin(kind, name))!;
  try {
    return fn(fd);
  } finally {
    closeFd(fd);
  }
}

beforeAll(async () => {
  bed = new Bed();
  plane = await bed.start();
  client = bed.sandbox(10);
  servers = [bed.sandbox(21), bed.sandbox(22), bed.sandbox(23)];
  for (const server of servers) await bed.serve(server, PORT);
  fill(plane);
});
afterAll(() => bed.close());

describe('a restart', () => {
  test('what was programmed works while the daemon is dead, and is adopted without rebuilding', async () => {
    const before = identities();
    const counted = plane.setCounters(SET).connects;
    plane.close();
    expect(await connects()).toEqual(served);
    plane = await bed.start();
    expect(identities()).toEqual(before);
    expect(plane.setCounters(SET).connects).toBe(counted + 5);
    expect(plane.frontends()).toHaveLength(2);
    expect(plane.backends().get(SET)).toEqual(backends());
    expect(plane.highest()).toEqual({ attachment: 1023, view: 1, set: SET, backend: 23 });
    expect(plane.audit()).toEqual([]);
    fill(plane);
    expect(identities()).toEqual(before);
    expect(await connects()).toEqual(served);
  });

  test('programs are swapped under load and nothing is lost', async () => {
    const running = await load();
    for (let i = 0; i < 10; i++) {
      plane.close();
      plane = await bed.start();
      fill(plane);
      expect(plane.prune(keep())).toBe(0);
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
    const { ok, failed } = await running.stop();
    expect(failed).toEqual([]);
    expect(ok).toBeGreaterThan(200);
  });

  test('backends come and go under load and nothing is lost', async () => {
    const running = await load();
    const all = backends();
    for (let i = 0; i < 300; i++) {
      plane.ensureBackends(SET, [all[i % 3]!, ...(i % 2 ? [all[(i + 1) % 3]!] : [])]);
      if (i % 10 === 0) await new Promise((resolve) => setTimeout(resolve, 5));
    }
    plane.ensureBackends(SET, all);
    const { ok, failed } = await running.stop();
    expect(failed).toEqual([]);
    expect(ok).toBeGreaterThan(20);
  });

  test('connections that were open before are still known, and reset', async () => {
    const child = bed.spawn(client.namespace, [
      PYTHON,
      '-u',
      '-c',
      `
import socket, sys
all = [socket.create_connection(('${VIP}', 80)) for _ in range(6)]
u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); u.connect(('${VIP}', 80))
print('open'); sys.stdin.read()`,
    ]);
    await new Promise((resolve) => child.stdout!.once('data', resolve));
    plane.close();
    plane = await bed.start();
    fill(plane);
    const each = backends().map((backend) => plane.connections(backend, [client.namespace]));
    expect(each.reduce((a, b) => a + b)).toBe(7);
    for (const backend of backends()) plane.reset(backend, [client.namespace]);
    expect(backends().map((backend) => plane.connections(backend, [client.namespace]))).toEqual([0, 0, 0]);
    await bed.stop(child);
  });
});

describe('kill -9', () => {
  /** A life of the daemon, compiled as it is in earnest, that starts, fills and ends itself where SLUICE_FAULT says. */
  const life = (instance: string, faultPoint: string): string | number | null => {
    const script = `
      const { createEbpfDataplane } = await import('./dist/src/balancer/ebpf.js');
      const { createKernel } = await import('./dist/src/kernel/kernel.js');
      const kernel = createKernel({ host: ${JSON.stringify(bed.kernel.host.path)} });
      const plane = createEbpfDataplane({ kernel, instance: '${instance}', bpffs: ${JSON.stringify(bed.bpffs)},
        cgroupRoot: ${JSON.stringify(bed.cgroup)}, objectDir: ${JSON.stringify(objectDir)} });
      await plane.start();
      const all = ${JSON.stringify(backends())};
      plane.ensureBackends(${SET}, all);
      plane.ensureBackends(${SET}, [all[1]]);
      plane.ensureBackends(${SET}, [all[2], all[0]]);`;
    const { signal, status } = spawnSync(process.execPath, ['--input-type=module', '-e', script], {
      cwd: join(import.meta.dirname, '../..'),
      env: { ...process.env, SLUICE_FAULT: faultPoint },
      timeout: 20_000 * SLOWNESS,
    });
    return signal ?? status;
  };

  const points = [
    'dataplane.loaded',
    'dataplane.pinned',
    ...[1, 5, 9].map((n) => `dataplane.attached:${n}`),
    ...[1, 2, 3].flatMap((n) => [`dataplane.slots:${n}`, `dataplane.count:${n}`]),
  ];
  test.each(points)('at %s: the next life completes it', async (point) => {
    const instance = 'killed';
    expect(life(instance, point)).toBe('SIGKILL');
    expect(life(instance, '')).toBe(0);
    const next = await bed.start({ instance });
    expect(next.backends().get(SET)).toEqual([backends()[2], backends()[0]]);
    next.prune({ ...KEEP, sets: new Set([SET]) });
    const pin = (name: string) => join(bed.bpffs, instance, 'v1/maps', name);
    for (const [name, count] of [
      ['sets', 1],
      ['slots', 2],
      ['backends', 2],
    ] as const) {
      const fd = objectGet(pin(name))!;
      expect([name, mapEntries(fd).length]).toEqual([name, count]);
      closeFd(fd);
    }
    expect(readdirSync(join(bed.bpffs, instance, 'v1/links'))).toHaveLength(9);
    next.off();
    expect(readdirSync(bed.bpffs)).not.toContain(instance);
  });
});

test('a life that ended while it closed the shortcut of a network: the next one closes the rest', async () => {
  const instance = 'halfway';
  const tunnel = bed.kernel.host.netlink.link('br0')!.ifindex;
  const segment = { id: idOf(78), number: 78, tunnel, direct: false };
  const key = STATION_KEY.encode({ tunnel, mac: '02:42:0a:32:00:02' });
  const first = await bed.start({ instance });
  first.ensureSegment(segment);
  first.syncStations(tunnel, new Set(['02:42:0a:32:00:02']));
  const fd = objectGet(join(bed.bpffs, instance, 'v1/maps/stations'))!;
  mapUpdate(fd, key, STATION.encode({ ifindex: tunnel, flags: STATION_DIRECT }));
  first.close();
  const next = await bed.start({ instance });
  next.ensureSegment(segment);
  expect(STATION.decode(mapLookup(fd, key, STATION.size)!).flags).toBe(0);
  closeFd(fd);
  next.off();
});

describe('an audit', () => {
  const segment = { id: idOf(77), number: 77, direct: true };
  beforeAll(() => {
    const tunnel = bed.kernel.host.netlink.link('br0')!.ifindex;
    plane.ensureSegment({ ...segment, tunnel });
    plane.syncStations(tunnel, new Set(['02:42:0a:32:00:01']));
  });
  afterAll(() => plane.removeSegment(segment.id));
  afterEach(async () => {
    expect(plane.audit()).toEqual([]);
    expect(await connects()).toEqual(served);
  });

  test.each(['connect4', 'recvmsg6', 'sock_release'])('puts back the pin of %s', (hook) => {
    const { [`links/${hook}`]: id } = identities();
    unlinkSync(bed.pin('links', hook));
    expect(plane.audit()).toEqual([{ object: 'hook', id: hook, what: expect.any(String) }]);
    expect(identities()[`links/${hook}`]).toBe(id);
  });

  test('attaches again what was detached', async () => {
    withPin('links', 'connect4', linkDetach);
    expect(await connects(1)).not.toEqual([[VIP, 80]]);
    expect(plane.audit()).toEqual([{ object: 'hook', id: 'connect4', what: expect.stringContaining('detached') }]);
  });

  test('puts back the pin of a map', () => {
    unlinkSync(bed.pin('maps', 'backends'));
    expect(plane.audit()).toEqual([{ object: 'program', id: 'backends', what: expect.any(String) }]);
  });

  test('fills an empty slot of the stages', () => {
    withPin('maps', 'stages', (fd) => mapDelete(fd, Buffer.alloc(4)));
    expect(plane.audit()).toEqual([{ object: 'program', id: 'from_sandbox', what: expect.any(String) }]);
  });

  const kinds = {
    sandboxes: 'sandbox',
    resolvers: 'sandbox',
    endpoints: 'endpoint',
    segments: 'network',
    stations: 'network',
    frontends: 'frontend',
    sets: 'backends',
    slots: 'backends',
    backends: 'backends',
  } as const;
  test.each(Object.entries(kinds))('mends what was deleted, altered or added in map %s', (map, object) => {
    const tamper = (fn: (fd: number, key: Buffer, value: Buffer) => void): void => {
      const before = snapshot(map);
      withPin('maps', map, (fd) => {
        const [key, value] = mapEntries(fd)[0]!;
        fn(fd, key, value);
      });
      expect(snapshot(map)).not.toEqual(before);
      expect(plane.audit()).toEqual([expect.objectContaining({ object })]);
      expect(snapshot(map)).toEqual(before);
    };
    tamper((fd, key) => void mapDelete(fd, key));
    tamper((fd, key, value) => mapUpdate(fd, key, Buffer.from(value.map((byte) => byte ^ 0x5a))));
    tamper((fd, key, value) => mapUpdate(fd, Buffer.from(key.map((byte) => byte ^ 0x5a)), value));
  });

  const snapshot = (map: string): string[] =>
    withPin('maps', map, (fd) =>
      mapEntries(fd)
        .map(([key, value]) => `${key.toString('hex')} ${value.toString('hex')}`)
        .sort(),
    );
});

test('a cgroup made anew under pinned links is attached to, by an audit and by a start', async () => {
  const instance = 'cgroups';
  const cgroupRoot = join(bed.cgroup, 'sub');
  const other = await bed.start({ instance, cgroupRoot });
  rmdirSync(cgroupRoot);
  const id = bed.kernel.cgroups.ensure(cgroupRoot);
  expect(other.audit().map(({ object, id: hook }) => `${object} ${hook}`)).toContain('hook connect4');
  const attachedTo = (): bigint => {
    const fd = objectGet(join(bed.bpffs, instance, 'v1/links/connect4'))!;
    const { cgroupId } = linkInfo(fd);
    closeFd(fd);
    return cgroupId;
  };
  expect(attachedTo()).toBe(id);
  expect(other.audit()).toEqual([]);
  other.close();
  rmdirSync(cgroupRoot);
  const again = bed.kernel.cgroups.ensure(cgroupRoot);
  const next = await bed.start({ instance, cgroupRoot });
  expect(attachedTo()).toBe(again);
  expect(next.audit()).toEqual([]);
  next.off();
  rmdirSync(cgroupRoot);
});

test('prune removes what is not kept, and what nobody owns any more', async () => {
  plane.ensureBackends(7, [{ number: 71, address: '10.77.0.21', port: 0 }]);
  plane.ensureFrontend({ view: 1, address: VIP, port: 0, set: 7 });
  const stray = bed.sandbox(40);
  plane.ensureSandbox(stray);
  plane.ensureEndpoint({ ...stray.endpoint, allow: ['192.0.2.0/24'] });
  bed.sandboxes.pop();
  plane.close();
  plane = await bed.start();
  fill(plane);
  // A frontend, a set, a sandbox and an endpoint.
  expect(plane.prune(keep())).toBe(4);
  expect(plane.frontends()).toHaveLength(2);
  expect([...plane.backends().keys()]).toEqual([SET]);
  expect([...bed.pinned('links'), ...bed.pinned('progs')].filter((name) => name.includes('-40-'))).toEqual([]);
  expect(withPin('maps', 'allowed', mapEntries)).toEqual([]);
  expect(withPin('maps', 'endpoint_drops', mapEntries)).toHaveLength(bed.sandboxes.length);
  expect(plane.prune(keep())).toBe(0);
  expect(plane.audit()).toEqual([]);
});

describe('maps of another layout', () => {
  const stranger = (name: string): void => {
    unlinkSync(bed.pin('maps', name));
    execFileSync('bpftool', [
      'map',
      'create',
      bed.pin('maps', name),
      'type',
      'hash',
      'key',
      '4',
      'value',
      '4',
      'entries',
      '8',
      'name',
      name,
    ]);
  };

  test('a new generation is filled while the old one serves, then takes over its links', async () => {
    const holder = bed.spawn(client.namespace, [
      PYTHON,
      '-u',
      '-c',
      `import socket, sys\ns = socket.create_connection(('${VIP}', 80)); print('open'); sys.stdin.read()`,
    ]);
    await new Promise((resolve) => holder.stdout!.once('data', resolve));
    const before = identities();
    const running = await load();
    plane.close();
    stranger('frontends');
    plane = await bed.start();
    expect(bed.pinned('maps', 2)).toContain('frontends');
    expect(bed.pinned('links', 2)).toEqual([]);
    expect(plane.frontends()).toEqual([]);
    expect(await connects()).toEqual(served);
    // Cut short here, the next life goes on with the filling.
    plane.ensureSandbox(client);
    plane.close();
    plane = await bed.start();
    expect(plane.audit()).toEqual([]);
    fill(plane);
    expect(plane.audit()).toEqual([]);
    expect(await connects()).toEqual(served);
    expect(plane.prune(keep())).toBe(0);
    expect(readdirSync(join(bed.bpffs, bed.instance))).toEqual(['v2']);
    const after = identities(2);
    for (const name of Object.keys(before).filter((one) => one.startsWith('links/')))
      expect([name, after[name]]).toEqual([name, before[name]]);
    // Sockets keep what is known of them.
    for (const name of ['maps/peers', 'maps/peers_overflow', 'maps/datagrams']) expect(after[name]).toBe(before[name]);
    const each = backends().map((backend) => plane.connections(backend, [client.namespace]));
    expect(each.reduce((a, b) => a + b)).toBeGreaterThanOrEqual(1);
    expect(plane.audit()).toEqual([]);
    const { ok, failed } = await running.stop();
    expect(failed).toEqual([]);
    expect(ok).toBeGreaterThan(50);
    await bed.stop(holder);
    expect(await connects()).toEqual(served);
  });

  test('off takes every generation away and leaves foreign pins', async () => {
    const foreign = join(bed.bpffs, 'foreign');
    execFileSync('bpftool', [
      'map',
      'create',
      foreign,
      'type',
      'hash',
      'key',
      '4',
      'value',
      '4',
      'entries',
      '8',
      'name',
      'foreign',
    ]);
    plane.off();
    expect(readdirSync(bed.bpffs).filter((name) => !name.endsWith('.debug'))).toEqual(['foreign']);
    expect(await connects(1)).not.toEqual([[VIP, 80]]);
    unlinkSync(foreign);
  });
});

test('a start that cannot attach says why and leaves nothing open', async () => {
  const { length: before } = readdirSync('/proc/self/fd');
  await expect(bed.start({ instance: 'nope', objectDir: '/nonexistent' })).rejects.toMatchObject({
    code: 'kernel.notfound',
    message: expect.stringContaining('/nonexistent'),
  });
  writeFileSync(join(bed.dir, 'balancer_socket.o'), 'no object');
  await expect(bed.start({ instance: 'nope', objectDir: bed.dir })).rejects.toMatchObject({
    code: expect.stringMatching(/^kernel\./),
  });
  expect(readdirSync('/proc/self/fd').length).toBe(before);
  expect(() => plane.ensureBackends(1, [])).toThrow('not started');
});
