import { describe, expect, test } from 'vitest';
import { findBlockers } from '../../src/controller/firewall/forward.ts';
import { digestTable, renderPolicy } from '../../src/controller/firewall/policy.ts';

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
    expect(text).toContain('set internal { type ifname; elements = { "sldb" }; }');
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
    findBlockers(ruleset, 'slabc', (table) => table.startsWith('sluice-'));

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
