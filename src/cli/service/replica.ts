/** `sluice service scale|ps|logs`, and the replicas of a new service. */
import type { Client } from '../../client/client.ts';
import { systemClock as clock } from '../../clock.ts';
import { SluiceError } from '../../errors.ts';
import type { Container } from '../../model/container.ts';
import type { ServiceRequest, View } from '../../model/request.ts';
import type { PlacementSpec } from '../../model/service/placement.ts';
import type { Service } from '../../model/service.ts';
import { type Context, command, type FlagValues, UsageError } from '../command/command.ts';
import { forEach } from '../command/each.ts';
import { integer, many, one, type Reader, text, toggle, word } from '../command/flag.ts';
import { waitFlags, waitOf } from '../command/wait.ts';
import { containerFlags, containerRequest } from '../container/flags.ts';
import { detailOf, spanOf, statusText } from '../container/look.ts';
import { readMoment, readTail } from '../container/words.ts';
import { type Column, idColumn, listFlags, nameColumn, printList, troubles } from '../print/listing.ts';
import { progress } from '../print/progress.ts';

/** What a container may be told, less what the service decides: its name, its network, its life. */
const { name, network, publish, ip, ip6, macAddress, networkAlias, allowAddress, ifname, gwPriority, label, ...rest } =
  containerFlags;
const { interactive, tty, rm, restart, ...others } = rest;
export const replicaFlags = { ...others, restart: { ...restart, absent: 'always' } };

const readMode: Reader<'replicated' | 'global'> = (given) => {
  if (given !== 'replicated' && given !== 'global') throw new UsageError(`"${given}" is neither replicated nor global`);
  return given;
};

export const placementFlags = {
  replicas: one('N', integer, 'How many containers of the image run', { absent: '1' }),
  mode: one('replicated|global', readMode, 'So many as --replicas says, or one on every node', {
    absent: 'replicated',
  }),
  constraint: many('EXPRESSION', text, 'What a node must satisfy, such as node.labels.zone==a or node.name!=host-1'),
  replicasMaxPerNode: one('N', integer, 'At most so many on one node', { absent: 'no limit' }),
};

type ReplicaFlags = FlagValues<typeof replicaFlags> & FlagValues<typeof placementFlags>;

function placementOf({ mode, constraint, replicasMaxPerNode: perNodeMax, replicas }: ReplicaFlags): PlacementSpec {
  if (mode === 'global' && replicas !== undefined)
    throw new UsageError('--mode global means one on every node: --replicas says otherwise');
  return {
    ...(mode === 'global' && { mode }),
    ...(constraint.length > 0 && { constraints: constraint }),
    ...(perNodeMax !== undefined && { perNodeMax }),
  };
}

/** Undefined without an image; then nothing may be said of replicas either. */
export function replicasOf(
  flags: ReplicaFlags,
  image: string | undefined,
  command: readonly string[],
  env: NodeJS.ProcessEnv,
): ServiceRequest['replicas'] {
  const given = (Object.keys({ ...replicaFlags, ...placementFlags }) as (keyof ReplicaFlags)[]).find((key) => {
    const value = flags[key];
    return Array.isArray(value) ? value.length > 0 : value !== undefined;
  });
  if (image === undefined && given)
    throw new UsageError(`there is no image, of which ${given === 'replicas' ? '--replicas' : 'that'} would speak`);
  if (image === undefined) return undefined;
  const plain = { network: [], publish: [], networkAlias: [], allowAddress: [] };
  const none = { name: undefined, ip: undefined, ip6: undefined, macAddress: undefined, ifname: undefined };
  const life = { gwPriority: undefined, label: undefined, interactive: undefined, tty: undefined, rm: undefined };
  const container = containerRequest({ ...flags, ...plain, ...none, ...life }, image, command, env);
  const placement = placementOf(flags);
  return { count: flags.replicas ?? 1, container, ...(Object.keys(placement).length > 0 && { placement }) };
}

const WAIT_MS = 30_000;
const LOOK_MS = 100;

/** How many of its replicas are to serve, and how many of those have a node. */
async function wantedOf(
  services: Client['services'],
  { id, spec }: Service,
): Promise<{ readonly wanted: number; readonly placed: number }> {
  const placed = (await services.assignments(id)).reduce((sum, { count }) => sum + count, 0);
  // On every node: at least on one.
  const wanted = spec.replicas?.placement?.mode === 'global' ? Math.max(1, placed) : (spec.replicas?.count ?? 0);
  return { wanted, placed };
}

const NO_PLACE = 'no node satisfies the constraints, is neither drained nor silent, and has room for more';

/** Of its present version, and balanced over. */
function serves(view: View<Container>, version: number): boolean {
  const { phase, health = 'healthy' } = detailOf(view);
  return phase === 'running' && health === 'healthy' && view.spec.replica?.version === version;
}

/**
 * The service when all its replicas serve, and none of an earlier image is left. `wait.timeout`; `runtime.failed` when one of them cannot run.
 */
export async function serving(
  { terminal }: Pick<Context, 'terminal'>,
  client: Pick<Client, 'services' | 'containers'>,
  made: View<Service>,
  waitMs = WAIT_MS,
): Promise<View<Service>> {
  const { services } = client;
  if (made.spec.replicas === undefined) return made;
  const { version } = made.spec.replicas;
  const until = clock.monotonic() + waitMs;
  const look = async (): Promise<View<Service>> => {
    for (;;) {
      const view = await services.get(made.id);
      const { wanted, placed } = await wantedOf(services, view);
      const replicas = (await replicasNow(client, made)).filter(
        ({ removing, spec }) => !removing && spec.wanted === 'running',
      );
      const well = replicas.filter((each) => serves(each, version)).length;
      // On a network across hosts this node need not have a part.
      const isKnown = made.owner === null || view.status?.detail.backends === wanted + view.spec.backends.length;
      if (well === wanted && replicas.length === wanted && isKnown) return view;
      const failed = troubles(view.status).find(({ type }) => type === 'ReplicaFailed');
      if (failed) throw new SluiceError('runtime.failed', `service ${made.name} is there, but ${failed.message}`);
      if (clock.monotonic() > until) {
        const homeless = wanted - placed > 0 ? `; ${wanted - placed} of them have no place: ${NO_PLACE}` : '';
        throw new SluiceError(
          'wait.timeout',
          `service ${made.name} is there, but after ${waitMs / 1_000} s ${well} of ${wanted} replicas serve${homeless}`,
        );
      }
      await clock.sleep(LOOK_MS);
    }
  };
  return progress(terminal, `all replicas of ${made.name} serve`, look());
}

const readScale: Reader<readonly [string, number]> = (given) => {
  const [, service, count] = /^(.+)=(\d{1,5})$/.exec(given) ?? [];
  if (service === undefined) throw new UsageError(`"${given}" is not SERVICE=N`);
  return [service, Number(count)];
};

export const scale = command({
  summary: 'Change how many replicas a service has',
  examples: ['sluice service scale shop=5'],
  flags: waitFlags,
  args: {
    counts: { help: 'SERVICE=N', optional: false, many: true, command: false, read: (all) => all.map(readScale) },
  },
  async run(context, flags, { counts }) {
    const client = await context.client();
    const { services } = client;
    const wanted = new Map(counts);
    return forEach(context, 'scaled', [...wanted.keys()], async (ref) => {
      const view = await services.scale(ref, { count: wanted.get(ref)! }, waitOf(flags));
      if (!flags.detach) await serving(context, client, view, flags.waitTimeout);
    });
  },
});

async function replicasNow({ containers }: Pick<Client, 'containers'>, { id }: Service): Promise<View<Container>[]> {
  const replicas = (await containers.list()).filter(({ spec }) => spec.replica?.service === id);
  return replicas.sort((a, b) => a.spec.replica!.slot - b.spec.replica!.slot);
}

const columns = (now: number): readonly Column<View<Container>>[] => [
  idColumn('CONTAINER ID'),
  nameColumn,
  { title: 'NODE', field: 'Node', of: ({ owner }) => owner ?? '' },
  { title: 'IMAGE', field: 'Image', of: ({ spec }) => spec.image, shrink: true },
  { title: 'VERSION', field: 'Version', of: ({ spec }) => String(spec.replica?.version ?? '') },
  { title: 'CREATED', field: 'Created', of: ({ createdAt }) => `${spanOf(now - Date.parse(createdAt))} ago` },
  { title: 'STATUS', field: 'Status', of: (view) => statusText(view, now) },
  { title: 'ERROR', field: 'Error', of: (view) => detailOf(view).failure?.message ?? '', shrink: true },
];

export const ps = command({
  summary: 'List the replicas of a service',
  examples: ['sluice service ps shop'],
  flags: listFlags,
  args: { service: word('name or id', { of: 'service' }) },
  async run(context, flags, { service }) {
    const client = await context.client();
    const object = await client.services.get(service);
    await printList(context, await replicasNow(client, object), columns(Date.now()), flags);
    const { wanted, placed } = await wantedOf(client.services, object);
    if (wanted > placed)
      context.terminal.err(`sluice: warning: ${wanted - placed} of ${wanted} replicas have no place: ${NO_PLACE}\n`);
  },
});

export const logs = command({
  summary: 'What the replicas of a service have written, each line with whose it is',
  about: 'With --follow, what those write that are there now.',
  examples: ['sluice service logs --follow shop'],
  flags: {
    follow: toggle('Go on with what is written from now on', { short: 'f' }),
    tail: one('LINES', readTail, 'The last lines of each only', { short: 'n', absent: 'all' }),
    since: one('TIME', readMoment(Date.now), 'Not before: a time, or so long ago as 10m'),
    timestamps: toggle('Show when each line was written', { short: 't' }),
    replica: many('SLOT', integer, 'Only of these'),
  },
  args: { service: word('name or id', { of: 'service' }) },
  async run(context, { timestamps, replica, ...options }, { service }) {
    const client = await context.client();
    const all = await replicasNow(client, await client.services.get(service));
    const shown = all.filter(({ spec }) => replica.length === 0 || replica.includes(spec.replica!.slot));
    const width = Math.max(0, ...shown.map(({ name }) => name.length));
    const { node } = await client.version();
    const print = async ({ id, name, owner }: View<Container>): Promise<void> => {
      if (owner !== node) {
        context.terminal.err(`sluice: ${name} runs on node ${owner}: its logs are to be had there\n`);
        return;
      }
      for await (const { time, stream, text } of client.containers.logs(id, options)) {
        const line = `${name.padEnd(width)} | ${timestamps ? `${time} ` : ''}${text}`;
        await context.terminal.write(stream, Buffer.from(line.endsWith('\n') ? line : `${line}\n`));
      }
    };
    if (options.follow) await Promise.all(shown.map(print));
    else for (const one of shown) await print(one);
  },
});
