/** All commands. A noun is loaded only when it is named, so that no command pays for another. */
import type { Tree } from './command/command.ts';

export const tree: Tree = {
  network: { summary: 'Networks', load: async () => (await import('./network.ts')).network },
  sandbox: {
    summary: 'Sandboxes: named network namespaces',
    load: async () => (await import('./sandbox.ts')).sandbox,
  },
  endpoint: {
    summary: "Endpoints: a sandbox's place on a network",
    load: async () => (await import('./endpoint.ts')).endpoint,
  },
  service: { summary: 'Balanced services', load: async () => (await import('./service.ts')).service },
  inspect: {
    summary: 'All that is known of an object of any kind',
    load: async () => (await import('./inspect.ts')).inspect,
  },
  events: { summary: 'Changes as they happen', load: async () => (await import('./events.ts')).events },
  status: {
    summary: 'Health of the daemon',
    aliases: ['info'],
    load: async () => (await import('./status.ts')).status,
  },
  system: { summary: 'The installation as a whole', load: async () => (await import('./system.ts')).system },
  version: {
    summary: 'Versions of this program and of the daemon',
    load: async () => (await import('./status.ts')).version,
  },
};
