import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { eventually, openHost, type TestHost } from './harness.ts';
import { FAMILIES, type Inside, PYTHON, sandbox } from './traffic.ts';

let host: TestHost;
beforeAll(async () => {
  host = await openHost({ name: 'dns' });
});
afterAll(() => host.close());

const dig = async (
  from: Inside,
  ...args: string[]
): Promise<{ status: string; answers: string[]; authority: boolean }> => {
  const { stdout } = await from.exec([
    'dig',
    '@127.0.0.11',
    '+tries=1',
    '+time=3',
    '+noall',
    '+comments',
    '+answer',
    '+authority',
    ...args,
  ]);
  return {
    status: /status: (\w+)/.exec(stdout)?.[1] ?? `none: ${stdout}`,
    answers: [...stdout.matchAll(/\sIN\s+(?:A|AAAA|PTR|SRV)\s+(.+)$/gm)].map((match) => match[1]!.trim()).sort(),
    authority: /\sIN\s+SOA\s/.test(stdout),
  };
};

describe.each(FAMILIES)('names over $family', ({ flags, v4, v6, family }) => {
  const tag = family.replace(/\W/g, '').toLowerCase();
  const web = `web${tag}`;
  let a: Inside;
  let b: Inside;
  beforeAll(async () => {
    await host.cli('network', 'create', web, ...flags);
    a = await sandbox(host, `a${tag}`, '--network', web);
    b = await sandbox(host, `b${tag}`, '--network', web, '--network-alias', 'api');
  });
  afterAll(async () => {
    await host.cli('sandbox', 'rm', `a${tag}`, `b${tag}`);
    await host.cli('network', 'rm', web);
  });

  test.each(['+notcp', '+tcp'])(
    'names, aliases, NAME.NETWORK, PTR; NODATA with SOA for the other types (%s)',
    async (transport) => {
      for (const name of [`b${tag}`, 'api', `b${tag}.${web}`, 'API']) {
        expect(await dig(a, transport, name, 'A')).toMatchObject({
          status: 'NOERROR',
          answers: v4 ? [b.ipv4] : [],
          authority: !v4,
        });
        expect(await dig(a, transport, name, 'AAAA')).toMatchObject({
          status: 'NOERROR',
          answers: v6 ? [b.ipv6] : [],
          authority: !v6,
        });
        expect(await dig(a, transport, name, 'MX')).toMatchObject({ status: 'NOERROR', answers: [], authority: true });
      }
      for (const address of b.addresses)
        expect(await dig(a, transport, '-x', address)).toMatchObject({
          status: 'NOERROR',
          answers: [`b${tag}.${web}.`],
        });
    },
  );

  test('another network does not see them', async () => {
    const subnets = flags.map((flag) => flag.replace('10.20.', '10.24.').replace('fd00:20:', 'fd00:24:'));
    await host.cli('network', 'create', `x${tag}`, '--internal', ...subnets);
    const c = await sandbox(host, `c${tag}`, '--network', `x${tag}`);
    expect(await dig(c, `b${tag}`, v4 ? 'A' : 'AAAA')).toMatchObject({ status: 'NXDOMAIN', answers: [] });
    await host.cli('sandbox', 'rm', `c${tag}`);
    await host.cli('network', 'rm', `x${tag}`);
  });

  test('a name follows its sandbox at once, and getaddrinfo finds it', async () => {
    const c = await sandbox(host, `c${tag}`, '--network', web);
    const seen = await host.cli(
      'sandbox',
      'exec',
      `a${tag}`,
      PYTHON,
      '-c',
      `import socket; print(sorted({x[4][0] for x in socket.getaddrinfo('c${tag}', 80)}))`,
    );
    for (const address of c.addresses) expect(seen).toContain(address);
    await host.cli('sandbox', 'rm', `c${tag}`);
    expect((await dig(a, `c${tag}`, v4 ? 'A' : 'AAAA')).answers).toEqual([]);
  });

  test('a program of the sandbox may have port 53 to itself', async () => {
    const code =
      "import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(('0.0.0.0', 53)); t = socket.socket(); t.bind(('0.0.0.0', 53)); t.listen(); print('bound')";
    expect((await a.exec([PYTHON, '-c', code])).stdout.trim()).toBe('bound');
  });
});

describe('foreign names and hard times', () => {
  let box: Inside;
  beforeAll(async () => {
    await host.cli('network', 'create', 'open', '--subnet', '10.40.0.0/24');
    await host.cli('network', 'create', 'shut', '--internal', '--subnet', '10.41.0.0/24');
    box = await sandbox(host, 'box', '--network', 'open');
    // The lab's outside is the host's resolver.
    host.outside.spawn([
      PYTHON,
      '-c',
      `
import socket, struct
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(('198.18.0.1', 53))
while True:
    q, a = s.recvfrom(4096)
    end = q.index(b'\\0', 12) + 5
    s.sendto(q[:2] + b'\\x81\\x80\\0\\1\\0\\1\\0\\0\\0\\0' + q[12:end] + b'\\xc0\\x0c\\0\\1\\0\\1\\0\\0\\0\\x3c\\0\\4' + bytes([192, 0, 2, 53]), a)
`,
    ]);
  });
  afterAll(async () => {
    await host.cli('sandbox', 'rm', '--force', 'box');
    await host.cli('network', 'rm', 'open', 'shut');
  });

  test('foreign names go to the host resolvers, never from an internal network', async () => {
    await eventually(async () => (await dig(box, 'example.test', 'A')).answers[0] === '192.0.2.53');
    const shut = await sandbox(host, 'shutbox', '--network', 'shut');
    expect(await dig(shut, 'example.test', 'A')).toMatchObject({ status: 'NXDOMAIN', answers: [] });
    await host.cli('sandbox', 'rm', 'shutbox');
  });

  test('sockets that are destroyed from inside are back at once, nothing spins, nothing exits', async () => {
    const pid = host.daemon.current!.pid;
    for (let i = 0; i < 5; i++) {
      await box.exec('ss -K -a -u; ss -K -a -t');
      expect((await dig(box, 'box', 'A')).answers).toEqual([box.ipv4]);
      expect((await dig(box, '+tcp', 'box', 'A')).answers).toEqual([box.ipv4]);
    }
    const ticks = async () =>
      (await host.must(`cut -d' ' -f14,15 /proc/${pid}/stat`))
        .trim()
        .split(' ')
        .reduce((sum, text) => sum + Number(text), 0);
    const before = await ticks();
    await new Promise((resolve) => setTimeout(resolve, 1_000));
    expect((await ticks()) - before).toBeLessThan(40);
    expect(host.daemon.current?.pid).toBe(pid);
  });

  test('garbage, source port 0 and answers sent as questions end nobody', async () => {
    const code = `
import os, random, socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.connect(('127.0.0.11', 53)); s.setblocking(False)
for i in range(3000):
    try: s.send(os.urandom(random.randrange(0, 200)))
    except OSError: pass
r = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_UDP)
q = bytes.fromhex('123401000001000000000000') + b'\\3box\\0\\0\\1\\0\\1'
r.sendto((0).to_bytes(2, 'big') + (53).to_bytes(2, 'big') + (8 + len(q)).to_bytes(2, 'big') + b'\\0\\0' + q, ('127.0.0.11', 0))
s.send(bytes.fromhex('123481800001000000000000') + q[12:])
s.send(bytes.fromhex('12340100ffffffffffffffff') + q[12:])
print('sent')
`;
    expect((await box.exec([PYTHON, '-c', code])).stdout.trim()).toBe('sent');
    await eventually(async () => (await dig(box, 'box', 'A')).answers[0] === box.ipv4);
  });
});
