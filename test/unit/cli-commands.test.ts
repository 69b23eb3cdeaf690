/** Command lines as users type them, against the real API. */
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { View } from '../../src/model/request.ts';
import type { Sandbox } from '../../src/model/sandbox.ts';
import { NODE } from './api-world.ts';
import { CliWorld } from './cli-world.ts';

let cli: CliWorld;
beforeEach(async () => {
  cli = new CliWorld();
  await cli.open();
});
afterEach(() => cli.close());

/** One object, as `inspect` shows it. */
const look = async (words: string) => {
  const [view] = JSON.parse(await cli.must(words));
  return view as View<Sandbox> & { spec: Record<string, unknown> };
};
const blocked = {
  type: 'ForwardBlocked',
  active: true,
  message: 'chain FORWARD of table ip filter drops; fix: iptables -I DOCKER-USER -i sl+ -j ACCEPT',
  since: '2026-01-01T00:00:00.000Z',
  count: 1,
};

describe('networks', () => {
  test('created, listed, inspected, removed', async () => {
    expect(await cli.must('network create --subnet 10.20.0.0/24 --label tier=front web')).toBe('web\n');
    const id = (await cli.must('network create -q backstage --internal')).trim();
    expect(id).toMatch(/^[0-9a-f]{64}$/);
    const lines = (await cli.must('network ls')).split('\n');
    expect(lines[0]).toMatch(/^NETWORK ID +NAME +DRIVER +SCOPE +SUBNETS +STATE$/);
    expect(lines.slice(1, -1).map((line) => line.split(/ +/)[1])).toEqual([
      'backstage',
      'bridge',
      'host',
      'none',
      'web',
    ]);
    expect(lines.at(-2)).toMatch(/^[0-9a-f]{12} +web +bridge +local +10\.20\.0\.0\/24 +ready$/);
    expect(await cli.must(['network', 'ls', '--format', '{{.Name}}={{.Subnets}}'])).toContain('web=10.20.0.0/24\n');
    expect(await look('network inspect web')).toMatchObject({ name: 'web', labels: { tier: 'front' } });
    expect(await cli.must(['network', 'inspect', 'web', '--format', '{{.Spec.Driver}} {{.Status.State}}'])).toBe(
      'bridge ready\n',
    );
    expect(await cli.must('network inspect web --format table')).toContain('  driver: bridge\n');
    expect(await cli.must(`network rm web ${id.slice(0, 8)}`)).toBe(`web\n${id.slice(0, 8)}\n`);
    expect(await cli.must('network ls -q')).toMatch(/^([0-9a-f]{12}\n){3}$/);
  });

  test('every flag of create reaches the network', async () => {
    await cli.must(
      'network create fine --subnet 10.82.0.0/24 --subnet fd00:82::/64 --gateway fd00:82::9 --gateway 10.82.0.254 --ip-range 10.82.0.128/28' +
        ' --aux-address printer=10.82.0.130 --ipv6 --mtu 1400 -o spoof=allow --opt x=y -d bridge --ipam-driver default',
    );
    expect((await look('network inspect fine')).spec).toMatchObject({
      subnets: [
        { cidr: '10.82.0.0/24', gateway: '10.82.0.254', range: '10.82.0.128/28', aux: { printer: '10.82.0.130' } },
        { cidr: 'fd00:82::/64', gateway: 'fd00:82::9' },
      ],
      ipv6: true,
      mtu: 1400,
      options: { spoof: 'allow', x: 'y' },
    });
    await cli.must('network create six --ipv4=false --ipv6');
    expect((await look('network inspect six')).spec).toMatchObject({ ipv4: false, ipv6: true });
  });

  test.each([
    ['network create web --subnet 10.0.0.0/33', 1, 'request.invalid'],
    ['network create web --gateway 10.1.0.1', 2, 'needs its subnet'],
    ['network create web --subnet 10.1.0.0/24 --gateway 10.2.0.1', 1, 'address.outside'],
    ['network create web --subnet 10.1.0.0/24 --gateway 10.1.0.1 --gateway 10.1.0.2', 2, 'two gateways'],
    ['network create web --aux-address printer', 2, 'is not NAME=IP'],
    ['network create web --vni 77 --attachable', 1, 'have no VNI'],
    ['network create web --driver fancy', 1, 'driver.unknown'],
    ['network update web', 2, '--subnet-add'],
    ['network update --subnet-add 10.9.0.0/24 bridge', 1, 'keeps the subnets'],
    ['network create bridge', 1, 'object.exists'],
    ['network rm bridge', 1, 'network.builtin'],
    ['network rm nothing', 1, 'object.notfound'],
    ['network inspect nothing', 1, 'object.notfound'],
  ])('%s: %d', async (line, status, said) => {
    const result = await cli.sluice(line);
    expect(result).toMatchObject({ status, out: '' });
    expect(result.err).toContain(said);
    expect(result.err).toMatch(/^sluice: /);
  });

  test('one that fails does not keep the others from their turn', async () => {
    await cli.must('network create a');
    await cli.must('network create b');
    const result = await cli.sluice('network rm a nothing b');
    expect(result).toMatchObject({ status: 1, out: 'a\nb\n' });
    expect(result.err).toBe('sluice: there is no network nothing (object.notfound)\n');
    const found = await cli.sluice('network inspect bridge nothing');
    expect(found.status).toBe(1);
    expect(JSON.parse(found.out)).toHaveLength(1);
  });

  test('prune asks a person, and nobody else', async () => {
    await cli.must('network create idle');
    const asked: string[] = [];
    const ask = async (question: string) => {
      asked.push(question);
      return 'n';
    };
    expect(await cli.sluice('network prune', { ask })).toMatchObject({ status: 1, out: '' });
    expect(asked).toHaveLength(1);
    expect(await cli.sluice('network prune -f', { ask })).toMatchObject({ status: 0, out: 'idle\n' });
    expect(asked).toHaveLength(1);
    expect(await cli.must('network prune')).toBe('');
  });

  test('connect and disconnect, in the order of Docker', async () => {
    await cli.must('network create web --subnet 10.20.0.0/24');
    await cli.must('sandbox create box --network none');
    expect(
      await cli.must(
        'network connect web box --ip 10.20.0.9 --network-alias db --alias sql --allow-address 10.9.0.0/16 --ifname in0',
      ),
    ).toBe('box.web\n');
    expect((await look('endpoint inspect box.web')).spec).toMatchObject({
      addresses: ['10.20.0.9/24'],
      aliases: ['db', 'sql'],
      allow: ['10.9.0.0/16'],
      ifname: 'in0',
    });
    expect(await cli.must('network disconnect web box')).toBe('box.web\n');
    expect(await cli.must('endpoint ls -q')).not.toContain('box.web');
  });
});

describe('waiting', () => {
  test('an active condition is told with its fix, on create and on connect', async () => {
    cli.world.fate = () => 'nothing';
    const settle = async (kind: 'networks' | 'sandboxes' | 'endpoints', name: string, conditions: object[]) => {
      for (;;) {
        const object = await cli.world.state[kind].get(name).catch(() => null);
        if (object) {
          const { id, revision: observed } = object;
          const status = {
            kind: object.kind,
            id,
            node: NODE,
            state: 'ready',
            observed,
            conditions,
            detail: {},
          } as const;
          return cli.world.state.statuses.set(status as never);
        }
        await sleep(5);
      }
    };
    const [created] = await Promise.all([cli.sluice('network create web'), settle('networks', 'web', [blocked])]);
    expect(created).toEqual({
      status: 0,
      out: 'web\n',
      err: `sluice: warning: network web: ForwardBlocked: ${blocked.message}\n`,
    });
    expect(await cli.must('network ls')).toContain('ready (ForwardBlocked)');
    await cli.must('sandbox create box --network web --detach').catch(() => null);
    await settle('sandboxes', 'box', [{ ...blocked, type: 'Repaired' }]);
    await settle('endpoints', 'box.web', []);
    const connected = await cli.sluice('network connect web box');
    expect(connected).toMatchObject({ status: 0, out: 'box.web\n', err: created.err });
  });

  test('a limit that passes names what is not ready; --detach does not wait', async () => {
    cli.world.fate = () => 'nothing';
    const late = await cli.sluice('network create slow --wait-timeout 200ms');
    expect(late).toMatchObject({ status: 1, out: '' });
    expect(late.err).toMatch(/not programmed within 0\.2 s: network slow \(unseen\).* \(wait\.timeout\)\n$/);
    expect(await cli.must('network create other --detach')).toBe('other\n');
    expect(await cli.must('network ls')).toMatch(/other .* pending/);
    expect(await cli.must('network rm --detach other')).toBe('other\n');
  });

  test('what fails for good is told at once, and that it stays', async () => {
    cli.world.fate = () => ({ state: 'error', code: 'driver.failed', message: 'the moon is wrong' });
    const result = await cli.sluice('network create cursed');
    expect(result.status).toBe(1);
    expect(result.err).toBe(
      'sluice: network cursed: the moon is wrong (driver.failed)\nIt is stored, and tried again until it succeeds or is removed.\n',
    );
    expect(await cli.must('network ls')).toContain('error (driver.failed)');
  });
});

describe('sandboxes', () => {
  beforeEach(async () => {
    await cli.must('network create web --subnet 10.20.0.0/24 --subnet fd00:20::/64');
    await cli.must('network create db --subnet 10.9.0.0/24');
  });

  test('flags of one network, the short form for several', async () => {
    expect(
      await cli.must(
        'sandbox create a --network web --ip 10.20.0.9 --ip6 fd00:20::9 --network-alias api --gw-priority 5',
      ),
    ).toBe('a\n');
    expect((await look('endpoint inspect a.web')).spec).toMatchObject({
      addresses: ['10.20.0.9/24', 'fd00:20::9/64'],
      aliases: ['api'],
      gwPriority: 5,
    });
    await cli.must(
      'sandbox create b --network web:ip=10.20.0.7,alias=x,alias=y --network name=db,ifname=db0,gw-priority=-1',
    );
    expect((await look('endpoint inspect b.web')).spec).toMatchObject({ aliases: ['x', 'y'] });
    expect((await look('endpoint inspect b.db')).spec).toMatchObject({ ifname: 'db0', gwPriority: -1 });
    await cli.must('sandbox create c --ip 10.0.0.77');
    expect((await look('endpoint inspect c.bridge')).spec).toMatchObject({ addresses: ['10.0.0.77/24'] });
    const table = await cli.must('sandbox ls');
    expect(table).toMatch(/^[0-9a-f]{12} +b +(web, db|db, web) +.*10\.20\.0\.7.* own +ready$/m);
    const endpoints = await cli.must(['endpoint', 'ls', '--format', '{{.Sandbox}} {{.Network}} {{.Addresses}}']);
    expect(endpoints).toContain('a web 10.20.0.9/24, fd00:20::9/64\n');
  });

  test('resolver, host name, sysctls and labels', async () => {
    await cli.must(
      'sandbox create a --network none --hostname h1 --dns 192.0.2.53 --dns-search example.test --dns-option ndots:2 --sysctl net.ipv4.ip_forward=1 --label x',
    );
    expect(await look('sandbox inspect a')).toMatchObject({
      labels: { x: '' },
      spec: {
        hostname: 'h1',
        dns: { servers: ['192.0.2.53'], search: ['example.test'], options: ['ndots:2'] },
        sysctls: { 'net.ipv4.ip_forward': '1' },
      },
    });
  });

  test('attach takes a namespace in, under the last part of its path', async () => {
    expect(await cli.must('sandbox attach /run/netns/guest')).toBe('guest\n');
    expect((await look('sandbox inspect guest')).spec).toMatchObject({ origin: 'attached', netns: '/run/netns/guest' });
    expect(await cli.must('sandbox attach /proc/4711/ns/net --network web')).toBe('pid-4711\n');
    expect(await cli.must('sandbox attach --name g2 --network web --ip 10.20.0.5 /x/y')).toBe('g2\n');
    expect(await cli.sluice('sandbox attach --ip 10.20.0.6 /x/z')).toMatchObject({ status: 2 });
  });

  test.each([
    ['sandbox create a --network web --network db --ip 10.20.0.9', 2, 'say for each what concerns it'],
    ['sandbox create a --network web:colour=red', 2, '--network: "colour=red" in "web:colour=red" is not one of ip=…'],
    ['sandbox create a --network :ip=1', 2, 'names no network'],
    ['sandbox create a --network web:ip=', 2, 'the value is empty'],
    ['sandbox create a --network nowhere', 1, 'object.notfound'],
    ['sandbox create a --network web --ip 10.21.0.9', 1, 'address.outside'],
    ['sandbox exec nobox true', 125, 'object.notfound'],
    ['sandbox exec', 125, 'needs SANDBOX'],
  ])('%s: %d', async (line, status, said) => {
    const result = await cli.sluice(line);
    expect(result).toMatchObject({ status, out: '' });
    expect(result.err).toContain(said);
  });

  test('one that a service balances over is removed by force', async () => {
    await cli.must('sandbox create a --network web');
    await cli.must('service create --name shop --network web --backend a');
    expect((await cli.sluice('sandbox rm a')).err).toContain('object.inuse');
    expect(await cli.must('sandbox rm --force a')).toBe('a\n');
  });

  test('exec waits for nobody: a sandbox without a namespace is told of', async () => {
    cli.world.fate = () => 'nothing';
    await cli.must('sandbox create late --network web --detach');
    const result = await cli.sluice('sandbox exec late true');
    expect(result).toMatchObject({ status: 125 });
    expect(result.err).toContain('sandbox late has no namespace yet: it is pending');
  });
});

describe('services', () => {
  beforeEach(async () => {
    await cli.must('network create web --subnet 10.20.0.0/24 --subnet fd00:20::/64');
    for (const name of ['a', 'b']) await cli.must(`sandbox create ${name} --network web`);
  });

  test('ports, backends of every form, update, removal', async () => {
    await cli.must(
      'service create --name shop --network web --ip 10.20.0.50 --ip fd00:20::50 --port http=80:8080 --port 53/udp --backend a --backend b:81' +
        ' --backend 10.20.0.77 --backend 10.20.0.78:99 --backend fd00:20::5 --backend [fd00:20::6]:82 --network-alias store --label x=y',
    );
    const [a, b] = await Promise.all(['a', 'b'].map(async (name) => (await look(`sandbox inspect ${name}`)).id));
    expect(await look('service inspect shop')).toMatchObject({
      labels: { x: 'y' },
      spec: {
        vips: ['10.20.0.50', 'fd00:20::50'],
        aliases: ['store'],
        ports: [
          { name: 'http', port: 80, target: 8080, protocol: 'tcp' },
          { port: 53, target: 53, protocol: 'udp' },
        ],
        backends: [
          { sandbox: a },
          { sandbox: b, port: 81 },
          { address: '10.20.0.77' },
          { address: '10.20.0.78', port: 99 },
          { address: 'fd00:20::5' },
          { address: 'fd00:20::6', port: 82 },
        ],
      },
    });
    expect(await cli.must('service ls')).toMatch(
      /shop +web +10\.20\.0\.50, fd00:20::50 +http=80:8080\/tcp, 53\/udp +0\/6 +ready/,
    );
    expect(await cli.must('service update shop --backend-rm a --backend-rm 10.20.0.77 --backend-add 10.20.0.79')).toBe(
      'shop\n',
    );
    expect((await look('service inspect shop')).spec.backends).toHaveLength(5);
    expect(await cli.must('service rm shop')).toBe('shop\n');
  });

  test.each([
    ['service create --network web', 2, 'needs --name NAME'],
    ['service create --name s --network web --port 0', 2, 'not a port from 1 to 65535'],
    ['service create --name s --network web --port 80/sctp', 2, 'neither tcp nor udp'],
    ['service create --name s --network web --port a:b:c', 2, '--port'],
    ['service create --name s --network web --backend [10.0.0.1]:80', 2, 'not an IPv6 address'],
    ['service create --name s --network web --backend 10.20.0', 2, 'not an IP address'],
    ['service create --name s --network web --backend a:b:c', 2, 'is not SANDBOX[:PORT]'],
    ['service create --name s --network web --backend nobody', 1, 'nobody'],
    ['service update nothing', 2, 'needs --backend-add, --backend-rm, --replicas, --image or --update-parallelism'],
  ])('%s: %d', async (line, status, said) => {
    const result = await cli.sluice(line);
    expect(result).toMatchObject({ status, out: '' });
    expect(result.err).toContain(said);
  });
});

describe('the whole', () => {
  test('inspect finds any kind, all that share a name', async () => {
    await cli.must('network create same');
    await cli.must('sandbox create same --network none');
    const kinds = (JSON.parse(await cli.must('inspect same')) as { kind: string }[]).map(({ kind }) => kind);
    expect(kinds).toEqual(['sandbox', 'network']);
    expect(await cli.must(['inspect', '--type', 'network', '--format', '{{.Kind}}', 'same'])).toBe('network\n');
    expect(await cli.sluice('inspect nothing')).toMatchObject({
      status: 1,
      err: 'sluice: there is no container, sandbox, service, network, endpoint or volume nothing (object.notfound)\n',
    });
    expect(await cli.sluice('inspect --type thing x')).toMatchObject({ status: 2 });
  });

  test('version and status', async () => {
    expect(await cli.must('version')).toMatch(
      /^Client:\n {2}Version: \S+\n {2}Node\.js: v\d+.*\nServer:\n {2}Version: +1\.2\.3\n/,
    );
    expect(await cli.must(['version', '--format', '{{.Server.Version}} {{.Client.Node}}'])).toBe(
      `1.2.3 ${process.version}\n`,
    );
    expect(await cli.must('-v')).toBe(await cli.must('version'));
    expect(await cli.must('status')).toMatch(/^State: +ok\n[\s\S]*^Networks: +3 ready$[\s\S]*^COMPONENT/m);
    expect(JSON.parse(await cli.must('info --format json'))).toMatchObject({ instance: 'test' });
  });

  test('without a daemon: one sentence, and what can be said without it', async () => {
    const result = await cli.sluice(['version', '-H', '/nowhere/sluice.sock']);
    expect(result.status).toBe(1);
    expect(result.out).toContain('Client:');
    expect(result.err).toMatch(
      /^sluice: the daemon does not answer at unix:\/\/\/nowhere\/sluice\.sock .*\(daemon\.unreachable\)\n$/,
    );
    expect((await cli.sluice('network ls -H ftp://x')).err).toContain('config.invalid');
  });

  test('events tell what changes, by name', async () => {
    const format = '{{.Kind}} {{.Name}} {{.Action}}';
    let out = '';
    const before = cli.world.store.watches;
    const watching = cli.sluice(['events', '--kind', 'network', '--format', format], {
      out(text) {
        out += text;
        // As a reader that has seen enough.
        if (out.includes('remove\n')) throw new Error('seen enough');
      },
    });
    while (cli.world.store.watches === before) await sleep(5);
    await cli.must('network create web');
    await cli.must('network rm web');
    expect((await watching).err).toContain('seen enough');
    expect(out).toBe('network web create\nnetwork web ready\nnetwork web removing\nnetwork web remove\n');
  });
});
