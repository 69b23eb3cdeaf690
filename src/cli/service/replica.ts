/** `sluice service scale|ps`, and the replicas of a new service. */
import type { Client } from '../../client/client.ts';
import { systemClock as clock } from '../../clock.ts';
import { SluiceError } from '../../errors.ts';
import type { Container } from '../../model/container.ts';
import type { ServiceRequest, View } from '../../model/request.ts';
import type { PlacementSpec } from '../../model/service/placement.ts';
import type { Service } from '../../model/service.ts';
import { type Context, command, type FlagValues, UsageError } from '../command/command.ts';
import { forEach } from '../command/each.ts';
import { integer, many, one, type Reader, text, word } from '../command/flag.ts';
import { waitFlags, waitOf } from '../command/wait.ts';
import { containerFlags, containerRequest } from '../container/flags.ts';
import { detailOf, spanOf, statusText } from '../container/look.ts';
import { type Column, idColumn, listFlags, nameColumn, printList, troubles } from '../print/listing.ts';
import { progress } from '../print/progress.ts';

/** What a container may be told, less what the service decides: its name, its network, its life. */
const {
  name,
  network,
  publish,
  publishAll,
  ip,
  ip6,
  macAddress,
  networkAlias,
  allowAddress,
  ifname,
  gwPriority,
  label,
  ...rest
} = containerFlags;
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
  updateParallelism: one('N', integer, 'Nodes that replace replicas of an earlier image at once, each one by one', {
    absent: '1',
  }),
};

type ReplicaFlags = FlagValues<typeof replicaFlags> & FlagValues<typeof placementFlags>;

function placementOf(flags: ReplicaFlags): PlacementSpec {
  const { mode, constraint, replicasMaxPerNode: perNodeMax, replicas, updateParallelism } = flags;
  if (mode === 'global' && replicas !== undefined)
    throw new UsageError('--mode global means one on every node: --replicas says otherwise');
  return {
    ...(mode === 'global' && { mode }),
    ...(constraint.length > 0 && { constraints: constraint }),
    ...(perNodeMax !== undefined && { perNodeMax }),
    ...(updateParallelism !== undefined && { updateParallelism }),
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
  const none = {
    name: undefined,
    publishAll: undefined,
    ip: undefined,
    ip6: undefined,
    macAddress: undefined,
    ifname: undefined,
  };
  const life = { gwPriority: undefined, label: undefined, interactive: undefined, tty: undefined, rm: undefined };
  const container = containerRequest({ ...flags, ...plain, ...none, ...life }, image, command, env);
  const placement = placementOf(flags);
  return { count: flags.replicas ?? 1, container, ...(Object.keys(placement).length > 0 && { placement }) };
}

const WAIT_MS = 30_000;
const LOOK_MS = 100;

/** How many of its replicas are to serve. */
async function wantedOf(services: Client['services'], { id, spec }: Service): Promise<number> {
  if (spec.replicas?.placement?.mode !== 'global') return spec.replicas?.count ?? 0;
  const placed = (await services.assignments(id)).reduce((sum, { count }) => sum + count, 0);
  // On every node: at least on one.
  return Math.max(1, placed);
}

/** Which replicas have no place, and why, empty: all have. */
const homelessOf = ({ status }: View<Service>): string =>
  troubles(status).find(({ type }) => type === 'Unplaced')?.message ?? '';

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
      const wanted = await wantedOf(services, view);
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
        const homeless = homelessOf(view);
        throw new SluiceError(
          'wait.timeout',
          `service ${made.name} is there, but after ${waitMs / 1_000} s ${well} of ${wanted} replicas serve${homeless && `; ${homeless}`}`,
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

/** Its replicas, by slot. */
export async function replicasNow(
  { containers }: Pick<Client, 'containers'>,
  { id }: Pick<Service, 'id'>,
): Promise<View<Container>[]> {
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
    const homeless = homelessOf(object);
    if (homeless) context.terminal.err(`sluice: warning: ${homeless} (Unplaced)\n`);
  },
});
