/** zod schemas of containers and volumes, as model/schema.ts has those of networks. */
import { z } from '@hono/zod-openapi';
import type {
  Container,
  ContainerSpec,
  DeviceSpec,
  HealthSpec,
  MountSpec,
  PublishSpec,
  ReplicaOf,
  RestartSpec,
} from '../container.ts';
import { address, cidr, labels, name, networksOfSandbox, port, type Shape, view } from '../schema.ts';
import type {
  ArchiveRequest,
  AttachRequest,
  ContainerRequest,
  ExecRequest,
  ExitAnswer,
  MountRequest,
  ProcessAnswer,
  PublishRequest,
  RenameRequest,
  ReplicaTemplate,
  StatsAnswer,
  VolumeRequest,
} from './request.ts';
import { SIGNAL_PATTERN } from './signal.ts';
import type { Volume } from './volume.ts';

const noNul = (text: string): boolean => !text.includes('\0');
const word = z.string().min(1).max(4096).refine(noNul, 'holds a NUL');
const argument = z.string().max(131_072).refine(noNul, 'holds a NUL');
const args = z.array(argument).max(4096);
const path = z
  .string()
  .max(4095)
  .startsWith('/', 'not an absolute path')
  .refine((text) => noNul(text) && !text.split('/').includes('..'), 'a path has no NUL and no ..');
const env = z
  .array(
    z
      .string()
      .max(131_072)
      .regex(/^[^=\0]+(=[^\0]*)?$/, 'not KEY=value'),
  )
  .max(1024);
const user = z.string().regex(/^[^\s:\0]{1,64}(:[^\s:\0]{1,64})?$/, 'not USER[:GROUP]');
const milliseconds = z.int().min(0).max(86_400_000);
const capability = z.string().regex(/^[A-Za-z_]{2,40}$/, 'not a capability such as NET_ADMIN');
const hostname = z.string().regex(/^[a-zA-Z0-9]([a-zA-Z0-9.-]{0,61}[a-zA-Z0-9])?$/, 'not a host name');

const mount = z
  .strictObject({
    type: z.enum(['bind', 'volume', 'tmpfs']),
    source: word.optional().openapi({ description: 'Host path, or name of a volume; a volume without is anonymous.' }),
    target: path.openapi({ description: 'Absolute path inside.' }),
    readOnly: z.boolean().optional(),
    options: z.record(z.string().max(64), z.string().max(256)).optional().openapi({
      description: '`size`, `mode` of a tmpfs; `propagation` of a bind; `nocopy` of a volume.',
    }),
  } satisfies Shape<MountRequest>)
  .refine(
    ({ type, source }) => type !== 'bind' || (source?.startsWith('/') ?? false),
    'a bind mount has an absolute source',
  )
  .refine(({ type, source }) => type !== 'tmpfs' || source === undefined, 'a tmpfs has no source')
  .openapi('MountRequest');
const device = z.strictObject({
  source: path,
  target: path,
  access: z.string().regex(/^(?!.*(.).*\1)[rwm]{1,3}$/, 'letters of rwm'),
} satisfies Shape<DeviceSpec>);
const health = {
  test: z
    .array(argument)
    .min(1)
    .max(256)
    .openapi({ example: ['CMD-SHELL', 'wget -qO- http://localhost/'] }),
  intervalMs: milliseconds.min(1),
  timeoutMs: milliseconds.min(1),
  retries: z.int().min(1).max(100),
  startPeriodMs: milliseconds,
} satisfies Shape<HealthSpec>;
const restart = {
  name: z.enum(['no', 'on-failure', 'always', 'unless-stopped']),
  retriesMax: z.int().min(0).max(1_000_000).openapi({ description: '`on-failure` only; 0: no limit.' }),
} satisfies Shape<RestartSpec>;
const ulimits = z
  .record(
    z.string().regex(/^[a-z]{2,16}$/, 'not the name of a limit such as nofile'),
    z.strictObject({ soft: z.int().min(-1), hard: z.int().min(-1) }),
  )
  .refine((map) => Object.keys(map).length <= 16, 'more than 16 limits');
export const publishRequest = z
  .strictObject({
    address: address.optional().openapi({ description: 'Address of the host; absent: the setting `publishAddress`.' }),
    published: port.optional().openapi({ description: 'Port of the host; absent: a free one.' }),
    target: port.openapi({ description: 'Port of the container.' }),
    protocol: z.enum(['tcp', 'udp']).optional(),
    mode: z.literal('host').optional(),
    from: z
      .union([z.literal('any'), z.array(cidr).min(1).max(64)])
      .optional()
      .openapi({ description: "Who may connect; absent: anybody, unless the host's firewall keeps strangers out." }),
  } satisfies Shape<PublishRequest>)
  .openapi('PublishRequest');
/** The kernel's floor is far lower; nothing runs in less. */
const MEMORY_MIN = 1024 * 1024;

/** Fields that request and spec share. */
const shared = {
  entrypoint: args.optional().openapi({ description: "Absent: the image's. Empty: none." }),
  command: args.optional().openapi({ description: "Absent: the image's, unless the entrypoint was replaced." }),
  env: env.openapi({ description: "`KEY=value`, over the image's." }),
  user: user.optional(),
  workdir: path.optional(),
  hostname: hostname.optional().openapi({ description: 'Absent: the first 12 digits of the id.' }),
  tty: z.boolean(),
  stdin: z.boolean().openapi({ description: 'Standard input is kept open.' }),
  stdinOnce: z.boolean().optional().openapi({ description: 'It ends with the first caller that is attached.' }),
  devices: z.array(device).max(128),
  memoryBytes: z.int().min(MEMORY_MIN).optional(),
  cpus: z.number().positive().max(4096).optional(),
  pidsMax: z.int().min(1).max(4_194_304).optional(),
  readOnly: z.boolean(),
  privileged: z.boolean(),
  capAdd: z.array(capability).max(64),
  capDrop: z.array(capability).max(64),
  securityOpt: z.array(word).max(16).openapi({
    description: '`no-new-privileges=false`, `seccomp=unconfined`, `apparmor=PROFILE`, `systempaths=unconfined`.',
  }),
  userns: z.enum(['host', 'auto']),
  init: z.boolean().openapi({ description: 'A minimal init as PID 1 that reaps and forwards signals.' }),
  addHosts: z.array(z.string().regex(/^[^\s:]{1,253}:[0-9a-fA-F.:]+$/, 'not NAME:IP')).max(256),
  ulimits,
  stopSignal: z.string().regex(SIGNAL_PATTERN, 'not a signal such as SIGTERM').optional(),
  stopTimeoutMs: milliseconds,
  autoRemove: z.boolean().openapi({ description: 'Goes with its process.' }),
  foreign: z
    .record(z.string().max(256), z.unknown())
    .optional()
    .openapi({ description: 'What another front end wrote and reads back.' }),
};

export const containerRequest = z
  .strictObject({
    ...(z.strictObject(shared).partial().shape as Required<{
      [K in keyof typeof shared]: z.ZodOptional<(typeof shared)[K]>;
    }>),
    ...networksOfSandbox,
    image: word.max(512).openapi({ description: 'Name, id, or the beginning of an id; it must be here.' }),
    mounts: z.array(mount).max(128).optional(),
    restart: z.strictObject(restart).partial().optional(),
    health: z.strictObject(health).partial().optional().openapi({ description: "What is absent is the image's." }),
    labels: labels.optional(),
    publish: z.array(publishRequest).max(1024).optional(),
    publishAll: z
      .boolean()
      .optional()
      .openapi({ description: 'Also every port that the image exposes, each on a free one of the host.' }),
    start: z.boolean().optional().openapi({ description: 'Also start it.' }),
  } satisfies Shape<ContainerRequest>)
  .openapi('ContainerRequest');

export const replicaTemplate: z.ZodType<ReplicaTemplate> = containerRequest
  .omit({ networks: true, publish: true, publishAll: true, start: true, autoRemove: true })
  .openapi('ReplicaTemplate');

export const renameRequest = z.strictObject({ name } satisfies Shape<RenameRequest>).openapi('RenameRequest');
export const volumeRequest = z
  .strictObject({
    driver: z.literal('local').optional(),
    labels: labels.optional(),
  } satisfies Shape<VolumeRequest>)
  .openapi('VolumeRequest');

export const execRequest = z
  .strictObject({
    args: args.min(1),
    env: env.optional(),
    user: user.optional(),
    workdir: path.optional(),
    tty: z.boolean().optional(),
    privileged: z.boolean().optional(),
    stdin: z.boolean().optional(),
    columns: z.int().min(0).max(65_535).optional(),
    rows: z.int().min(0).max(65_535).optional(),
  } satisfies Shape<ExecRequest>)
  .openapi('ExecRequest');

/** First frames of the other streams. */
export const attachOpen: z.ZodType<AttachRequest> = z
  .strictObject({
    start: z.boolean().optional(),
    stdin: z.boolean().optional(),
    columns: z.int().min(0).max(65_535).optional(),
    rows: z.int().min(0).max(65_535).optional(),
  } satisfies Shape<AttachRequest>)
  .openapi('AttachRequest');
export const archiveOpen: z.ZodType<ArchiveRequest> = z
  .strictObject({ path } satisfies Shape<ArchiveRequest>)
  .openapi('ArchiveRequest');

const text = z.string();
export const publishView = z.strictObject({
  address: text.optional(),
  published: z.int(),
  target: z.int(),
  protocol: z.enum(['tcp', 'udp']),
  mode: z.enum(['host', 'ingress']),
  from: z.union([z.array(text), z.literal('any')]).optional(),
} satisfies Shape<PublishSpec>);
export const containerView = view<Container>(
  'container',
  z.strictObject({
    ...shared,
    image: text,
    imageId: text,
    sandbox: text,
    mounts: z.array(
      z.strictObject({
        type: z.enum(['bind', 'volume', 'tmpfs']),
        source: text.optional(),
        target: text,
        readOnly: z.boolean(),
        options: z.record(text, text),
      } satisfies Shape<MountSpec>),
    ),
    restart: z.strictObject(restart),
    health: z.strictObject(health).optional(),
    publish: z.array(publishView),
    wanted: z.enum(['created', 'running', 'stopped']),
    generation: z.int(),
    stopWithinMs: z.int().optional(),
    replica: z.strictObject({ service: text, slot: z.int(), version: z.int() } satisfies Shape<ReplicaOf>).optional(),
  } satisfies Shape<ContainerSpec>),
);
export const volumeView = view<Volume>(
  'volume',
  z.strictObject({ driver: z.literal('local'), anonymous: z.boolean() } satisfies Shape<Volume['spec']>),
);

export const exitAnswer: z.ZodType<ExitAnswer> = z
  .strictObject({
    exitCode: z.int(),
    oomKilled: z.boolean(),
    exitedAt: text.optional(),
  } satisfies Shape<ExitAnswer>)
  .openapi('Exit');
export const processAnswer: z.ZodType<ProcessAnswer> = z.strictObject({
  pid: z.int(),
  user: text,
  command: text,
} satisfies Shape<ProcessAnswer>);
export const statsAnswer: z.ZodType<StatsAnswer> = z
  .strictObject({
    time: text,
    cpuNs: z.number(),
    memoryBytes: z.number(),
    memoryLimit: z.number().optional(),
    pids: z.int(),
    readBytes: z.number(),
    writeBytes: z.number(),
  } satisfies Shape<StatsAnswer>)
  .openapi('Stats');
