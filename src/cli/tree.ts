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
  service: { summary: 'Balanced services', load: async () => (await import('./service/service.ts')).service },
  container: {
    summary: 'Containers: images run in sandboxes of their own',
    load: async () => (await import('./container/container.ts')).container,
  },
  volume: { summary: 'Volumes', load: async () => (await import('./container/volume.ts')).volume },
  run: { summary: 'Run a program in a new container', load: async () => (await import('./container/run.ts')).run },
  create: {
    summary: 'Create a container without starting it',
    load: async () => (await import('./container/run.ts')).create,
  },
  start: { summary: 'Start containers', load: async () => (await import('./container/life.ts')).start },
  stop: { summary: 'Stop containers', load: async () => (await import('./container/life.ts')).stop },
  restart: {
    summary: 'Stop containers and start them again',
    load: async () => (await import('./container/life.ts')).restart,
  },
  kill: { summary: 'Send a signal to containers', load: async () => (await import('./container/life.ts')).kill },
  wait: { summary: 'Wait until containers have ended', load: async () => (await import('./container/life.ts')).wait },
  ps: { summary: 'List containers', load: async () => (await import('./container/look.ts')).ps },
  logs: { summary: 'What a container has written', load: async () => (await import('./container/look.ts')).logs },
  exec: {
    summary: 'Run a further program in a container',
    load: async () => (await import('./container/reach.ts')).exec,
  },
  attach: {
    summary: 'Attach to the first process of a container',
    load: async () => (await import('./container/reach.ts')).attach,
  },
  top: { summary: 'Processes of a container', load: async () => (await import('./container/look.ts')).top },
  stats: { summary: 'What containers use', load: async () => (await import('./container/stats.ts')).stats },
  cp: {
    summary: 'Copy files between a container and this machine',
    load: async () => (await import('./container/cp.ts')).cp,
  },
  port: { summary: 'Published ports of a container', load: async () => (await import('./container/look.ts')).port },
  rename: { summary: 'Give a container another name', load: async () => (await import('./container/life.ts')).rename },
  rm: { summary: 'Remove containers', load: async () => (await import('./container/life.ts')).rm },
  cluster: {
    summary: 'The cluster that this host is part of, or is to be',
    load: async () => (await import('./cluster/cluster.ts')).cluster,
  },
  node: { summary: 'Nodes of the cluster', load: async () => (await import('./cluster/node.ts')).node },
  image: { summary: 'Images', load: async () => (await import('./image/image.ts')).image },
  pull: { summary: 'Pull an image from its registry', load: async () => (await import('./image/transfer.ts')).pull },
  push: { summary: 'Push an image to its registry', load: async () => (await import('./image/transfer.ts')).push },
  load: { summary: 'Load images from an archive', load: async () => (await import('./image/transfer.ts')).load },
  images: { summary: 'List images', load: async () => (await import('./image/image.ts')).ls },
  rmi: { summary: 'Remove images', load: async () => (await import('./image/image.ts')).rm },
  login: { summary: 'Log in to a registry', load: async () => (await import('./image/login.ts')).login },
  logout: { summary: 'Log out from a registry', load: async () => (await import('./image/login.ts')).logout },
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
  diff: {
    summary: 'How the kernel differs from what should be',
    load: async () => (await import('./diagnosis/diff.ts')).diff,
  },
  trace: {
    summary: 'The way from a sandbox to a name or address',
    load: async () => (await import('./diagnosis/trace.ts')).trace,
  },
  lab: {
    summary: 'A cluster to try things on, inside this machine',
    load: async () => (await import('./lab/lab.ts')).lab,
  },
  system: { summary: 'The installation as a whole', load: async () => (await import('./system.ts')).system },
  version: {
    summary: 'Versions of this program and of the daemon',
    load: async () => (await import('./status.ts')).version,
  },
};
