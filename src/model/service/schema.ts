/** zod schemas of services, as ../schema.ts has those of networks. */
import { z } from '@hono/zod-openapi';
import { publishRequest, publishView, replicaTemplate } from '../container/schema.ts';
import type { BackendRequest, BackendsRequest, ReplicasRequest, ServiceRequest } from '../request.ts';
import { address, contest, id, labels, name, port, ref, type Shape, view } from '../schema.ts';
import type { ReplicaSpec, Service, ServicePort } from '../service.ts';
import type { AssignmentAnswer, PlacementSpec } from './placement.ts';

const text = z.string();
/** As many as backends. */
const replicaCount = z.int().min(0).max(1024).openapi({ description: 'How many are to run.' });

const updateParallelism = z.int().min(1).max(1024).optional().openapi({
  description: 'Nodes that replace replicas of an earlier image at once, each one by one; default 1.',
});

const placement = z.strictObject({
  mode: z.literal('global').optional().openapi({ description: 'One on every node that fits, whatever the count.' }),
  constraints: z
    .array(z.string().min(1).max(512))
    .max(32)
    .optional()
    .openapi({ description: 'What a node must satisfy.', example: ['node.labels.zone==a'] }),
  perNodeMax: z.int().min(1).max(1024).optional().openapi({ description: 'At most so many on one node.' }),
  updateParallelism,
} satisfies Shape<PlacementSpec>);

const backendRequest: z.ZodType<BackendRequest> = z
  .union(
    [z.strictObject({ sandbox: ref, port: port.optional() }), z.strictObject({ address, port: port.optional() })],
    { error: 'a backend is {sandbox, port?} or {address, port?}, with a port from 1 to 65535' },
  )
  .openapi('BackendRequest', {
    description: "A sandbox on the service's network or a plain address; `port` overrides the service port's target.",
  });
const backends = z.array(backendRequest).max(1024);

export const serviceRequest = z
  .strictObject({
    network: ref.openapi({ description: 'Name or id: the VIP is an address of it.' }),
    ips: z.array(address).max(2).optional().openapi({ description: 'VIPs, one of each family; absent: automatic.' }),
    ports: z
      .array(
        z.strictObject({
          name: z
            .string()
            .regex(/^[a-z0-9]([a-z0-9-]{0,13}[a-z0-9])?$/, 'a port name has 1 to 15 of a-z 0-9 - (RFC 6335)')
            .optional()
            .openapi({ description: 'For SRV records.' }),
          port,
          target: port.optional().openapi({ description: 'Backend port; default `port`.' }),
          protocol: z.enum(['tcp', 'udp']).optional().openapi({ description: 'Default `tcp`.' }),
        } satisfies Shape<NonNullable<ServiceRequest['ports']>[number]>),
      )
      .max(64)
      .optional()
      .openapi({ description: 'Absent: every port of the VIP maps to the same backend port.' }),
    backends: backends.optional(),
    replicas: z
      .strictObject({
        count: replicaCount,
        container: replicaTemplate,
        placement: placement.optional(),
      } satisfies Shape<NonNullable<ServiceRequest['replicas']>>)
      .optional()
      .openapi({ description: 'Containers to run, all alike, and to balance over.' }),
    publish: z
      .array(publishRequest)
      .max(64)
      .optional()
      .openapi({ description: 'Ports of the host that lead to the backends.' }),
    aliases: z.array(name).max(32).optional().openapi({ description: 'Further DNS names.' }),
    labels: labels.optional(),
  } satisfies Shape<ServiceRequest>)
  .openapi('ServiceRequest');

/** Body of POST /services/{name}/backends. */
export const backendsRequest = z
  .strictObject({ add: backends.optional(), remove: backends.optional() } satisfies Shape<BackendsRequest>)
  .openapi('BackendsRequest');

/** Body of POST /services/{name}/replicas. */
export const replicasRequest = z
  .strictObject({
    count: replicaCount.optional(),
    image: z.string().min(1).max(512).optional().openapi({ description: 'Name of an image that is here.' }),
    updateParallelism,
  } satisfies Shape<ReplicasRequest>)
  .openapi('ReplicasRequest');

export const serviceView = view<Service>(
  'service',
  z.strictObject({
    network: id,
    vips: z.array(text),
    ports: z.array(
      z.strictObject({
        name: text.optional(),
        port: z.int(),
        target: z.int(),
        protocol: z.enum(['tcp', 'udp']),
      } satisfies Shape<ServicePort>),
    ),
    backends: z.array(
      z.union([
        z.strictObject({ sandbox: text, port: z.int().optional() }),
        z.strictObject({ address: text, port: z.int().optional() }),
      ]),
    ),
    replicas: z
      .strictObject({
        count: z.int(),
        container: replicaTemplate,
        imageId: text,
        version: z.int(),
        placement: placement.optional(),
      } satisfies Shape<ReplicaSpec>)
      .optional(),
    aliases: z.array(text),
    publish: z.array(publishView).optional(),
    contested: contest.optional(),
  } satisfies Shape<Service['spec']>),
);

export const assignmentAnswer: z.ZodType<AssignmentAnswer> = z
  .strictObject({ node: text, count: z.int() } satisfies Shape<AssignmentAnswer>)
  .openapi('Assignment');
