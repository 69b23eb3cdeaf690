/** What the load generators print, read. */
import { describe, expect, it } from 'vitest';
import { parseDnsperf, parseIperf3, parseWrk } from '../../src/load/foreign.ts';
import { pinned, words } from '../../src/load/load.ts';

describe('wrk', () => {
  const clean = `Running 2s test @ http://10.9.0.2/
  1 threads and 32 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency   337.38us   53.91us   2.72ms   93.53%
    Req/Sec    93.75k     1.51k   96.00k    60.00%
  Latency Distribution
     50%  330.00us
     75%  346.00us
     90%    1.25ms
     99%    1.02s
  186377 requests in 2.03s, 9.78MB read
Requests/sec:  91992.82
Transfer/sec:      4.83MB
`;
  it('rate, requests and latency in microseconds', () => {
    expect(parseWrk(clean)).toEqual({
      requests: 186_377,
      rate: 91_992.82,
      latencyUs: { p50: 330, p90: 1_250, p99: 1_020_000 },
      failed: 0,
      errors: {},
    });
  });

  it('every kind of failure', () => {
    const failures =
      '  Socket errors: connect 0, read 3, write 0, timeout 2\n  Non-2xx or 3xx responses: 7\nRequests/sec:';
    const result = parseWrk(clean.replace('Requests/sec:', failures));
    expect(result.failed).toBe(12);
    expect(result.errors).toEqual({ read: 3, timeout: 2, status: 7 });
  });

  it('something else is an error, not a zero', () => {
    expect(() => parseWrk('unable to connect')).toThrow(/unable to connect/);
    expect(() => parseWrk(clean.replace(/^Requests.*$/m, ''))).toThrow(/the rate is not in/);
  });
});

describe('iperf3', () => {
  it('what arrived', () => {
    const text = JSON.stringify({ end: { sum_sent: { retransmits: 3 }, sum_received: { bits_per_second: 1.5e9 } } });
    expect(parseIperf3(text)).toEqual({ bitsPerSecond: 1.5e9, retransmits: 3 });
  });
  it('its own error', () => {
    expect(() => parseIperf3('{"error":"unable to connect"}')).toThrow(/unable to connect/);
    expect(() => parseIperf3('{"end":{}}')).toThrow(/no result/);
  });
});

describe('dnsperf', () => {
  const text = `
  Queries sent:         83831
  Queries completed:    83830 (100.00%)
  Queries lost:         1 (0.00%)

  Response codes:       NOERROR 41916 (50.00%), NXDOMAIN 41914 (50.00%)
  Average packet size:  request 24, response 32
  Run time (s):         1.007139
  Queries per second:   83236.772680

  Average Latency (s):  0.000965 (min 0.000020, max 0.007292)
  Latency StdDev (s):   0.000323
`;
  it('counts, codes and latency', () => {
    const result = parseDnsperf(text);
    expect(result).toMatchObject({ sent: 83_831, completed: 83_830, lost: 1, rate: 83_236.77268 });
    expect(result.codes).toEqual({ NOERROR: 41_916, NXDOMAIN: 41_914 });
    expect(result.latencyUs.mean).toBeCloseTo(965);
    expect(result.latencyUs.max).toBeCloseTo(7_292);
  });
  it('no answer at all is an error', () => {
    expect(() => parseDnsperf('Queries sent: 5')).toThrow(/no latency/);
  });
});

describe('command lines', () => {
  it('options become words; what is undefined does not', () => {
    const options = { address: '::1', timeoutMs: 200, connected: false, sources: ['a', 'b'], rate: undefined };
    const expected = ['--address', '::1', '--timeout-ms', '200', '--connected', '0', '--sources', 'a,b'];
    expect(words(options)).toEqual(expected);
  });
  it('pinning', () => {
    expect(pinned({}, ['wrk'])).toEqual(['wrk']);
    expect(pinned({ cpus: '0-1' }, ['wrk'])).toEqual(['taskset', '-c', '0-1', 'wrk']);
  });
});
