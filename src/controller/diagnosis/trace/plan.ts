/** The way from a sandbox to where it wants to go, as steps in words. Pure: facts in, steps out; the first that is wrong is what is wrong first. */
import type { PeerDifference } from '../../../model/answer.ts';
import type { Difference } from '../../../model/diagnosis/diff.ts';
import type { TraceStep, TraceStepName } from '../../../model/diagnosis/trace.ts';
import type { NodeState } from '../../../model/node.ts';
import { peerDifference, type TunnelPlace } from '../network.ts';

/** How the name came to addresses. */
export type NameFact =
  | { readonly kind: 'address' }
  | { readonly kind: 'found'; readonly addresses: readonly string[] }
  /** An object has the name, but not on the source's networks, or nothing that is to be found runs in it. */
  | { readonly kind: 'hidden'; readonly what: string; readonly networks: readonly string[] }
  | { readonly kind: 'foreign'; readonly forwarded: boolean };

export interface ServiceFact {
  readonly name: string;
  readonly vip: string;
  /** `80/tcp`; empty: all. */
  readonly ports: readonly string[];
  /** Whether the asked port is one of them. */
  readonly served: boolean;
  /** `10.20.0.2:80` */
  readonly backends: readonly string[];
  readonly differences: readonly Difference[];
  /** Of a service on a network that the source is not on. */
  readonly elsewhere?: string;
}

export interface RouteFact {
  readonly dst: string;
  readonly via?: string;
  readonly ifname: string;
  /** Whether it leads by the interface that is on the target's network, without a router. */
  readonly direct: boolean;
}

/** An address that the way ends at. */
export interface HopFact {
  readonly address: string;
  readonly port?: number;
  readonly route: RouteFact | null;
  /** What of the source's routes is missing. */
  readonly missing: readonly Difference[];
  readonly end:
    | { readonly kind: 'outside'; readonly internal: boolean; readonly blocked?: string }
    | { readonly kind: 'gateway'; readonly network: string }
    /** An address of a network that nobody has. */
    | { readonly kind: 'nobody'; readonly network: string }
    | { readonly kind: 'apart'; readonly sandbox: string; readonly network: string }
    | { readonly kind: 'here'; readonly sandbox: string; readonly steps: readonly TraceStep[] }
    | { readonly kind: 'there'; readonly sandbox: string; readonly remote: RemoteFact };
}

export interface RemoteFact {
  readonly node: string;
  readonly mac: string;
  readonly vtep?: string;
  readonly place: TunnelPlace | null;
  /** Of this host's devices and of the guard of its VXLAN port. */
  readonly devices: readonly Difference[];
  /** Entries that concern the target's MAC, address or host. */
  readonly peers: readonly PeerDifference[];
  readonly state: NodeState;
  /** Whether the other kernel answers; undefined: it could not be asked. */
  readonly echo?: boolean;
  /** Packets of full size that do not get through. */
  readonly narrow?: string;
  /** An offload of this host's card that spoils checksums, and is kept off. */
  readonly spoilt?: string;
  readonly answer: { readonly steps: readonly TraceStep[] } | { readonly error: string };
}

export interface TraceFacts {
  readonly node: string;
  readonly sandbox: string;
  /** What a person types before a command to be inside. */
  readonly enter: string;
  readonly to: string;
  readonly name: NameFact;
  /** Of the source's interfaces, routes apart. */
  readonly source: readonly Difference[];
  readonly networks: readonly string[];
  readonly service?: ServiceFact;
  readonly hops: readonly HopFact[];
}

/** `link sv01 should be up and is down` */
export function differenceWords({ what, want, have }: Difference): string {
  if (want === undefined && have === undefined) return what;
  if (have === undefined) return want === 'there' ? `${what} is missing` : `${what} is missing (${want})`;
  if (want === undefined) return `${what} should not be there`;
  return `${what} should be ${want} and is ${have}`;
}

/** What is well, and what is to be known beside it. */
export const withNote = (ok: string, note: string | undefined): string => (note ? `${ok}; ${note}` : ok);

/** Ok, or wrong by the first of what differs. */
export function stepOf(
  step: TraceStepName,
  node: string,
  subject: string,
  differences: readonly Difference[],
  ok: string,
): TraceStep {
  const [first] = differences;
  if (!first) return { step, node, subject, state: 'ok', reason: ok };
  const more = differences.length > 1 ? `; and ${differences.length - 1} more` : '';
  return { step, node, subject, state: 'wrong', reason: `${differenceWords(first)}${more}`, command: first.command };
}

export function planTrace(facts: TraceFacts): TraceStep[] {
  const { node, sandbox, hops } = facts;
  const steps: TraceStep[] = [nameStep(facts)];
  if (facts.service) steps.push(serviceStep(node, facts.service));
  const on = facts.networks.length > 0 ? `on ${facts.networks.join(', ')}` : 'on no network';
  steps.push(stepOf('source', node, sandbox, facts.source, `its interfaces are as they should be, ${on}`));
  for (const hop of hops) steps.push(...hopSteps(facts, hop));
  return steps;
}

function nameStep({ node, to, sandbox, name }: TraceFacts): TraceStep {
  const step = { step: 'name', node, subject: to } as const;
  switch (name.kind) {
    case 'address':
      return { ...step, state: 'unasked', reason: 'an address needs no name' };
    case 'found':
      return { ...step, state: 'ok', reason: `resolves to ${name.addresses.join(', ')} in ${sandbox}` };
    case 'hidden': {
      const where =
        name.networks.length > 0
          ? `is on ${name.networks.join(', ')}, and ${sandbox} is not`
          : 'has no name now: it is not ready, or nothing runs in it';
      return { ...step, state: 'wrong', reason: `${name.what} ${to} ${where}`, command: `sluice endpoint ls` };
    }
    case 'foreign':
      return name.forwarded
        ? { ...step, state: 'unasked', reason: 'nothing here has that name: it is asked of the resolvers of the host' }
        : {
            ...step,
            state: 'wrong',
            reason: 'nothing here has that name, and networks that are internal ask nobody else',
          };
  }
}

function serviceStep(node: string, service: ServiceFact): TraceStep {
  const { name, vip, ports, served, backends, differences, elsewhere } = service;
  const step = { step: 'service', node, subject: `${name} (${vip})` } as const;
  const command = `sluice service inspect ${name}`;
  const wrong = (reason: string): TraceStep => ({ ...step, state: 'wrong', reason, command });
  if (elsewhere !== undefined)
    return wrong(`service ${name} is on network ${elsewhere}, of which the sandbox is no part`);
  if (!served) return wrong(`service ${name} has no such port: it has ${ports.join(', ')}`);
  if (differences.length > 0) return stepOf('service', node, step.subject, differences, '');
  if (backends.length === 0) return wrong(`service ${name} has no backend that serves`);
  return { ...step, state: 'ok', reason: `one of ${backends.join(', ')} is chosen when a socket connects` };
}

function hopSteps(facts: TraceFacts, hop: HopFact): TraceStep[] {
  const route = routeStep(facts, hop);
  if (route.state === 'wrong') return [route];
  const { node } = facts;
  const { address, end } = hop;
  switch (end.kind) {
    case 'outside':
      if (end.blocked === undefined)
        return [
          route,
          {
            step: 'host',
            node,
            subject: address,
            state: 'unasked',
            reason: 'it is outside of all networks here: the host sends it on',
          },
        ];
      return [route, { step: 'host', node, subject: address, state: 'wrong', reason: end.blocked }];
    case 'gateway':
      return [
        route,
        { step: 'host', node, subject: address, state: 'ok', reason: `it is the gateway of ${end.network}, this host` },
      ];
    case 'nobody':
    case 'apart':
      return [route];
    case 'here':
      return [
        route,
        {
          step: 'neighbour',
          node,
          subject: address,
          state: 'unasked',
          reason: `${end.sandbox} is on this host, behind the same bridge`,
        },
        ...end.steps,
      ];
    case 'there':
      return [route, ...remoteSteps(facts, hop, end.sandbox, end.remote)];
  }
}

function routeStep({ node, sandbox, enter }: TraceFacts, { address, route, missing, end }: HopFact): TraceStep {
  const step = { step: 'route', node, subject: `${sandbox} → ${address}` } as const;
  const command = `${enter}ip route get ${address}`;
  if (end.kind === 'nobody')
    return {
      ...step,
      state: 'wrong',
      reason: `no endpoint of network ${end.network} has ${address}`,
      command: 'sluice endpoint ls',
    };
  if (end.kind === 'apart')
    return {
      ...step,
      state: 'wrong',
      reason: `${address} is ${end.sandbox} on network ${end.network}, of which ${sandbox} is no part: networks are isolated from each other`,
      command: `sluice network connect ${end.network} ${sandbox}`,
    };
  const near = end.kind === 'here' || end.kind === 'there' || end.kind === 'gateway';
  if (!route || (near && !route.direct)) {
    const [first] = missing;
    if (first) return { ...step, state: 'wrong', reason: differenceWords(first), command: first.command };
    const inside = end.kind === 'outside' && end.internal ? ': its networks are internal' : '';
    const detour = route ? `the way leads by ${route.via ?? route.ifname}, not straight` : `there is no route${inside}`;
    return { ...step, state: 'wrong', reason: `${detour} to ${address}`, command };
  }
  const by = `${route.dst}${route.via ? ` via ${route.via}` : ''} by ${route.ifname}`;
  return { ...step, state: 'ok', reason: by };
}

function remoteSteps({ node }: TraceFacts, { address }: HopFact, sandbox: string, remote: RemoteFact): TraceStep[] {
  const { mac, vtep, place, devices, peers, spoilt } = remote;
  const of = (...tables: PeerDifference['table'][]): Difference[] =>
    place ? peers.filter(({ table }) => tables.includes(table)).map((one) => peerDifference(one, place)) : [];
  const entries = (
    step: 'neighbour' | 'forwarding',
    subject: string,
    differences: readonly Difference[],
    ok: string,
  ): TraceStep =>
    place
      ? stepOf(step, node, subject, differences, ok)
      : { step, node, subject, state: 'unasked', reason: 'its tables went with the VXLAN device' };
  const steps = [
    entries('neighbour', address, of('neighbour'), `is at ${mac}`),
    entries('forwarding', mac, of('forwarding', 'bridge', 'broadcast'), `leads to ${vtep} by ${place?.device}`),
    stepOf(
      'tunnel',
      node,
      place?.device ?? 'VXLAN',
      devices,
      withNote('the VXLAN device is up, on its bridge, and its port guarded', spoilt),
    ),
    hostStep(node, remote),
  ];
  return [...steps, ...answerSteps(sandbox, remote)];
}

function hostStep(node: string, { node: other, vtep, state, echo, narrow }: RemoteFact): TraceStep {
  const step = { step: 'host', node, subject: `${other}${vtep ? ` (${vtep})` : ''}` } as const;
  if (vtep === undefined)
    return {
      ...step,
      state: 'wrong',
      reason: `node ${other} has no tunnel end point`,
      command: `sluice node inspect ${other}`,
    };
  const command = `ping -c 1 ${vtep}`;
  if (echo === false) {
    const daemon = state === 'ready' ? 'its daemon gives signs of life' : `node ${other} is ${state}`;
    return { ...step, state: 'wrong', reason: `the kernel of ${other} does not answer at ${vtep}; ${daemon}`, command };
  }
  if (echo === undefined)
    return { ...step, state: 'wrong', reason: `this host has no way to ${vtep}`, command: `ip route get ${vtep}` };
  const daemon = state === 'ready' ? '' : `, though its daemon gives no sign of life (${state})`;
  return {
    ...step,
    state: 'ok',
    reason: withNote(`its kernel answers${daemon}`, narrow),
    command: narrow && command,
  };
}

function answerSteps(sandbox: string, { node, answer }: RemoteFact): TraceStep[] {
  const step = { step: 'answer', node, subject: sandbox } as const;
  if ('steps' in answer) return [{ ...step, state: 'ok', reason: `node ${node} has looked` }, ...answer.steps];
  const nobody = { node, subject: sandbox, state: 'unasked', reason: 'nobody looked' } as const;
  return [
    { ...step, state: 'unasked', reason: answer.error },
    { step: 'sandbox', ...nobody },
  ];
}
