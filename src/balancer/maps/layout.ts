/** The TypeScript side of src/bpf/structs.h. A test compares every size and offset with the BTF of the compiled objects. */
import { address, array, hex, mac, port, struct, u8, u32, u64, zeros } from './struct.ts';

/**
 * Raise it when a configuration map changes in size or in meaning: pinned maps of another layout are left to the programs
 * that know them, until new ones are filled.
 */
export const LAYOUT = 2;

/** Objects by file name; the first makes the maps. */
export const OBJECTS = ['balancer_socket.o', 'guard.o', 'tunnel.o', 'dns.o'] as const;

/** Maps of sockets and connections: their layout only grows into spare bytes, and they live on from version to version. */
export const FLOW_MAPS: ReadonlySet<string> = new Set(['peers', 'peers_overflow', 'datagrams']);

/** enum stage */
export const STAGE = { from_sandbox: 0, dns: 1, from_tunnel: 2 } as const;
export type Stage = keyof typeof STAGE;

/** enum drop_reason, by index; as counters show them. */
export const DROP_REASONS = ['source-mac', 'source-ip', 'arp', 'ndp', 'vlan', 'ethertype', 'malformed'] as const;
const DROP_SLOTS = 16;

/** enum endpoint_flag */
export const ENDPOINT_SPOOF = 1;
export const ENDPOINT_ALLOW = 2;
/** ENDPOINT_ADDRESSES: more go to the LPM map. */
export const ENDPOINT_ADDRESSES = 4;

/** enum station_flag */
export const STATION_DIRECT = 1;
export const STATION_QUEUED = 2;

/** enum verdict: to the next program on the hook. */
export const VERDICT_PASS = -1;

export const PROTOCOL = { tcp: 6, udp: 17 } as const;

/** enum algorithm */
export const ALGORITHM_RANDOM = 0;

/** A key that is one number. */
export const NUMBER = struct('__u32', { number: u32 });
export const COOKIE = struct('__u64', { cookie: u64 });

export const SANDBOX = struct('sandbox', { view: u32, number: u32, spare: zeros(8), id: hex(32) });
export const RESOLVER = struct('resolver', { port, spare8: zeros(2), view: u32, spare: zeros(8) });
export const ENDPOINT = struct('endpoint', {
  mac,
  flags: u8,
  address_count: u8,
  ifindex: u32,
  identity: u32,
  link_local: address,
  addresses: array(address, ENDPOINT_ADDRESSES),
  tunnel: u32,
  spare: zeros(12),
  id: hex(32),
});
export const SEGMENT = struct('segment', { number: u32, flags: u32, spare: zeros(8), id: hex(32) });
export const STATION_KEY = struct('station_key', { tunnel: u32, mac, spare: zeros(2) });
export const STATION = struct('station', { ifindex: u32, flags: u32 });
export const ALLOWED_KEY = struct('allowed_key', { prefixlen: u32, attachment: u32, addr: address });
export const DROPS = struct('drops', { packets: array(u64, DROP_SLOTS) });
export const FRONTEND_KEY = struct('frontend_key', { addr: address, view: u32, port, protocol: u8, spare: zeros(1) });
export const FRONTEND = struct('frontend', { set: u32, spare: zeros(12) });
export const SET = struct('set', { count: u32, algorithm: u8, spare8: zeros(3), spare: zeros(8) });
export const SLOT_KEY = struct('slot_key', { set: u32, index: u32 });
export const BACKEND_KEY = struct('backend_key', { set: u32, number: u32 });
export const BACKEND = struct('backend', { addr: address, port, spare8: zeros(2), self: BACKEND_KEY, spare: zeros(4) });
export const SET_COUNTERS = struct('set_counters', { connects: u64, refused: u64 });

export const PEER = struct('peer', {
  version: u8,
  spare8: zeros(3),
  number: u32,
  vip: address,
  backend: address,
  vip_port: port,
  backend_port: port,
  set: u32,
  netns: u64,
  spare: zeros(8),
});
export const TRANSLATION = struct('translation', {
  vip: address,
  backend: address,
  vip_port: port,
  backend_port: port,
  number: u32,
  set: u32,
  spare: zeros(4),
});
const TRANSLATIONS = 4;
export const DATAGRAMS = struct('datagrams', {
  version: u8,
  spare8: zeros(3),
  next: u32,
  spare: zeros(8),
  translations: array(TRANSLATION, TRANSLATIONS),
});
export const LAYOUT_VALUE = struct('layout', {
  version: u32,
  spare: zeros(24),
});

/** All that the test compares with BTF. */
export const STRUCTS = [
  SANDBOX,
  RESOLVER,
  ENDPOINT,
  SEGMENT,
  STATION_KEY,
  STATION,
  ALLOWED_KEY,
  DROPS,
  FRONTEND_KEY,
  FRONTEND,
  SET,
  SLOT_KEY,
  BACKEND_KEY,
  BACKEND,
  SET_COUNTERS,
  PEER,
  TRANSLATION,
  DATAGRAMS,
] as const;
