/**
 * zod schemas of what callers send (request.ts) and get (answer.ts), with the metadata of the OpenAPI document. They check form and bounds;
 * what only the state knows (overlaps, free addresses, which driver) is checked where it is decided. Kept apart from
 * request.ts so that the CLI does not load zod; `Shape` makes the compiler refuse a field that one of the two lacks.
 */
import { z } from '@hono/zod-openapi';
import type {
  ComponentHealth,
  Counts,
  JoinAnswer,
  Peer,
  PeerDifference,
  PeersAnswer,
  StatusAnswer,
  VersionAnswer,
} from './answer.ts';
import type { ReplicaOf } from './container.ts';
import type { Contest, Endpoint } from './endpoint.ts';
import { NAME_PATTERN } from './id.ts';
import type { Network, SubnetSpec } from './network.ts';
import type { Node, NodeRequest, NodeSession, NodeSpec, NodeView } from './node.ts';
import { type Condition, KINDS, type Obj, type Status } from './object.ts';
import type {
  AttachmentRequest,
  JoinRequest,
  NetworkRequest,
  SandboxRequest,
  SubnetsRequest,
  View,
} from './request.ts';
import type { Sandbox } from './sandbox.ts';

/** One schema a field of `T`, none missing, none too many. */
export type Shape<T> = { readonly [K in keyof Required<T>]: z.ZodType<T[K]> };

/** What a name in a path or body may be when it refers to something: a name, an id, or the beginning of an id. */
export const refPattern = /^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}$/;

export const name = z
  .string()
  .regex(NAME_PATTERN, 'a name has 1 to 63 letters, digits, _ . or -, and begins with a letter or digit');
export const ref = z.string().regex(refPattern, 'not a name and not an id');

const ipv4 = z.ipv4();
const ipv6 = z.ipv6();
export const address = z.union([ipv4, ipv6], { error: 'not an IPv4 or IPv6 address' });
export const cidr = z.union([z.cidrv4(), z.cidrv6()], { error: 'not an IPv4 or IPv6 prefix such as 10.20.0.0/24' });
const mac = z
  .string()
  .regex(/^[0-9a-fA-F][02468aceACE](:[0-9a-fA-F]{2}){5}$/, 'not a unicast MAC address such as 02:42:0a:14:00:02')
  .refine((text) => !/^00(:00){5}$/.test(text), 'the all-zero MAC address belongs to nobody');
export const port = z.int().min(1).max(65535);
const dnsName = z
  .string()
  .max(253)
  .regex(/^[a-zA-Z0-9_]([a-zA-Z0-9_-]{0,62})(\.[a-zA-Z0-9_]([a-zA-Z0-9_-]{0,62}))*$/, 'not a DNS name');
/** IFNAMSIZ less the final zero; `/` and blanks are the kernel's own exclusions (dev_valid_name). */
const ifname = z
  .string()
  .regex(/^[^\s/:]{1,15}$/, 'an interface name has 1 to 15 characters, none of them / : or blank')
  .refine((text) => text !== '.' && text !== '..', 'an interface cannot be called . or ..');

/** Text by key, with a bound on how much of it: it is stored, logged and sent to every watcher. */
const textMap = (key: RegExp, problem: string, maxValue = 4096) =>
  z
    .record(z.string().max(256).regex(key, problem), z.string().max(maxValue))
    .refine((map) => Object.keys(map).length <= 256, 'more than 256 entries');
export const labels = textMap(/^\S+$/, 'a label key has no blanks').openapi({
  description: 'Free text by key, for people and selectors.',
  example: { team: 'shop' },
});
const options = textMap(/^\S+$/, 'an option key has no blanks').openapi({
  description: 'Driver options. Known to all drivers: `spoof=allow`.',
});

const subnet = z.strictObject({
  cidr: cidr.optional().openapi({ description: 'Absent: an automatic pool.', example: '10.20.0.0/24' }),
  gateway: address.optional().openapi({ description: 'Absent: the first address.' }),
  range: cidr.optional().openapi({ description: 'Automatic addresses come from this part only.' }),
  aux: z
    .record(name, address)
    .refine((map) => Object.keys(map).length <= 256, 'more than 256 entries')
    .optional()
    .openapi({ description: 'Reserved addresses by name.' }),
} satisfies Shape<NonNullable<NetworkRequest['subnets']>[number]>);

export const networkRequest = z
  .strictObject({
    driver: name.optional().openapi({ description: 'Default `bridge`.', example: 'bridge' }),
    ipam: name.optional().openapi({ description: 'IPAM driver.' }),
    subnets: z.array(subnet).max(16).optional().openapi({
      description: 'Absent: automatic, one for each address family asked for.',
    }),
    ipv4: z.boolean().optional().openapi({ description: 'Default true.' }),
    ipv6: z.boolean().optional().openapi({ description: 'Default: true when an IPv6 subnet is given.' }),
    internal: z.boolean().optional().openapi({ description: 'No way in or out but between its own endpoints.' }),
    mtu: z.int().min(68).max(65535).optional().openapi({
      description: "Bytes. Absent: the underlay's, less the driver's overhead.",
    }),
    vni: z.int().min(1).max(0xffffff).optional().openapi({
      description:
        "VXLAN network identifier of an overlay, unique in the cluster; 16777215 is the hosts' own. Absent: a free one.",
    }),
    options: options.optional(),
    labels: labels.optional(),
  } satisfies Shape<NetworkRequest>)
  .openapi('NetworkRequest');

/** Body of POST /networks/{name}/subnets. */
export const subnetsRequest = z
  .strictObject({ add: z.array(subnet).min(1).max(16) } satisfies Shape<SubnetsRequest>)
  .openapi('SubnetsRequest');

const attachment = {
  ip: ipv4.optional().openapi({ description: 'This IPv4 address rather than a free one.' }),
  ip6: ipv6.optional().openapi({ description: 'This IPv6 address rather than a free one.' }),
  mac: mac.optional(),
  aliases: z.array(name).max(32).optional().openapi({ description: 'Further DNS names on this network.' }),
  allow: z.array(cidr).max(64).optional().openapi({ description: 'CIDRs that it may also send from.' }),
  ifname: ifname.optional().openapi({ description: 'Absent: the first free `ethN`.' }),
  gwPriority: z.int().min(-2147483648).max(2147483647).optional().openapi({
    description: 'The endpoint with the highest value gives the sandbox its default route.',
  }),
} satisfies Shape<Omit<AttachmentRequest, 'network'>>;

/** Body of PUT /sandboxes/{name}/networks/{network}: the network stands in the path. */
export const connectRequest = z.strictObject(attachment).openapi('ConnectRequest');
const attachmentRequest = z
  .strictObject({
    network: ref.openapi({ description: 'Name or id.' }),
    ...attachment,
  } satisfies Shape<AttachmentRequest>)
  .openapi('AttachmentRequest');

/** What of a sandbox's request a container's has too. */
export const networksOfSandbox = {
  networks: z.array(attachmentRequest).max(64).optional().openapi({
    description: 'Absent: `bridge`, or none with `attach`.',
  }),
  sysctls: textMap(/^net\.[a-zA-Z0-9_./-]+$/, 'only sysctls below net. belong to a network namespace', 256)
    .refine((map) => !Object.keys(map).some((key) => key.includes('..')), 'a sysctl name has no ..')
    .optional()
    .openapi({ description: 'Written inside the namespace.', example: { 'net.ipv4.ip_forward': '1' } }),
  dns: z
    .strictObject({
      servers: z.array(address).max(8).optional(),
      search: z.array(dnsName).max(32).optional(),
      options: z
        .array(z.string().regex(/^\S{1,64}$/, 'a resolver option has no blanks'))
        .max(32)
        .optional(),
    } satisfies Shape<NonNullable<SandboxRequest['dns']>>)
    .optional()
    .openapi({ description: "Replaces the host's resolvers, search domains and options." }),
} satisfies Shape<Pick<SandboxRequest, 'networks' | 'sysctls' | 'dns'>>;

export const sandboxRequest = z
  .strictObject({
    ...networksOfSandbox,
    attach: z
      .string()
      .max(4095)
      .startsWith('/')
      .refine((path) => !path.includes('\0'), 'a path has no NUL')
      .optional()
      .openapi({ description: 'Path of a network namespace that somebody else made.' }),
    hostname: z
      .string()
      .regex(/^[a-zA-Z0-9]([a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?$/, 'not a host name')
      .optional(),
    labels: labels.optional(),
  } satisfies Shape<SandboxRequest>)
  .openapi('SandboxRequest');

/** Body of PATCH /v1/nodes/{name}. */
export const nodeRequest = z
  .strictObject({
    labels: z
      .record(
        z
          .string()
          .max(256)
          .regex(/^[^\s=!]+$/, 'a label key has no blanks, = or !'),
        z.string().max(4096).nullable(),
      )
      .refine((map) => Object.keys(map).length <= 256, 'more than 256 entries')
      .optional()
      .openapi({ description: 'Labels to set; `null` takes one away.', example: { zone: 'a' } }),
    availability: z
      .enum(['active', 'drained'])
      .optional()
      .openapi({ description: '`drained`: its backends take no new connections; those that are open stay.' }),
  } satisfies Shape<NodeRequest>)
  .openapi('NodeRequest');

/* Answers. They describe; nothing is parsed with them but in tests. */

const state = z.enum(['pending', 'ready', 'error', 'removing']);
const kind = z.enum(KINDS);
export const id = z.string().regex(/^[0-9a-f]{64}$/);
const time = z.iso.datetime();
export const text = z.string();
const failure = { code: text, message: text };

const condition: z.ZodType<Condition> = z
  .strictObject({
    type: text,
    active: z.boolean(),
    message: text,
    since: time,
    count: z.int(),
  } satisfies Shape<Condition>)
  .openapi('Condition');

const status: z.ZodType<Status> = z
  .strictObject({
    kind,
    id,
    node: text,
    state,
    observed: z.int().openapi({ description: 'The object revision that `state` speaks of.' }),
    conditions: z.array(condition),
    error: z.strictObject({ ...failure, retryAt: time.optional() }).optional(),
    detail: z.record(text, z.unknown()).openapi({ description: 'What drivers and data plane report, by kind.' }),
  } satisfies Shape<Status>)
  .openapi('Status');

export function view<O extends Obj>(kind: O['kind'], spec: z.ZodType<O['spec']>): z.ZodType<View<O>> {
  return z
    .strictObject({
      kind: z.literal(kind),
      id,
      name: text,
      revision: z.int().openapi({ description: "The store revision of this object's last write." }),
      schema: z.int(),
      owner: text.nullable().openapi({ description: 'Node that owns it; null for what concerns the whole cluster.' }),
      labels: z.record(text, text),
      createdAt: time,
      removing: z.boolean().optional(),
      spec,
      status: status.nullable().openapi({ description: 'Null before a controller has seen it.' }),
    })
    .openapi(`${kind[0]?.toUpperCase()}${kind.slice(1)}`) as unknown as z.ZodType<View<O>>;
}

export const contest = z.strictObject({ address: text, by: text } satisfies Shape<Contest>);

export const networkView = view<Network>(
  'network',
  z.strictObject({
    driver: text,
    scope: z.enum(['local', 'global']),
    ipam: text,
    subnets: z.array(
      z.strictObject({
        cidr: text,
        gateway: text.optional(),
        range: text.optional(),
        aux: z.record(text, text).optional(),
        pool: text,
        vips: text.optional(),
      } satisfies Shape<SubnetSpec>),
    ),
    ipv4: z.boolean(),
    ipv6: z.boolean(),
    internal: z.boolean(),
    mtu: z.int().optional(),
    vni: z.int().optional(),
    options: z.record(text, text),
  } satisfies Shape<Network['spec']>),
);
export const sandboxView = view<Sandbox>(
  'sandbox',
  z.strictObject({
    origin: z.enum(['own', 'attached', 'host']),
    netns: text.optional(),
    hostname: text.optional(),
    sysctls: z.record(text, text),
    dns: z
      .strictObject({
        servers: z.array(text).optional(),
        search: z.array(text).optional(),
        options: z.array(text).optional(),
      })
      .optional(),
  } satisfies Shape<Sandbox['spec']>),
);
export const endpointView = view<Endpoint>(
  'endpoint',
  z.strictObject({
    network: id,
    sandbox: id,
    addresses: z.array(text),
    mac: text,
    ifname: text.optional(),
    aliases: z.array(text),
    allow: z.array(text),
    gwPriority: z.int(),
    replica: z.strictObject({ service: text, slot: z.int(), version: z.int() } satisfies Shape<ReplicaOf>).optional(),
    serving: z.boolean().optional(),
    contested: contest.optional(),
  } satisfies Shape<Endpoint['spec']>),
);
const sessionShape = {
  state: z.enum(['ready', 'unreachable', 'lost']).openapi({
    description: '`unreachable`: its session ended, its kernel answers; `lost`: nor does that.',
  }),
  epoch: z.int().optional(),
  silentMs: z.int(),
  applied: z.int().optional().openapi({ description: 'Revision of the desired state up to which it has read.' }),
  behind: z.int().optional().openapi({ description: 'Objects that concern it and were written after `applied`.' }),
} satisfies Shape<NodeSession>;
export const nodeView: z.ZodType<NodeView> = (
  view<Node>(
    'node',
    z.strictObject({
      address: text,
      vtep: text.optional(),
      port: z.int(),
      mtu: z.int().optional(),
      hostRoutes: z.array(text),
      availability: z.enum(['active', 'drained']).optional(),
    } satisfies Shape<NodeSpec>),
  ) as unknown as z.ZodObject
)
  .extend({
    session: z.strictObject(sessionShape),
  })
  .openapi('NodeWithSession') as unknown as z.ZodType<NodeView>;
export const peersAnswer: z.ZodType<PeersAnswer> = z
  .strictObject({
    items: z.array(
      z.strictObject({
        id: text,
        name: text,
        node: text,
        state: sessionShape.state,
        vtep: text.optional(),
        mac: text,
        addresses: z.array(text),
      } satisfies Shape<Peer>),
    ),
    joined: z.boolean().openapi({ description: "Whether the network's tunnel is on the node that answers." }),
    differences: z
      .array(
        z.strictObject({
          table: z.enum(['forwarding', 'bridge', 'broadcast', 'neighbour']),
          key: text,
          want: text.optional().openapi({ description: 'Absent: the entry is surplus.' }),
          have: text.optional().openapi({ description: 'Absent: the entry is missing.' }),
        } satisfies Shape<PeerDifference>),
      )
      .openapi({ description: "What that node's kernel has otherwise than it should." }),
  } satisfies Shape<PeersAnswer>)
  .openapi('Peers');
/** `{items}`: room for more beside the list. */
export const listOf = <T>(item: z.ZodType<T>) => z.strictObject({ items: z.array(item) });

/** Body of POST /v1/cluster/join. */
export const joinRequest = z
  .strictObject({
    store: z
      .string()
      .max(4096)
      .regex(/^redis(?:s|\+unix)?:\/\/.+$/, 'is redis://…')
      .openapi({
        description: 'URL of the Redis of the cluster, as the setting `store`.',
        example: 'redis://127.0.0.1',
      }),
    clusterId: text.max(63).optional().openapi({ description: "Name of the cluster; default: the daemon's setting." }),
    insecureStore: z.boolean().optional().openapi({ description: 'Without TLS and password also off this machine.' }),
  } satisfies Shape<JoinRequest>)
  .openapi('JoinRequest');
export const joinAnswer: z.ZodType<JoinAnswer> = z
  .strictObject({ store: text, node: text, records: z.int() } satisfies Shape<JoinAnswer>)
  .openapi('JoinAnswer');

export const versionAnswer: z.ZodType<VersionAnswer> = z
  .strictObject({
    version: text,
    api: z.literal('v1'),
    node: text,
    instance: text,
    kernel: text,
  } satisfies Shape<VersionAnswer>)
  .openapi('Version');

const counts: z.ZodType<Counts> = z.record(kind, z.record(state, z.int()));
export const statusAnswer: z.ZodType<StatusAnswer> = z
  .strictObject({
    version: text,
    node: text,
    instance: text,
    kernel: text,
    startedAt: time,
    state: z.enum(['starting', 'ok', 'degraded']),
    components: z.array(
      z.strictObject({
        name: text,
        state: z.enum(['starting', 'ok', 'failing']),
        lastSuccess: time.optional(),
        queued: z.int().optional(),
        error: z.strictObject(failure).optional(),
      } satisfies Shape<ComponentHealth>),
    ),
    conditions: z.array(condition),
    store: z.strictObject({
      available: z.boolean(),
      incarnation: text,
      revision: z.int().optional(),
      error: z.strictObject(failure).optional(),
    } satisfies Shape<StatusAnswer['store']>),
    counts: counts.optional(),
    nodes: z.array(z.strictObject({ name: text, ...sessionShape })).optional(),
  } satisfies Shape<StatusAnswer>)
  .openapi('DaemonStatus');
