/** The desired state as every front end writes it: the API now, others later. */
import { Containers } from './container/container.ts';
import { Volumes } from './container/volume.ts';
import { Endpoints } from './endpoint.ts';
import { Networks } from './network.ts';
import { Numbers } from './numbers.ts';
import type { Parts } from './records.ts';
import { Sandboxes } from './sandbox.ts';
import { Services } from './service.ts';
import { Statuses } from './status.ts';
import { Turns } from './turn.ts';

export interface Desired {
  readonly networks: Networks;
  readonly sandboxes: Sandboxes;
  readonly endpoints: Endpoints;
  readonly services: Services;
  readonly containers: Containers;
  readonly volumes: Volumes;
  readonly statuses: Statuses;
  readonly numbers: Numbers;
}

export function createDesired(given: Omit<Parts, 'turns' | 'numbers'>): Desired {
  const { store, local = store, node } = given;
  const numbers = new Numbers(local, node, local !== store);
  const parts: Parts = { ...given, turns: new Turns(), numbers };
  const endpoints = new Endpoints(parts);
  const sandboxes = new Sandboxes(parts, endpoints);
  const volumes = new Volumes(parts);
  return {
    networks: new Networks(parts),
    endpoints,
    sandboxes,
    services: new Services(parts),
    containers: new Containers(parts, sandboxes, volumes),
    volumes,
    statuses: new Statuses(parts.store, parts.node),
    numbers,
  };
}
