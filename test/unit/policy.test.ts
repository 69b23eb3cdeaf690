import { describe, expect, test } from 'vitest';
import { planDockerUser } from '../../src/controller/firewall/docker.ts';
import { asksForState, findBlockers } from '../../src/controller/firewall/forward.ts';
import { renderPolicy } from '../../src/controller/firewall/policy.ts';
import { renderGuard } from '../../src/controller/firewall/vxlan.ts';
import { digestTable } from '../../src/model/nft/digest.ts';

const web = {
  ifname: 'slweb',
  internal: false,
  masquerade: true,
  subnets: [
    { cidr: '10.1.0.0/24', gateway: '10.1.0.1' },
    { cidr: 'fd00:1::/64', gateway: 'fd00:1::1' },
  ],
};
const db = {
  ifname: 'sldb',
  internal: true,
  masquerade: true,
  subnets: [{ cidr: '10.2.0.0/24', gateway: '10.2.0.1' }],
};

describe('policy table', () => {
  test('replaces itself whole, whatever the order of the networks', () => {
    const text = renderPolicy('t', [web, db]);
    expect(text).toBe(renderPolicy('t', [db, web]));
    expect(
      text.startsWith('table inet sluice-t-policy\ndelete table inet sluice-t-policy\ntable inet sluice-t-policy {'),
    ).toBe(true);
  });

  test('an internal network is not translated, one without masquerade neither', () => {
    const text = renderPolicy('t', [
      web,
      db,
      { ...web, ifname: 'slraw', masquerade: false, subnets: [{ cidr: '10.3.0.0/24' }] },
    ]);
    expect(text).toContain('set nat4 { type ipv4_addr; flags interval; elements = { 10.1.0.0/24 }; }');
    expect(text).toContain('set nat6 { type ipv6_addr; flags interval; elements = { fd00:1::/64 }; }');
    expect(text).toContain('set internal { type ifname; flags constant; elements = { "sldb" }; }');
  });

  test('the number of rules does not depend on the number of networks', () => {
    const many = Array.from({ length: 100 }, (_, i) => ({
      ...web,
      ifname: `sl${i}`,
      subnets: [{ cidr: `10.9.${i}.0/24`, gateway: `10.9.${i}.1` }],
    }));
    const lines = (text: string) => text.split('\n').length;
    expect(lines(renderPolicy('t', many))).toBe(lines(renderPolicy('t', [web])));
  });

  test('what stays within a network across hosts is not tracked, but for its gateway, or where somebody asks for its state', () => {
    const mesh = { ...web, ifname: 'slmesh', tunnelled: true, slot: 3 };
    const zone = (network: typeof mesh & { tracked?: boolean }): string =>
      /chain zone-3 \{([^}]*)\}/.exec(renderPolicy('t', [network]))![1]!;
    expect(zone(mesh).trim().split(/\n\s*/)).toEqual([
      'ip daddr != 10.1.0.1 ip daddr 10.1.0.0/24 notrack accept',
      'ip6 daddr != fd00:1::1 ip6 daddr fd00:1::/64 notrack accept',
      'ct original zone set 3',
    ]);
    expect(zone({ ...mesh, tracked: true }).trim()).toBe('ct original zone set 3');
    expect(renderPolicy('t', [web])).not.toContain('notrack');
    // Nobody shares its subnets: no zones, no marks, and not a hook more when it does not come here.
    const alone = renderPolicy('t', [{ ...mesh, slot: undefined }]);
    expect(alone).toContain('iifname vmap { "slmesh" : goto within-slmesh }');
    expect(alone).not.toMatch(/chain (zone-|path-|marks|answers)/);
    const past = renderPolicy('t', [{ ...mesh, slot: undefined, tracked: true }]);
    expect(past.match(/hook \w+/g)).toEqual(['hook forward', 'hook forward', 'hook input', 'hook postrouting']);
  });

  test('a digest is blind to handles, counters and the order of elements, and sees everything else', () => {
    const rule = (verdict: string, packets: number, handle: number) => [
      { rule: { handle, expr: [{ counter: { packets, bytes: 1 } }, { [verdict]: null }] } },
      { set: { elem: packets ? ['a', 'b'] : ['b', 'a'] } },
    ];
    expect(digestTable(rule('drop', 0, 1))).toBe(digestTable(rule('drop', 9, 7)));
    expect(digestTable(rule('drop', 0, 1))).not.toBe(digestTable(rule('accept', 0, 1)));
  });
});

describe('who drops what we forward', () => {
  const chain = (name: string, extra: object = {}) => ({ chain: { family: 'ip', table: 'filter', name, ...extra } });
  const forward = (policy: string) => chain('FORWARD', { type: 'filter', hook: 'forward', policy });
  const rule = (name: string, ...expr: object[]) => ({ rule: { family: 'ip', table: 'filter', chain: name, expr } });
  const iif = (right: unknown, op = '==') => ({ match: { op, left: { meta: { key: 'iifname' } }, right } });
  const find = (...ruleset: Record<string, unknown>[]) =>
    findBlockers(ruleset, { hook: 'forward', ifname: 'slabc' }, (table) => table.startsWith('sluice-'));

  test('a policy of drop, as Docker sets it', () => {
    const [blocker] = find(forward('drop'), chain('DOCKER-USER'), rule('FORWARD', { jump: { target: 'DOCKER-USER' } }));
    expect(blocker).toMatchObject({ table: 'ip filter', chain: 'FORWARD', owner: 'docker' });
    expect(blocker?.fix).toContain('iptables -I DOCKER-USER -i sl+ -j ACCEPT');
  });

  test('an accept for our bridges in a chain that is jumped to lifts it', () => {
    expect(
      find(
        forward('drop'),
        chain('DOCKER-USER'),
        rule('FORWARD', { jump: { target: 'DOCKER-USER' } }),
        rule('DOCKER-USER', iif('sl*'), { accept: null }),
      ),
    ).toEqual([]);
    expect(find(forward('drop'), rule('FORWARD', iif({ set: ['eth0', 'slabc'] }), { accept: null }))).toEqual([]);
  });

  test('an accept of part of the traffic, or for others, does not', () => {
    const part = { match: { op: 'in', left: { ct: { key: 'state' } }, right: ['established'] } };
    expect(find(forward('drop'), rule('FORWARD', part, { accept: null }))).toHaveLength(1);
    expect(find(forward('drop'), rule('FORWARD', iif('docker0'), { accept: null }))).toHaveLength(1);
    expect(find(forward('drop'), rule('FORWARD', iif('slabc', '!='), { accept: null }))).toHaveLength(1);
  });

  test('a reject at the end, as firewalld has it', () => {
    expect(find(forward('accept'), rule('FORWARD', { reject: { type: 'icmp' } }))).toHaveLength(1);
    expect(find(forward('accept'), rule('FORWARD', iif('eth0'), { drop: null }))).toEqual([]);
  });

  test('ours, other hooks and loops are passed over', () => {
    const ours = {
      chain: {
        family: 'inet',
        table: 'sluice-x-policy',
        name: 'forward',
        type: 'filter',
        hook: 'forward',
        policy: 'drop',
      },
    };
    expect(find(ours, chain('INPUT', { type: 'filter', hook: 'input', policy: 'drop' }))).toEqual([]);
    expect(
      find(
        forward('accept'),
        chain('a'),
        rule('FORWARD', { jump: { target: 'a' } }),
        rule('a', { jump: { target: 'a' } }),
      ),
    ).toEqual([]);
  });
});

describe('who asks for the state of connections within a network', () => {
  const chain = (name: string, extra: object = {}) => ({ chain: { family: 'ip', table: 'filter', name, ...extra } });
  const forward = chain('FORWARD', { type: 'filter', hook: 'forward', policy: 'accept' });
  const rule = (name: string, ...expr: object[]) => ({ rule: { family: 'ip', table: 'filter', chain: name, expr } });
  const at = (key: string, right: unknown) => ({ match: { op: '==', left: { meta: { key } }, right } });
  const state = { match: { op: 'in', left: { ct: { key: 'state' } }, right: ['established'] } };
  const accept = { accept: null };
  const asks = (...ruleset: Record<string, unknown>[]) =>
    asksForState(ruleset, 'slabc', (table) => table.startsWith('sluice-'));

  test('a rule for all, in whatever chain it stands and however it asks', () => {
    expect(asks(forward, rule('FORWARD', state, accept))).toBe(true);
    expect(asks(forward, rule('FORWARD', { vmap: { key: { ct: { key: 'state' } }, data: { set: [] } } }))).toBe(true);
    expect(asks(forward, rule('FORWARD', { xt: { type: 'match', name: 'conntrack' } }, accept))).toBe(true);
    // An older nft does not say which module it is.
    expect(asks(forward, rule('FORWARD', { xt: null }, accept))).toBe(true);
    const port = { match: { op: '==', left: { payload: { protocol: 'tcp', field: 'dport' } }, right: 80 } };
    expect(asks(forward, rule('FORWARD', port, { jump: { target: 'web' } }), rule('web', state, accept))).toBe(true);
    const admin = { chain: { family: 'inet', table: 'sluice-admin', name: 'f', type: 'filter', hook: 'forward' } };
    expect(asks(admin, { rule: { family: 'inet', table: 'sluice-admin', chain: 'f', expr: [state] } })).toBe(true);
  });

  test('nobody: for other interfaces, behind an accept for ours, at other hooks, or in our own tables', () => {
    expect(asks(forward)).toBe(false);
    expect(asks(forward, rule('FORWARD', at('oifname', 'docker0'), state, accept))).toBe(false);
    expect(asks(forward, rule('FORWARD', at('iifname', 'eth0'), { xt: null }, accept))).toBe(false);
    expect(asks(forward, rule('FORWARD', at('iifname', 'sl*'), accept), rule('FORWARD', state, accept))).toBe(false);
    expect(asks(forward, rule('FORWARD', { xt: { type: 'match', name: 'comment' } }, accept))).toBe(false);
    expect(asks(chain('INPUT', { type: 'filter', hook: 'input' }), rule('INPUT', state, accept))).toBe(false);
    const ours = { family: 'inet', table: 'sluice-x-policy', name: 'forward', type: 'filter', hook: 'forward' };
    expect(asks({ chain: ours }, { rule: { ...ours, chain: 'forward', expr: [state] } })).toBe(false);
  });
});

describe('who keeps other nodes from the VXLAN port', () => {
  const chain = (extra: object = {}) => ({
    chain: { family: 'ip', table: 'filter', name: 'INPUT', type: 'filter', hook: 'input', policy: 'drop', ...extra },
  });
  const rule = (...expr: object[]) => ({ rule: { family: 'ip', table: 'filter', chain: 'INPUT', expr } });
  const iif = (right: unknown) => ({ match: { op: '==', left: { meta: { key: 'iifname' } }, right } });
  const l4 = (right: unknown) => ({ match: { op: '==', left: { meta: { key: 'l4proto' } }, right } });
  const dport = (right: unknown, protocol = 'udp') => ({
    match: { op: '==', left: { payload: { protocol, field: 'dport' } }, right },
  });
  const accept = { accept: null };
  const find = (...ruleset: Record<string, unknown>[]) =>
    findBlockers(ruleset, { hook: 'input', ifname: 'eth0', udpPort: 4789 }, () => false);

  test('a policy of drop without a word about the port', () => {
    expect(find(chain())).toMatchObject([
      { chain: 'INPUT', fix: 'iptables -I INPUT -i eth0 -p udp --dport 4789 -j ACCEPT' },
    ]);
    expect(find(chain(), rule(dport(4789, 'tcp'), accept))).toHaveLength(1);
    expect(find(chain(), rule(dport(53), accept))).toHaveLength(1);
    expect(find(chain(), rule(iif('lo'), accept))).toHaveLength(1);
    expect(find(chain({ policy: 'accept' }), rule(l4('udp'), { drop: null }))).toHaveLength(1);
  });

  test('an accept for the port, alone, in a range or in a set, lifts it', () => {
    for (const port of [4789, { range: [4000, 5000] }, { set: [53, 4789] }])
      expect(find(chain(), rule(dport(port), accept))).toEqual([]);
    expect(find(chain(), rule(iif('eth0'), l4('udp'), accept))).toEqual([]);
    // What iptables matches by a module of its own is not shown.
    expect(find(chain(), rule(l4('udp'), { xt: null }, accept))).toEqual([]);
    expect(find(chain(), rule(l4('tcp'), { xt: null }, accept))).toHaveLength(1);
  });
});

describe('guard of the VXLAN port', () => {
  const underlay = { address: '192.0.2.1', port: 4789, ifname: 'eth0' };

  test('takes from registered end points on the underlay alone, in whatever order they come', () => {
    const vteps = ['192.0.2.3', '2001:db8::2', '192.0.2.2'];
    const text = renderGuard('t', { underlay, vteps, bridges: ['slb', 'sla'] });
    expect(text).toBe(renderGuard('t', { underlay, vteps: [...vteps].reverse(), bridges: ['sla', 'slb'] }));
    expect(text).toContain('set vteps4 { type ipv4_addr; flags constant; elements = { 192.0.2.2, 192.0.2.3 }; }');
    expect(text).toContain('set vteps6 { type ipv6_addr; flags constant; elements = { 2001:db8::2 }; }');
    expect(text).toContain('set sandboxes { type ifname; flags constant; elements = { "sla", "slb" }; }');
    expect(text).toContain('iifname "eth0" ip saddr @vteps4 accept');
    // Nothing of the tunnel itself is tracked, in either direction.
    expect(text).toContain('iifname "eth0" ip daddr 192.0.2.1 ip saddr @vteps4 notrack accept');
    expect(text).toContain('udp dport 4789 ip saddr 192.0.2.1 ip daddr @vteps4 notrack');
    const six = { ...underlay, address: '2001:db8::1' };
    expect(renderGuard('t', { underlay: six, vteps, bridges: [] })).toContain('ip6 daddr @vteps6 notrack');
  });

  test('of an address on lo it does not ask for the interface', () => {
    const text = renderGuard('t', { underlay: { ...underlay, ifname: 'lo' }, vteps: [], bridges: [] });
    expect(text).toContain('    ip saddr @vteps4 accept');
    expect(text).toContain('set vteps4 { type ipv4_addr; flags constant; }');
  });
});

describe('guard of the device for tests of checksums', () => {
  const underlay = { address: '192.0.2.1', port: 4789, ifname: 'eth0' };
  const prefix = 'fd73:6c75:6963:12b5::/64';

  test('refuses SYNs to one port, lets refusals in, and nothing else to it or through it', () => {
    const text = renderGuard('t', { underlay, vteps: [], bridges: [] });
    // What is not for the VXLAN port goes on to it.
    expect(text).toMatch(/udp dport != 4789 goto probe\n\s+meta l4proto != udp goto probe\n/);
    const chain = /chain probe \{\n([^}]*\}[^}]*?)\n {2}\}/
      .exec(text)![1]!
      .split('\n')
      .map((line) => line.trim());
    expect(chain).toEqual([
      `ip6 daddr ${prefix} iifname != { "sxprobet", "lo" } counter drop comment "probe address from elsewhere"`,
      'iifname != "sxprobet" accept',
      `ip6 saddr ${prefix} ip6 daddr ${prefix} tcp dport 9 tcp flags & (fin | syn | rst | ack) == syn counter reject with tcp reset`,
      `ip6 saddr ${prefix} ip6 daddr ${prefix} tcp sport 9 tcp flags & rst == rst counter accept`,
      'counter drop comment "anything else by the probe"',
    ]);
  });
});

describe('accepts in DOCKER-USER', () => {
  const own = (handle: number, key: string, right = 'sl*') => ({
    rule: {
      handle,
      comment: 'sluice:t',
      expr: [
        { match: { op: '==', left: { meta: { key } }, right } },
        { counter: { packets: 1, bytes: 2 } },
        { accept: null },
      ],
    },
  });
  const foreign = { rule: { handle: 9, expr: [{ return: null }] } };
  const chain = { chain: { family: 'ip', table: 'filter', name: 'DOCKER-USER' } };
  const plan = (wanted: boolean, ...rules: object[]) =>
    planDockerUser('ip', [chain, ...rules] as Record<string, unknown>[], 't', wanted);

  test('are two, at the head, set when missing and left alone when right', () => {
    const commands = plan(true, foreign);
    expect(commands).toEqual([
      'insert rule ip filter DOCKER-USER oifname "sl*" counter accept comment "sluice:t"',
      'insert rule ip filter DOCKER-USER iifname "sl*" counter accept comment "sluice:t"',
    ]);
    expect(plan(true, own(1, 'iifname'), own(2, 'oifname'), foreign)).toEqual([]);
  });

  test('are put back where somebody moved, changed or removed one', () => {
    for (const rules of [
      [foreign, own(1, 'iifname'), own(2, 'oifname')],
      [own(1, 'iifname'), foreign],
      [own(1, 'iifname', 'eth0'), own(2, 'oifname'), foreign],
    ]) {
      const commands = plan(true, ...rules);
      expect(commands.filter((command) => command.startsWith('insert'))).toHaveLength(2);
      expect(commands.filter((command) => command.startsWith('delete'))).toHaveLength(
        rules.filter((rule) => rule !== foreign).length,
      );
    }
  });

  test('go when they are not wanted, and nothing of others does', () => {
    expect(plan(false, own(4, 'iifname'), foreign)).toEqual(['delete rule ip filter DOCKER-USER handle 4']);
    expect(plan(false, foreign, { ...foreign, comment: 'sluice:other' })).toEqual([]);
  });
});
