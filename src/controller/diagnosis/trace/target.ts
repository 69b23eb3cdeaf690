/** What the node that has the target finds on its own host: the end of the way, and the beginning of the way back. */
import type { Drift } from '../../../contracts/dataplane.ts';
import type { Kernel, Namespace } from '../../../contracts/kernel.ts';
import { SluiceError } from '../../../errors.ts';
import type { Difference } from '../../../model/diagnosis/diff.ts';
import { TRACE_STEPS, type TraceStep } from '../../../model/diagnosis/trace.ts';
import type { Endpoint } from '../../../model/endpoint.ts';
import type { Context } from '../../context.ts';
import type { Spaces } from '../../spaces.ts';
import { troubleOf } from '../../tracker.ts';
import type { Differ } from '../diff.ts';
import { peerDifference } from '../network.ts';
import { stepOf, withNote } from './plan.ts';

/** Asked of the node that has the endpoint. */
export interface TargetQuestion {
  readonly endpoint: string;
  readonly address: string;
  readonly port?: number;
  /** Who wants to reach it, on the same network; absent: from the same host. */
  readonly from?: { readonly mac: string; readonly addresses: readonly string[]; readonly vtep?: string };
}

const TCP_LISTEN = 1 << 10;
/** UDP sockets that are not connected show as closed. */
const UDP_OPEN = 1 << 7;

export interface TargetParts {
  readonly context: Context;
  readonly differ: Differ;
  readonly spaces: Pick<Spaces, 'get'>;
}

export async function targetSteps(
  { context, differ, spaces }: TargetParts,
  { endpoint: id, address, port, from }: TargetQuestion,
  drifts: readonly Drift[],
): Promise<TraceStep[]> {
  const { world, node } = context;
  const endpoint = world.endpoints.get(id);
  const sandbox = endpoint && world.sandboxes.get(endpoint.spec.sandbox);
  if (!endpoint || !sandbox) {
    const reason = `node ${node} has no such endpoint any more`;
    return [{ step: 'sandbox', node, subject: address, state: 'wrong', reason, command: 'sluice endpoint ls' }];
  }
  const steps = from ? await wayBack({ context, differ }, endpoint, from) : [];
  const where = `${sandbox.name} (${address})`;
  steps.push(
    stepOf(
      'sandbox',
      node,
      where,
      await differ.of(endpoint, drifts),
      'its port, interface, address and routes are as they should be',
    ),
  );
  const space = sandbox.spec.origin === 'host' ? context.kernel.host : spaces.get(sandbox.id);
  if (port !== undefined && space)
    steps.push(portStep(context.kernel, space, { node, sandbox: sandbox.name, address, port }));
  return steps;
}

/** This host's tunnel, and its entries for whoever asks: without them no answer finds back. */
async function wayBack(
  { context, differ }: Omit<TargetParts, 'spaces'>,
  endpoint: Endpoint,
  from: NonNullable<TargetQuestion['from']>,
): Promise<TraceStep[]> {
  const { world, node, tracker } = context;
  const network = world.networks.get(endpoint.spec.network);
  if (!network) return [];
  const { devices, place, peers } = await differ.tunnel(network);
  const blocked = troubleOf(tracker, 'network', network.id, 'UnderlayBlocked');
  const amiss: Difference[] = [...devices, ...differ.guard(), ...(blocked === undefined ? [] : [{ what: blocked }])];
  const keys = [from.mac, ...from.addresses, from.vtep];
  const back = place ? peers.filter(({ key }) => keys.includes(key)).map((one) => peerDifference(one, place)) : [];
  const steps = [
    stepOf(
      'tunnel',
      node,
      place?.device ?? 'VXLAN',
      amiss,
      withNote(
        'the VXLAN device is up, on its bridge, and lets in what comes',
        troubleOf(tracker, 'node', node, 'ChecksumOffload'),
      ),
    ),
  ];
  if (place) steps.push(stepOf('forwarding', node, from.mac, back, `answers go back to ${from.vtep ?? 'it'}`));
  return steps;
}

function portStep(
  { sockets }: Pick<Kernel, 'sockets'>,
  space: Namespace,
  {
    node,
    sandbox,
    address,
    port,
  }: { readonly node: string; readonly sandbox: string; readonly address: string; readonly port: number },
): TraceStep {
  const listening = (['tcp', 'udp'] as const).filter((protocol) =>
    sockets
      .list(space, { protocol, states: protocol === 'tcp' ? TCP_LISTEN : UDP_OPEN })
      .some(
        ({ localPort, local }) => localPort === port && ['0.0.0.0', '::', address, `::ffff:${address}`].includes(local),
      ),
  );
  const step = { step: 'port', node, subject: `${sandbox}:${port}` } as const;
  if (listening.length > 0) return { ...step, state: 'ok', reason: `somebody listens (${listening.join(', ')})` };
  return {
    ...step,
    state: 'wrong',
    reason: `nobody in ${sandbox} listens on port ${port}`,
    command: `nsenter --net=${space.path} ss -lntu`,
  };
}

/** Steps that another node, perhaps of another version, has answered. */
export function readSteps(body: unknown): TraceStep[] {
  const { steps } = (body ?? {}) as { readonly steps?: unknown };
  const isStep = (one: unknown): one is TraceStep => {
    const { step, node, subject, state, reason, command } = (one ?? {}) as Record<string, unknown>;
    const texts = [node, subject, reason, ...(command === undefined ? [] : [command])];
    return (
      TRACE_STEPS.includes(step as 'name') &&
      ['ok', 'wrong', 'unasked'].includes(state as string) &&
      texts.every((text) => typeof text === 'string')
    );
  };
  if (!Array.isArray(steps) || !steps.every(isStep))
    throw new SluiceError('internal', 'the other node answers what this one does not understand');
  return steps;
}
