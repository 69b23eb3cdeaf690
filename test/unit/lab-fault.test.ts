import { expect, test } from 'vitest';
import { bitRate, percentage } from '../../src/cli/lab/lab.ts';
import { faultTable } from '../../src/lab/fault.ts';

test('a fault is a table of its own, ahead of everything, in both directions', () => {
  expect(faultTable('partition', ['ip saddr 192.0.2.1 drop'], ['ip daddr 192.0.2.1 drop'])).toBe(
    [
      'add table inet lab_partition',
      'add chain inet lab_partition arriving { type filter hook prerouting priority -500; }',
      'add chain inet lab_partition leaving { type filter hook postrouting priority -500; }',
      'add rule inet lab_partition arriving iifname eth0 ip saddr 192.0.2.1 drop',
      'add rule inet lab_partition leaving oifname eth0 ip daddr 192.0.2.1 drop',
      '',
    ].join('\n'),
  );
});

test('rates and shares are read as people write them', () => {
  expect(['1gbit', '100Mbit', '1.5kbit', '8bit'].map(bitRate)).toEqual([1e9, 1e8, 1500, 8]);
  for (const wrong of ['100', '1mb', '-1mbit', '7bit', ''])
    expect(() => bitRate(wrong), wrong).toThrow('is not a rate');
  expect(['5%', '0', '0.25%', '100%'].map(percentage)).toEqual([5, 0, 0.25, 100]);
  for (const wrong of ['101', '-1', 'x', '5%%', '']) expect(() => percentage(wrong), wrong).toThrow('is not a share');
});
