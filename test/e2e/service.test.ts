import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { Background } from '../../src/lab/place.ts';
import { eventually, openHost, type TestHost } from './harness.ts';
import { FAMILIES, type Inside, PYTHON, sandbox } from './traffic.ts';

let host: TestHost;
beforeAll(async () => {
  host = await openHost({ name: 'svc' });
});
afterAll(() => host.close());

interface ServiceView {
  spec: { vips: string[] };
}
const vips = async (name: string): Promise<string[]> =>
  (await host.json<[ServiceView]>('service', 'inspect', name))[0].spec.vips;
const word = (answer: string): string => answer.split(' ')[0]!;

/** One unconnected UDP socket that talks to several addresses in turn and prints who answered from where. */
const UNCONNECTED = `
import socket, sys
count, port, targets = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
s = socket.socket(socket.AF_INET6 if ':' in targets[0] else socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(2)
for i in range(count):
    for t in targets:
        s.sendto(b'q', (t, port)); d, a = s.recvfrom(100); print(d.decode().split()[0], a[0].replace('::ffff:', ''), t.replace('::ffff:', ''))
`;

describe.each(FAMILIES)('a VIP over $family', ({ flags, v4, v6, family }) => {
  const tag = family.replace(/\W/g, '').toLowerCase();
  const web = `web${tag}`;
  let client: Inside;
  const backends: Inside[] = [];
  const servers: Background[] = [];
  const all = [1, 2, 3].map((n) => `b${n}${tag}`);

  beforeAll(async () => {
    await host.cli('network', 'create', web, ...flags);
    client = await sandbox(host, `client${tag}`, '--network', web);
    for (const name of all) {
      const box = await sandbox(host, name, '--network', web);
      backends.push(box);
      servers.push(await box.serve(8080, 9000));
    }
    await host.cli(
      'service',
      'create',
      '--name',
      `shop${tag}`,
      '--network',
      web,
      '--port',
      'http=80:8080',
      '--port',
      '53:9000/udp',
      ...all.flatMap((name) => ['--backend', name]),
    );
    await host.cli(
      'service',
      'create',
      '--name',
      `any${tag}`,
      '--network',
      web,
      ...all.flatMap((name) => ['--backend', name]),
    );
  });
  afterAll(async () => {
    for (const server of servers) await server.stop();
    await host.cli('service', 'rm', `shop${tag}`, `any${tag}`);
    await host.cli('sandbox', 'rm', '--force', `client${tag}`, ...all);
    await host.cli('network', 'rm', web);
  });

  test('every backend gets connections, getpeername shows the VIP', async () => {
    for (const vip of await vips(`shop${tag}`)) {
      const answers = await client.asks(24, vip, 80);
      expect(answers).toHaveLength(24);
      for (const answer of answers) expect(answer.endsWith(` ${vip}`)).toBe(true);
      expect([...new Set(answers.map(word))].sort()).toEqual(all);
    }
    expect((await vips(`shop${tag}`)).map((vip) => vip.includes(':'))).toEqual([
      ...(v4 ? [false] : []),
      ...(v6 ? [true] : []),
    ]);
  });

  test('connected and unconnected UDP; an unconnected socket stays with its backend and may talk to several VIPs', async () => {
    const [shop] = await vips(`shop${tag}`);
    const [any] = await vips(`any${tag}`);
    expect(all).toContain(word(await client.ask(shop!, 53, 'udp')));
    expect(await client.ask(shop!, 53, 'udp')).toMatch(new RegExp(` ${shop}$`));
    const one = (await client.exec([PYTHON, '-c', UNCONNECTED, '20', '53', shop!])).stdout.trim().split('\n');
    expect(one).toHaveLength(20);
    expect(new Set(one).size).toBe(1);
    // Two VIPs from one socket: each answer comes from the VIP that was asked.
    await host.cli(
      'service',
      'create',
      '--name',
      `other${tag}`,
      '--network',
      web,
      '--port',
      '53:9000/udp',
      '--backend',
      all[0]!,
      '--backend',
      all[1]!,
      '--backend',
      all[2]!,
    );
    const [other] = await vips(`other${tag}`);
    const two = (await client.exec([PYTHON, '-c', UNCONNECTED, '50', '53', shop!, other!])).stdout.trim().split('\n');
    expect(two).toHaveLength(100);
    for (const line of two) expect(line.split(' ')[1]).toBe(line.split(' ')[2]);
    await host.cli('service', 'rm', `other${tag}`);
    expect(any).toBeDefined();
  });

  test('without ports every port maps to the same one', async () => {
    const [any] = await vips(`any${tag}`);
    expect(all).toContain(word(await client.ask(any!, 8080)));
    expect(all).toContain(word(await client.ask(any!, 9000, 'udp')));
    expect(await client.ask(any!, 9001)).toBe('error: ECONNREFUSED');
  });

  const mapped = async (): Promise<void> => {
    const [vip] = (await vips(`shop${tag}`)).filter((address) => !address.includes(':'));
    expect(await client.ask(`::ffff:${vip}`, 80)).toMatch(new RegExp(`^b.* hello ::ffff:${vip}$`));
    const lines = (await client.exec([PYTHON, '-c', UNCONNECTED, '5', '53', `::ffff:${vip}`])).stdout
      .trim()
      .split('\n');
    for (const line of lines) expect(line.split(' ')[1]).toBe(vip);
  };
  if (v4) test('a v4-mapped socket takes the VIP, too', mapped);

  test('only sandboxes of the network reach it; an attached namespace does', async () => {
    const [vip] = await vips(`shop${tag}`);
    expect(
      (
        await host.exec([
          PYTHON,
          '-c',
          `import socket; s = socket.socket(socket.AF_INET6 if ':' in '${vip}' else socket.AF_INET); s.settimeout(1); s.connect(('${vip}', 80))`,
        ])
      ).code,
    ).not.toBe(0);
    const name = `${host.instance}y`;
    await host.must(`ip netns add ${name} && ip -n ${name} link set lo up`);
    try {
      await host.cli('sandbox', 'attach', '--name', `guest${tag}`, '--network', web, `/run/netns/${name}`);
      const code = `import socket; s = socket.socket(socket.AF_INET6 if ':' in '${vip}' else socket.AF_INET); s.settimeout(2); s.connect(('${vip}', 80)); s.sendall(b'x'); print(s.recv(99).decode())`;
      expect(await host.must(['nsenter', `--net=/run/netns/${name}`, PYTHON, '-c', code])).toMatch(/^b\d/);
      await host.cli('sandbox', 'rm', `guest${tag}`);
    } finally {
      await host.exec(`ip netns del ${name}`);
    }
  });

  test('--backend-rm keeps open connections, with no backend connects are refused at once', async () => {
    await host.cli(
      'service',
      'create',
      '--name',
      `kept${tag}`,
      '--network',
      web,
      '--port',
      '80:8080',
      '--backend',
      all[0]!,
    );
    const [vip] = await vips(`kept${tag}`);
    const go = join(host.runDir, `go-${tag}`);
    const held = client.python(`
import os, socket, time
s = socket.socket(socket.AF_INET6 if ':' in '${vip}' else socket.AF_INET); s.settimeout(3); s.connect(('${vip}', 80)); s.sendall(b'1'); print(s.recv(99).decode(), flush=True)
while not os.path.exists('${go}'): time.sleep(0.02)
s.sendall(b'2'); print(s.recv(99).decode(), flush=True)
`);
    await eventually(() => held.output().includes(`${all[0]} 1`));
    await host.cli('service', 'update', `kept${tag}`, '--backend-rm', all[0]!);
    expect(await client.ask(vip!, 80)).toBe('error: ECONNREFUSED');
    writeFileSync(go, '');
    await held.exited;
    expect(held.output().trim().split('\n')).toEqual([`${all[0]} 1`, `${all[0]} 2`]);
    await host.cli('service', 'rm', `kept${tag}`);
  });

  test('a sandbox that goes leaves VIP and DNS at once, and what still talked to it is reset', async () => {
    const box = await sandbox(host, `gone${tag}`, '--network', web);
    const server = await box.serve(8080, 9000);
    await host.cli('service', 'create', '--name', `short${tag}`, '--network', web, '--backend', `gone${tag}`);
    const [vip] = await vips(`short${tag}`);
    const code = `
import socket, errno
f = socket.AF_INET6 if ':' in '${vip}' else socket.AF_INET
t = socket.socket(f); t.settimeout(8); t.connect(('${vip}', 8080)); t.sendall(b'1'); t.recv(99)
u = socket.socket(f, socket.SOCK_DGRAM); u.settimeout(8); u.connect(('${vip}', 9000)); u.send(b'1'); u.recv(99)
d = socket.socket(f); d.settimeout(8); d.connect(('${box.addresses[0]}', 8080))
print('open', flush=True)
for s in (t, u):
    try: print(repr(s.recv(99)), flush=True)
    except socket.timeout: print('timeout', flush=True)
    except OSError as e: print(errno.errorcode[e.errno], flush=True)
`;
    const held = client.python(code);
    await eventually(() => held.output().includes('open'));
    const start = performance.now();
    await host.cli('sandbox', 'rm', '--force', `gone${tag}`);
    await held.exited;
    const lines = held.output().trim().split('\n');
    expect(performance.now() - start).toBeLessThan(5_000);
    expect(lines[0]).toBe('open');
    expect(lines[1]).toMatch(/ECONNABORTED|ECONNRESET/);
    expect(lines[2]).toMatch(/ECONNABORTED|ECONNREFUSED/);
    expect(await client.ask(vip!, 8080)).toBe('error: ECONNREFUSED');
    expect((await client.exec(['dig', '+short', '@127.0.0.11', `gone${tag}`])).stdout.trim()).toBe('');
    await server.exited;
    await host.cli('service', 'rm', `short${tag}`);
  });
});

describe('services refuse nonsense', () => {
  beforeAll(async () => {
    await host.cli('network', 'create', 'n', '--subnet', '10.60.0.0/24');
    await host.cli('network', 'create', 'm', '--subnet', '10.61.0.0/24');
    await host.cli('sandbox', 'create', 'onm', '--network', 'm');
  });
  afterAll(async () => {
    await host.cli('sandbox', 'rm', 'onm');
    await host.cli('network', 'rm', 'n', 'm');
  });
  test.each([
    ['a backend on another network', ['--network', 'n', '--backend', 'onm'], 'service.backend'],
    ['a backend that does not exist', ['--network', 'n', '--backend', 'ghost'], /service\.backend|object\.notfound/],
    ['a port twice', ['--network', 'n', '--port', '80', '--port', '80:90'], 'request.invalid'],
    ['a VIP outside the network', ['--network', 'n', '--ip', '192.0.2.1'], 'address.outside'],
    ['an unknown network', ['--network', 'ghost'], 'object.notfound'],
  ])('%s', async (_what, flags, code) => {
    const result = await host.sluice(['service', 'create', '--name', 'bad', ...flags]);
    expect(result.code).toBe(1);
    expect(result.stderr).toMatch(code);
    expect((await host.json<{ name: string }[]>('service', 'ls')).some(({ name }) => name === 'bad')).toBe(false);
  });

  test('the VIP and names are gone with the service', async () => {
    await host.cli('service', 'create', '--name', 'brief', '--network', 'm', '--backend', 'onm');
    await eventually(async () =>
      (await host.cli('sandbox', 'exec', 'onm', 'dig', '+short', 'brief', '@127.0.0.11')).startsWith('10.61.'),
    );
    await host.cli('service', 'rm', 'brief');
    expect(await host.cli('sandbox', 'exec', 'onm', 'dig', '+short', 'brief', '@127.0.0.11')).toBe('');
  });
});
