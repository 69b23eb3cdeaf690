/** Who else sees what stays within a network's bridge: then frames do not go past it. */
import { describe, expect, test } from 'vitest';
import { seesFrames } from '../../src/controller/firewall/forward.ts';

const chain = (family: string, name: string, extra: object = {}) => ({
  chain: { family, table: 'filter', name, ...extra },
});
const base = (family: string, hook: string, more: object = {}) =>
  chain(family, hook.toUpperCase(), { type: 'filter', hook, policy: 'accept', ...more });
const rule = (family: string, name: string, ...expr: object[]) => ({
  rule: { family, table: 'filter', chain: name, expr },
});
const match = (left: object, right: unknown, op = '==') => ({ match: { op, left, right } });
const iif = (right: unknown, op?: string) => match({ meta: { key: 'iifname' } }, right, op);
const address = (field: string, right: unknown, op?: string) =>
  match({ payload: { protocol: String(right).includes(':') ? 'ip6' : 'ip', field } }, right, op);
const prefix = (addr: string, len: number) => ({ prefix: { addr, len } });
const [drop, accept, mangle] = [{ drop: null }, { accept: null }, { mangle: { key: {}, value: 1 } }];
const jump = (target: string) => ({ jump: { target } });

const sees = (...ruleset: Record<string, unknown>[]) => seesBy(['ip', 'ip6'], ...ruleset);
const seesBy = (bridged: ('ip' | 'ip6')[], ...ruleset: Record<string, unknown>[]) =>
  seesFrames(
    ruleset,
    {
      ifname: 'slabc',
      subnets: ['10.50.0.0/20', 'fd00:50::/64'],
      devices: (name) => name === 'svabc',
      bridged,
    },
    (table) => table.startsWith('sluice-'),
  );

describe('who sees what stays within a network', () => {
  test.each<[what: string, ruleset: Record<string, unknown>[], seen: string | null]>([
    ['nobody', [], null],
    ['an empty chain', [base('ip', 'forward')], null],
    ['a policy of drop', [base('ip', 'forward', { policy: 'drop' })], 'ip filter FORWARD'],
    [
      'a policy of drop behind an accept for our bridges',
      [
        base('ip', 'forward', { policy: 'drop' }),
        chain('ip', 'DOCKER-USER'),
        rule('ip', 'FORWARD', jump('DOCKER-USER')),
        rule('ip', 'DOCKER-USER', iif('sl*'), accept),
      ],
      null,
    ],
    ['a drop of everything', [base('ip6', 'forward'), rule('ip6', 'FORWARD', drop)], 'ip6 filter FORWARD'],
    ['a drop for other interfaces', [base('ip', 'forward'), rule('ip', 'FORWARD', iif('docker0'), drop)], null],
    [
      'a drop for all but others',
      [base('ip', 'forward'), rule('ip', 'FORWARD', iif('docker0', '!='), drop)],
      'ip filter FORWARD',
    ],
    [
      'a drop for some port',
      [
        base('inet', 'forward'),
        rule('inet', 'FORWARD', match({ payload: { protocol: 'tcp', field: 'dport' } }, 22), drop),
      ],
      'inet filter FORWARD',
    ],
    ['a mark', [base('ip', 'prerouting'), rule('ip', 'PREROUTING', mangle)], 'ip filter PREROUTING'],
    [
      'a log in a chain that is jumped to',
      [
        base('ip', 'postrouting'),
        chain('ip', 'seen'),
        rule('ip', 'POSTROUTING', jump('seen')),
        rule('ip', 'seen', { log: {} }),
      ],
      'ip filter POSTROUTING',
    ],
    [
      'counters and matches of iptables alone',
      [
        base('ip', 'forward'),
        rule('ip', 'FORWARD', { counter: {} }, { xt: { type: 'match', name: 'addrtype' } }, accept),
      ],
      null,
    ],
    [
      'a target of iptables',
      [base('ip', 'forward'), rule('ip', 'FORWARD', { xt: { type: 'target', name: 'TCPMSS' } })],
      'ip filter FORWARD',
    ],
    [
      'something of iptables that is not named',
      [base('ip', 'forward'), rule('ip', 'FORWARD', { xt: null })],
      'ip filter FORWARD',
    ],
    [
      'NAT, which what is not tracked does not come to',
      [base('ip', 'postrouting', { type: 'nat' }), rule('ip', 'POSTROUTING', { masquerade: null })],
      null,
    ],
    ['another hook', [base('ip', 'input', { policy: 'drop' })], null],
    [
      'ours',
      [
        {
          chain: {
            family: 'inet',
            table: 'sluice-x-policy',
            name: 'f',
            type: 'filter',
            hook: 'forward',
            policy: 'drop',
          },
        },
      ],
      null,
    ],
    [
      'the administrator`s own',
      [
        {
          chain: {
            family: 'inet',
            table: 'sluice-admin',
            name: 'forward',
            type: 'filter',
            hook: 'forward',
            policy: 'accept',
          },
        },
        { rule: { family: 'inet', table: 'sluice-admin', chain: 'forward', expr: [drop] } },
      ],
      'inet sluice-admin forward',
    ],
    [
      'a drop for other addresses',
      [
        base('ip', 'prerouting'),
        rule('ip', 'PREROUTING', address('daddr', '172.17.0.2'), drop),
        rule('ip', 'PREROUTING', address('saddr', prefix('172.17.0.0', 16)), drop),
        rule('ip', 'PREROUTING', address('daddr', { set: ['172.17.0.3', prefix('192.168.0.0', 16)] }), drop),
      ],
      null,
    ],
    [
      'a drop for one of its addresses',
      [base('ip', 'prerouting'), rule('ip', 'PREROUTING', address('daddr', '10.50.3.4'), drop)],
      'ip filter PREROUTING',
    ],
    [
      'a drop for a range that may hold them',
      [
        base('ip', 'prerouting'),
        rule('ip', 'PREROUTING', address('daddr', { range: ['10.0.0.1', '10.255.0.1'] }), drop),
      ],
      'ip filter PREROUTING',
    ],
    [
      'a drop for a named set',
      [base('ip', 'forward'), rule('ip', 'FORWARD', address('daddr', '@blocked'), drop)],
      'ip filter FORWARD',
    ],
    [
      'a drop for all but other addresses',
      [base('ip', 'forward'), rule('ip', 'FORWARD', address('daddr', '172.17.0.2', '!='), drop)],
      'ip filter FORWARD',
    ],
    [
      'a drop for other addresses of the other family',
      [base('ip6', 'forward'), rule('ip6', 'FORWARD', address('saddr', 'fd00:51::1'), drop)],
      null,
    ],
    [
      'a drop for what is for the host',
      [
        base('ip', 'prerouting'),
        rule('ip', 'PREROUTING', match({ fib: { result: 'type', flags: ['daddr'] } }, 'local'), drop),
      ],
      null,
    ],
    [
      'a filter of bridged frames',
      [base('bridge', 'forward'), rule('bridge', 'FORWARD', iif('svabc'), drop)],
      'bridge filter FORWARD',
    ],
    [
      'a filter at a port',
      [base('netdev', 'ingress', { dev: 'svabc' }), rule('netdev', 'INGRESS', drop)],
      'netdev filter INGRESS',
    ],
    [
      'a filter at another device',
      [base('netdev', 'ingress', { dev: ['eth0', 'eth1'] }), rule('netdev', 'INGRESS', drop)],
      null,
    ],
  ])('%s', (_, ruleset, seen) => expect(sees(...ruleset)).toBe(seen));

  test('what does not see bridged frames on this host sees nothing', () => {
    const rulesets = (family: string) => [base(family, 'forward'), rule(family, 'FORWARD', drop)];
    const at = (...bridged: ('ip' | 'ip6')[]) =>
      ['ip', 'ip6', 'inet', 'bridge'].filter((family) => seesBy(bridged, ...rulesets(family)) !== null);
    expect(at()).toEqual(['bridge']);
    expect(at('ip')).toEqual(['ip', 'inet', 'bridge']);
    expect(at('ip6')).toEqual(['ip6', 'inet', 'bridge']);
  });
});
