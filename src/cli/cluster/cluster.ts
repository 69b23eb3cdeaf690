/** `sluice cluster …` */
import { command, type Group } from '../command/command.ts';
import { one, text, toggle, word } from '../command/flag.ts';

const join = command({
  summary: "Take this host's objects along into a cluster",
  about:
    'Networks, sandboxes, containers and services go into the Redis of the cluster as they are. What has the same name there is listed, and nothing is done. ' +
    'Afterwards the daemon ends; start it with that store. What runs keeps running all the while.',
  examples: ['sluice cluster join rediss://:secret@redis.example:6380', 'sluice cluster join redis://127.0.0.1'],
  flags: {
    'cluster-id': one('NAME', text, "Name of the cluster, if it is not the daemon's setting"),
    'insecure-store': toggle('Without TLS and password, though Redis is on another machine'),
  },
  args: { store: word('redis://HOST[:PORT]') },
  async run(context, flags, { store }) {
    const { cluster } = await context.client();
    const request = { store, clusterId: flags['cluster-id'], insecureStore: flags['insecure-store'] || undefined };
    const answer = await cluster.join(request);
    context.terminal.out(
      `This host, node ${answer.node}, is in the cluster at ${answer.store} now: ${answer.records} records went there.\n` +
        'The daemon has ended. Start it with that store, by the setting "store" or the flag --store.\n',
    );
  },
});

export const cluster: Group = { summary: 'The cluster that this host is part of, or is to be', commands: { join } };
