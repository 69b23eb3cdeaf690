/** Published ports of containers end to end: from other hosts, from this one, while the daemon is dead, and beside a firewall. */
import { afterAll, beforeAll, expect, test } from 'vitest';
import { type ContainerHost, openContainerHost } from './container-host.ts';
import { eventually } from './harness.ts';
import { inside, PYTHON } from './traffic.ts';

let host: ContainerHost;
beforeAll(async () => {
  host = await openContainerHost('publish');
  await host.image('open', { ExposedPorts: { '80/tcp': {}, '443/tcp': {}, '53/udp': {} } });
  await host.cli('network', 'create', '--subnet', '10.20.0.0/24', '--subnet', 'fd20::/64', 'web');
  await host.cli('network', 'create', '--subnet', '10.21.0.0/24', 'other');
});
afterAll(() => host.close());

const run = (name: string, ...words: string[]) =>
  host.sluice(['run', '-d', '--name', name, '--network', 'web', ...words]);
/** A web server that says who asks. */
const SERVER = ['busybox', 'httpd', '-f', '-vv', '-p', '[::]:80', '-h', '/etc'];

const CLIENT = `
import socket, sys
kind, address, port = sys.argv[1], sys.argv[2], int(sys.argv[3])
s = socket.socket(socket.AF_INET6 if ':' in address else socket.AF_INET, socket.SOCK_STREAM if kind == 'tcp' else socket.SOCK_DGRAM)
s.settimeout(3)
try:
    s.connect((address, port))
    s.sendall(b'GET /hostname HTTP/1.0\\r\\n\\r\\n' if kind == 'tcp' else b'hello\\n')
    print(s.recv(1000).decode().split('\\r')[0].strip())
except OSError as error: print(type(error).__name__)
`;
const WHO = `
import socket, sys
s = socket.create_connection((sys.argv[1], int(sys.argv[2])), 1)
s.sendall(b'GET /who HTTP/1.0\\r\\n\\r\\n')
print(s.makefile('rb').read().split(b'\\r\\n\\r\\n')[1].decode())
`;
const OK = 'HTTP/1.1 200 OK';
type Place = Pick<ContainerHost, 'must'>;
const ask = async (from: Place, address: string, port: number, kind = 'tcp'): Promise<string> =>
  (await from.must([PYTHON, '-S', '-c', CLIENT, kind, address, String(port)])).trim();

/** A container runs before its server listens, and the first question for a neighbour may come before its link is up. */
const reached = async (from: Place, address: string, port: number): Promise<void> =>
  void (await eventually(async () => (await ask(from, address, port)) === OK));

const psPorts = async (name: string): Promise<string> =>
  host.cli('ps', '--all', '--filter', `name=${name}`, '--format', '{{.Ports}}');

test('a published port is reached from everywhere, and the client keeps its address', async () => {
  expect(await run('shop', '-p', '8080:80', ...SERVER)).toMatchObject({
    code: 0,
    stderr: expect.not.stringContaining('warning'),
  });
  expect(await psPorts('shop')).toBe('0.0.0.0:8080->80/tcp, [::]:8080->80/tcp');
  expect(await host.cli('port', 'shop')).toBe('80/tcp -> 0.0.0.0:8080\n80/tcp -> [::]:8080');
  await reached(host, '127.0.0.1', 8080);
  expect(await ask(host.outside, host.address, 8080)).toBe(OK);
  expect(await ask(host.outside, host.address6, 8080)).toBe(OK);
  expect(await ask(host, '127.0.0.1', 8080)).toBe(OK);
  expect(await ask(host, '::1', 8080)).toBe(OK);
  expect(await ask(host, host.address, 8080)).toBe(OK);
  await eventually(async () => {
    const { stdout, stderr } = await host.sluice(['logs', 'shop']);
    for (const client of [host.outside.address, host.outside.address6, '10.20.0.1'])
      expect(stdout + stderr).toContain(client);
    return true;
  });
  // Containers of its network, and of others, use it as anybody does.
  for (const network of ['web', 'other']) {
    const got = await host.sluice([
      'run',
      '--rm',
      '--network',
      network,
      'busybox',
      'timeout',
      '5',
      'wget',
      '-qO-',
      `http://${host.address}:8080/hostname`,
    ]);
    expect([network, got.code]).toEqual([network, 0]);
  }
});

test('a port in use is refused, and its holder is named', async () => {
  const second = await run('second', '-p', '8080:80', ...SERVER);
  expect(second).toMatchObject({ code: 125, stderr: expect.stringContaining('published by container shop') });
  await host.cli('rm', 'second');
  const holder = host.spawn([
    PYTHON,
    '-c',
    "import socket, time; s = socket.create_server(('', 8081)); print('ready', flush=True); time.sleep(60)",
  ]);
  await eventually(() => holder.output().includes('ready'));
  const third = await run('third', '-p', '8081:80', ...SERVER);
  expect(third).toMatchObject({ code: 125, stderr: expect.stringMatching(/in use by python3.* \(process \d+\)/) });
  await holder.stop();
  await host.cli('start', 'third');
  await reached(host.outside, host.address, 8081);
  await host.cli('rm', '-f', 'third');
  expect(await ask(host.outside, host.address, 8081)).toBe('ConnectionRefusedError');
  // What is published is kept from others.
  const late = await host.exec([PYTHON, '-c', "import socket; socket.create_server(('', 8080))"]);
  expect(late.stderr).toContain('Address already in use');
  expect(await run('nowhere', '-p', '203.0.113.9:80:80', ...SERVER)).toMatchObject({
    code: 125,
    stderr: expect.stringContaining('no address 203.0.113.9'),
  });
  await host.cli('rm', 'nowhere');
});

test('a container that has IPv4 alone is reached on ::1 by the host, and its end is told at once', async () => {
  const words = [
    '--name',
    'four',
    '--network',
    'other',
    '-p',
    '8089:80',
    'busybox',
    'httpd',
    '-f',
    '-p',
    '80',
    '-h',
    '/etc',
  ];
  expect(await host.sluice(['run', '-d', ...words])).toMatchObject({ code: 0 });
  expect(await psPorts('four')).toBe('0.0.0.0:8089->80/tcp, [::1]:8089->80/tcp');
  await reached(host, '::1', 8089);
  expect(await ask(host.outside, host.address6, 8089)).toBe('ConnectionRefusedError');
  const open = host.spawn([
    PYTHON,
    '-c',
    "import socket; s = socket.create_connection(('::1', 8089)); print(s.getpeername()[:2], flush=True); print(s.recv(1), flush=True)",
  ]);
  await eventually(() => open.output().includes("('::1', 8089)"));
  const bound =
    "import socket; s = socket.socket(socket.AF_INET6); s.settimeout(3); s.bind(('::1', 0)); s.connect(('::1', 8089))";
  expect((await host.exec([PYTHON, '-c', bound])).stderr).toContain('ConnectionRefused');
  await host.cli('rm', '-f', 'four');
  await eventually(() => open.output().includes("b''") || open.output().includes('ConnectionReset'));
  expect(await ask(host, '::1', 8089)).toBe('ConnectionRefusedError');
});

test('UDP, a port that is chosen, and who may come', async () => {
  expect(await run('names', '-p', '5353:53/udp', '-p', '53', 'busybox', 'sleep', '1000')).toMatchObject({ code: 0 });
  const server = await (await inside(host, 'names')).serve(53);
  expect(await ask(host.outside, host.address, 5353, 'udp')).toBe('names hello');
  expect(await ask(host, '127.0.0.1', 5353, 'udp')).toBe('names hello');
  expect(await ask(host, '::1', 5353, 'udp')).toBe('names hello');
  const chosen = /53\/tcp -> 0\.0\.0\.0:(\d+)/.exec(await host.cli('port', 'names'))?.[1];
  expect(Number(chosen)).toBeGreaterThanOrEqual(49_152);
  expect(await ask(host.outside, host.address, Number(chosen))).toMatch(/^names GET/);
  await server.stop();
  await host.cli('stop', '-t', '0s', 'names');
  expect(await psPorts('names')).toBe('');
  expect(await ask(host.outside, host.address, 5353, 'udp')).toBe('ConnectionRefusedError');
  await host.cli('start', 'names');
  expect(await host.cli('port', 'names')).toContain(`0.0.0.0:${chosen}`);
  await host.cli('rm', '-f', 'names');
  await run('few', '--publish', 'published=8082,target=80,from=203.0.113.0/24', ...SERVER);
  expect(await ask(host.outside, host.address, 8082)).toBe('ConnectionRefusedError');
  await reached(host, host.address, 8082);
  await host.cli('rm', '-f', 'few');
});

test('--publish-all publishes what the image exposes, each on a port that stays', async () => {
  const words = ['--name', 'wide', '--network', 'web', '-P', '-p', '8088:80', 'open', ...SERVER.slice(1)];
  expect(await host.sluice(['run', '-d', ...words])).toMatchObject({ code: 0 });
  const shown = await host.cli('port', 'wide');
  const chosen = /^443\/tcp -> 0\.0\.0\.0:(\d+)$/m.exec(shown)?.[1];
  const other = /^53\/udp -> 0\.0\.0\.0:(\d+)$/m.exec(shown)?.[1];
  expect(shown.split('\n').sort()).toEqual(
    [
      ['80/tcp', '8088'],
      ['443/tcp', chosen],
      ['53/udp', other],
    ]
      .flatMap(([target, port]) => [`${target} -> 0.0.0.0:${port}`, `${target} -> [::]:${port}`])
      .sort(),
  );
  expect(await psPorts('wide')).toContain(`0.0.0.0:${chosen}->443/tcp`);
  await reached(host.outside, host.address, 8088);
  const server = await (await inside(host, 'wide')).serve(443);
  expect(await ask(host.outside, host.address, Number(chosen))).toMatch(/^wide GET/);
  await server.stop();
  await host.cli('restart', '-t', '0s', 'wide');
  expect(await host.cli('port', 'wide')).toBe(shown);
  await host.cli('rm', '-f', 'wide');
});

test('it outlives the daemon; a port that somebody took meanwhile stays published; what ended meanwhile is withdrawn', async () => {
  await run('brief', '-p', '8083:80', ...SERVER);
  await host.daemon.kill('SIGKILL');
  expect(await ask(host.outside, host.address, 8080)).toBe(OK);
  expect(await ask(host, '::1', 8080)).toBe(OK);
  const taker = host.spawn([
    PYTHON,
    '-c',
    "import socket, time; s = socket.create_server(('', 8080)); print('ready', flush=True); time.sleep(60)",
  ]);
  await eventually(() => taker.output().includes('ready'));
  await host.must(['nft', 'delete', 'table', 'inet', `sluice-${host.instance}-publish`]);
  await host.daemon.start();
  await eventually(async () => (await ask(host.outside, host.address, 8080)) === OK, 10_000);
  expect((await host.detail('shop')).phase).toBe('running');
  await taker.stop();
  await host.cli('rm', '-f', 'brief');
  expect(await ask(host.outside, host.address, 8083)).toBe('ConnectionRefusedError');
});

test("where the host's firewall drops by default, a port is for the loopback unless from= says otherwise", async () => {
  await host.must(
    `nft 'table inet strict { chain input { type filter hook input priority filter; policy drop; iifname "lo" accept; ct state established,related accept; meta l4proto icmpv6 accept
    }
    }'`,
  );
  try {
    const kept = await run('kept', '-p', '8084:80', ...SERVER);
    expect(kept).toMatchObject({ code: 0, stderr: expect.stringContaining('LoopbackOnly') });
    expect(kept.stderr).toContain('chain input of table inet strict');
    expect(await psPorts('kept')).toBe('127.0.0.1:8084->80/tcp, [::1]:8084->80/tcp');
    await reached(host, '127.0.0.1', 8084);
    expect(await ask(host, '::1', 8084)).toBe(OK);
    expect(await ask(host.outside, host.address, 8084)).not.toBe(OK);
    const open = await run('open', '--publish', 'published=8085,target=80,from=any', ...SERVER);
    expect(open).toMatchObject({ code: 0, stderr: expect.not.stringContaining('warning') });
    await reached(host.outside, host.address, 8085);
    // The administrator's chain comes before.
    await host.must(['nft', 'add', 'rule', 'inet', 'sluice-admin', 'prerouting', 'tcp', 'dport', '8085', 'drop']);
    expect(await ask(host.outside, host.address, 8085)).not.toBe(OK);
    await host.must(['nft', 'flush', 'chain', 'inet', 'sluice-admin', 'prerouting']);
    await host.cli('rm', '-f', 'open');
  } finally {
    await host.must(['nft', 'delete', 'table', 'inet', 'strict']);
  }
  await eventually(async () => (await ask(host.outside, host.address, 8084)) === OK, 15_000);
  await host.cli('rm', '-f', 'kept', 'shop');
  expect(await host.must(['nft', 'list', 'tables'])).not.toContain('publish');
});

test('a service is published over its replicas, and follows them', async () => {
  const create = (name: string, ...words: string[]) =>
    host.sluice(['service', 'create', '--name', name, '--network', 'web', ...words]);
  const words = ['sh', '-c', 'hostname > /tmp/who; exec busybox httpd -f -p [::]:80 -h /tmp'];
  expect(await create('mall', '-p', '8087:80', '--port', '80', '--replicas', '2', 'busybox', ...words)).toMatchObject({
    code: 0,
  });
  expect(await host.cli('service', 'ls')).toMatch(/mall .* 80\/tcp, 0\.0\.0\.0:8087->80\/tcp, \[::\]:8087->80\/tcp/);
  const who = async (from: Place, address: string): Promise<string> =>
    (await from.must([PYTHON, '-S', '-c', WHO, address, '8087'])).trim();
  const seen = new Set<string>();
  await eventually(async () => {
    seen.add(await who(host.outside, host.address));
    seen.add(await who(host, '127.0.0.1'));
    return seen.size === 2;
  }, 10_000);
  expect([...seen].every((name) => /^[0-9a-f]{12}$/.test(name))).toBe(true);
  await host.cli('service', 'scale', 'mall=0');
  await eventually(async () => (await ask(host.outside, host.address, 8087)) === 'ConnectionRefusedError', 10_000);
  await host.cli('service', 'scale', 'mall=1');
  await eventually(async () => (await ask(host.outside, host.address6, 8087)) !== 'ConnectionRefusedError', 10_000);
  const taken = await run('taker', '-p', '8087:80', ...SERVER);
  expect(taken).toMatchObject({ code: 125, stderr: expect.stringContaining('published by service mall') });
  await host.cli('rm', 'taker');
  await host.cli('service', 'rm', 'mall');
  await eventually(async () => !(await host.must(['nft', 'list', 'tables'])).includes('publish'), 10_000);
});

test('what cannot be published says why', async () => {
  await host.cli('network', 'create', '--internal', '--subnet', '10.22.0.0/24', 'inner');
  const inner = await host.sluice(['run', '-d', '--name', 'inner', '--network', 'inner', '-p', '8086:80', ...SERVER]);
  expect(inner).toMatchObject({ code: 125, stderr: expect.stringContaining('not internal') });
  await host.cli('rm', 'inner');
  expect(await run('bad', '-p', '8080:80/sctp', ...SERVER)).toMatchObject({
    code: 125,
    stderr: expect.stringContaining('neither tcp nor udp'),
  });
});
