/** Settings: flag > SLUICE_* environment > /etc/sluice/sluiced.json. An unknown key is an error. */
import { readFileSync } from 'node:fs';
import { hostname } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { z } from 'zod';
import { SluiceError } from './errors.ts';

const Settings = z.strictObject({
  /** Mark of everything of this daemon in the kernel; several daemons on a machine differ in it. */
  instance: z
    .string()
    .regex(/^[a-z0-9]{1,8}$/)
    .default('sluice'),
  node: z.string().min(1).default(hostname()),
  stateDir: z.string().startsWith('/').default('/var/lib/sluice'),
  runDir: z.string().startsWith('/').default('/run/sluice'),
  /** Default: `<runDir>/sluice.sock`. */
  socket: z.string().startsWith('/').optional(),
  /** Group that may use the socket, when it exists. */
  socketGroup: z.string().default('sluice'),
  /** Where cgroup programs attach and sandbox cgroups live; default: the cgroup v2 mount. */
  cgroupRoot: z.string().startsWith('/').optional(),
  /** Mount point of a bpffs; made when absent. */
  bpffs: z.string().startsWith('/').default('/sys/fs/bpf'),
  /** `sqlite` in stateDir; the URL of a Redis that several nodes share (src/store/redis/README.md); or `memory` for tests. */
  store: z
    .string()
    .regex(/^(?:sqlite|memory|redis(?:s|\+unix)?:\/\/.+)$/, 'is sqlite, memory or redis://…')
    .default('sqlite'),
  /** Name of the cluster; a Redis that belongs to another one is refused. */
  clusterId: z
    .string()
    .regex(/^[a-z0-9][a-z0-9-]{0,62}$/)
    .default('sluice'),
  /** Allows a Redis off this machine without TLS and password: who writes to it is root on every node. */
  insecureStore: z.boolean().default(false),
  logLevel: z.enum(['trace', 'debug', 'info', 'warn', 'error', 'silent']).default('info'),
  /** Third-party network drivers: name → absolute path of a module that exports `create`. */
  plugins: z.record(z.string(), z.string().startsWith('/')).default({}),
  /** Automatic subnets of local networks: each base is cut into subnets of the given prefix length. */
  defaultAddressPools: z.array(z.strictObject({ base: z.string(), size: z.int().min(8).max(112) })).default([
    { base: '172.17.0.0/12', size: 16 },
    { base: '192.168.0.0/16', size: 20 },
    { base: 'fdb5:1ce0::/32', size: 64 },
  ]),
  /** Seconds between two audits of the kernel against the store. */
  auditSeconds: z.number().positive().max(3600).default(5),
  /** In a cluster: seconds without a sign of life after which this node's session has ended. The same on every node. */
  sessionSeconds: z.number().min(0.5).max(300).default(3),
  /** In a cluster: seconds for which a node has been lost before its replicas start elsewhere. */
  rescheduleSeconds: z.number().min(0).max(86_400).default(30),
  /** Upstream resolvers instead of the host's. */
  dns: z.array(z.string()).default([]),
  /** Address:port of a plain HTTP listener that serves /metrics only; none by default. */
  metricsListen: z.string().optional(),
  /** Address under which other nodes reach this one; default: that of the interface with the default route. */
  advertise: z.union([z.ipv4(), z.ipv6()]).optional(),
  /** Address or interface that overlay packets leave and enter by; default: `advertise`. */
  dataPathAddr: z.string().min(1).optional(),
  /** Address on which ports are published that have none of their own; default: all, but the loopback where a firewall keeps strangers out. */
  publishAddress: z.union([z.ipv4(), z.ipv6()]).optional(),
  /** UDP port of VXLAN, the same on every node. */
  vxlanPort: z.int().min(1).max(65535).default(4789),
  /** Registry → bases that pulls ask before it: `{"docker.io": ["https://mirror.example"]}`. */
  registryMirrors: z.record(z.string(), z.array(z.url({ protocol: /^https?$/ }))).default({}),
  /** `HOST[:PORT]` of registries whose certificate is not checked and that may speak plain HTTP. Those on loopback are. */
  insecureRegistries: z.array(z.string()).default([]),
  /** Folder with `HOST[:PORT]/*.crt`: authorities that are trusted for that registry beside the system's. */
  registryCertificates: z.string().startsWith('/').default('/etc/sluice/certs.d'),
  /** Beside Docker: keep two accepts for our bridges at the head of its chain DOCKER-USER. */
  manageDockerUser: z.boolean().default(false),
});

export type Config = Readonly<z.infer<typeof Settings>> & { readonly socket: string };

/** The settings' names, for flags and the generated reference. */
export const SETTING_NAMES = Object.keys(Settings.shape) as (keyof typeof Settings.shape)[];

const envName = (key: string): string => `SLUICE_${key.replace(/[A-Z]/g, (letter) => `_${letter}`).toUpperCase()}`;

function parseText(key: string, text: string): unknown {
  const shape = (Settings.shape as Record<string, z.ZodType>)[key];
  if (shape?.safeParse(text).success) return text;
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}

/** Reads the settings; `flags` maps setting names to text or values. Fails with `config.invalid`, naming the key and where it came from. */
export function loadConfig(
  flags: Record<string, unknown> = {},
  env: NodeJS.ProcessEnv = process.env,
  file = env.SLUICE_CONFIG ?? '/etc/sluice/sluiced.json',
): Config {
  let base: Record<string, unknown> = {};
  try {
    base = JSON.parse(readFileSync(file, 'utf8')) as Record<string, unknown>;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT' || env.SLUICE_CONFIG) {
      throw new SluiceError('config.invalid', `${file}: ${(error as Error).message}`, { file });
    }
  }
  for (const key of SETTING_NAMES) {
    const text = env[envName(key)];
    if (text !== undefined && text !== '') base[key] = parseText(key, text);
  }
  for (const [key, value] of Object.entries(flags))
    base[key] = typeof value === 'string' ? parseText(key, value) : value;
  const parsed = Settings.safeParse(base);
  if (!parsed.success) {
    const problems = parsed.error.issues.map((issue) => `${issue.path.join('.') || '(settings)'}: ${issue.message}`);
    throw new SluiceError('config.invalid', `invalid settings: ${problems.join('; ')}`, { problems });
  }
  return { ...parsed.data, socket: parsed.data.socket ?? join(parsed.data.runDir, 'sluice.sock') };
}

/** `--log-level debug`, `--logLevel debug`: every setting by its name. `--version` and `--help` answer and end the process. */
export function readFlags(version: string): Record<string, unknown> {
  const dashed = (key: string): string => key.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
  const options = Object.fromEntries(
    SETTING_NAMES.flatMap((key) => [key, dashed(key)].map((name) => [name, { type: 'string' as const }])),
  );
  try {
    const { values }: { values: Record<string, string | boolean | undefined> } = parseArgs({
      options: { ...options, version: { type: 'boolean' }, help: { type: 'boolean', short: 'h' } },
      strict: true,
    });
    if (values.version) finish(`sluiced ${version}`);
    if (values.help) finish(`usage: sluiced [--SETTING VALUE]…\nsettings: ${SETTING_NAMES.map(dashed).join(' ')}`);
    return Object.fromEntries(
      SETTING_NAMES.flatMap((key) =>
        [key, dashed(key)].flatMap((name) => (values[name] === undefined ? [] : [[key, values[name]]])),
      ),
    );
  } catch (error) {
    throw new SluiceError('config.invalid', (error as Error).message);
  }
}

function finish(text: string): never {
  process.stdout.write(`${text}\n`);
  process.exit(0);
}
