/** Sandboxes, made together with their endpoints in one transaction. */
import type { Op } from '../contracts/store.ts';
import { SluiceError } from '../errors.ts';
import { fault } from '../fault.ts';
import type { Container, ReplicaOf } from '../model/container.ts';
import type { Endpoint } from '../model/endpoint.ts';
import { nodeTopic, topicsOf } from '../model/keys.ts';
import type { Network } from '../model/network.ts';
import type { AttachmentRequest, SandboxRequest } from '../model/request.ts';
import type { Sandbox, SandboxSpec } from '../model/sandbox.ts';
import type { Service } from '../model/service.ts';
import { attachmentDiffers, checkApart, checkAttachment, hasEndpoints } from './attachment.ts';
import { type Endpoints, NETWORKS_MAX } from './endpoint.ts';
import { checkName, type Parts, type Put, type PutOptions, Records, sameJson, type WriteOptions } from './records.ts';
import { retrying, type Undo, undoing } from './turn.ts';

/** Writes that belong into one transaction, and who is to hear of them. */
export interface Writes {
  readonly ops: readonly Op[];
  readonly topics: readonly string[];
}

export class Sandboxes {
  readonly records: Records<'sandbox', Sandbox>;
  readonly #parts: Parts;
  readonly #endpoints: Endpoints;
  readonly #networks: Records<'network', Network>;
  readonly #services: Records<'service', Service>;
  readonly #containers: Records<'container', Container>;

  constructor(parts: Parts, endpoints: Endpoints) {
    this.#parts = parts;
    this.#endpoints = endpoints;
    this.records = new Records('sandbox', parts);
    this.#networks = new Records('network', parts);
    this.#services = new Records('service', parts);
    this.#containers = new Records('container', parts);
  }

  get = (ref: string): Promise<Sandbox> => this.records.get(ref);
  list = (): Promise<Sandbox[]> => this.records.list();

  /**
   * Idempotent by name, with its endpoints. One that is there is given back when it is what the request would make (networks that it was
   * connected to since are no difference), else `object.exists`. Also what `Endpoints.connect` fails with. Whether the path of
   * `attach` is a namespace is the caller's to know.
   */
  async put(name: string, request: SandboxRequest, options: PutOptions = {}): Promise<Put<Sandbox>> {
    checkName('sandbox', name);
    return this.#parts.turns.take(`sandbox/${name}`, () =>
      retrying(async () => {
        const found = await this.records.byName(name);
        if (!found) return { object: await this.#create(name, request, options), created: true };
        if (options.create) throw new SluiceError('object.exists', `a sandbox ${name} exists`, { name, id: found.id });
        const differs = await this.#difference(found, request);
        if (!differs) return { object: found, created: false };
        throw new SluiceError('object.exists', `sandbox ${name} exists with another ${differs}`, {
          name,
          id: found.id,
          differs,
        });
      }),
    );
  }

  /**
   * Marks it and its endpoints for removal. `object.inuse` while services balance over it; with `force` it leaves their lists in the same
   * transaction. `object.inuse` also for the sandbox of a container: it goes with that.
   */
  remove(ref: string, options: WriteOptions & { readonly force?: boolean } = {}): Promise<Sandbox> {
    return this.#parts.turns.take('backends', () =>
      retrying(async () => {
        const sandbox = await this.records.get(ref);
        if (sandbox.removing) return sandbox;
        const container = await this.#containers.byName(sandbox.name);
        if (container?.spec.sandbox === sandbox.id)
          throw new SluiceError(
            'object.inuse',
            `sandbox ${sandbox.name} belongs to the container of that name: it goes with "sluice rm ${sandbox.name}"`,
            { sandbox: sandbox.id, containers: [container.name] },
          );
        const { ops, topics } = await this.removing(sandbox.id, options);
        const revision = await this.#parts.store.transact(ops, { topics, actor: options.actor });
        return { ...sandbox, removing: true, revision };
      }),
    );
  }

  /** Writes that begin the removal of it and its endpoints; none when it is under way. */
  async removing(id: string, options: { readonly force?: boolean }): Promise<Writes> {
    const sandbox = await this.records.byId(id);
    if (!sandbox || sandbox.removing) return { ops: [], topics: [] };
    const unreferred = await this.records.noNewReference(sandbox.id);
    const services = (await this.#services.list()).filter(
      (service) => !service.removing && withoutSandbox(service, sandbox.id).length < service.spec.backends.length,
    );
    if (services.length > 0 && !options.force) {
      const names = services.map(({ name }) => name);
      throw new SluiceError(
        'object.inuse',
        `sandbox ${sandbox.name} is a backend of ${names.join(', ')}; --force takes it out`,
        { sandbox: sandbox.id, services: names },
      );
    }
    const endpoints = await this.#endpoints.ofSandbox(sandbox.id);
    return {
      ops: [
        ...this.records.removal(sandbox),
        unreferred,
        ...endpoints.flatMap((endpoint) => this.#endpoints.records.removal(endpoint)),
        ...services.map((service) =>
          this.#services.change(service, { spec: { ...service.spec, backends: withoutSandbox(service, sandbox.id) } }),
        ),
      ],
      topics: [
        ...topicsOf(sandbox),
        ...endpoints.flatMap((endpoint) => topicsOf(endpoint, endpoint.spec.network)),
        ...services.flatMap((service) => topicsOf(service, service.spec.network)),
      ],
    };
  }

  /** Writes of another name, of its endpoints too. `object.exists`. */
  async renaming(id: string, name: string): Promise<Writes> {
    const taken = await this.records.byName(name);
    if (taken) throw new SluiceError('object.exists', `a sandbox ${name} exists`, { name, id: taken.id });
    const sandbox = await this.records.living(id);
    const endpoints = await this.#endpoints.ofSandbox(id);
    const renamed = (endpoint: Endpoint): string => `${name}${endpoint.name.slice(sandbox.name.length)}`;
    return {
      ops: [
        ...this.records.renaming(sandbox, name),
        ...endpoints.map((endpoint) => this.#endpoints.records.change(endpoint, { name: renamed(endpoint) })),
      ],
      topics: [...topicsOf(sandbox), ...endpoints.flatMap((endpoint) => topicsOf(endpoint, endpoint.spec.network))],
    };
  }

  /** The namespace is gone, and its endpoints before it. Repeating it harms nobody. */
  async forget(sandbox: Sandbox): Promise<void> {
    await this.records.forget(sandbox);
  }

  /** A new sandbox with its endpoints, `numbered` of which are to have numbers; nothing is written but the leases, which `undo` gives back. */
  async planning(
    name: string,
    request: SandboxRequest,
    undo: Undo,
    replica?: ReplicaOf,
  ): Promise<Writes & { readonly sandbox: Sandbox; readonly numbered: readonly string[] }> {
    const taken = await this.records.byName(name);
    if (taken) throw new SluiceError('object.exists', `a sandbox ${name} exists`, { name, id: taken.id });
    const asked = request.networks ?? (request.attach ? [] : [{ network: 'bridge' }]);
    if (asked.length > NETWORKS_MAX)
      throw new SluiceError('request.invalid', `sandbox ${name}: more than ${NETWORKS_MAX} networks`, { name });
    const networks: Network[] = [];
    for (const { network } of asked) networks.push(await this.#networks.living(network));
    const spec = specOf(name, request, networks);
    const attachments = checkTogether(name, networks, asked);
    const sandbox = this.records.fresh(this.records.newId(), name, this.#parts.node, request.labels ?? {}, spec);
    const endpoints: Endpoint[] = [];
    const ops: Op[] = this.records.creation(sandbox);
    for (const [n, network] of networks.entries()) {
      if (!hasEndpoints(network)) continue;
      const { endpoint, standing } = await this.#endpoints.plan(sandbox, network, attachments[n]!, undo, replica);
      endpoints.push(endpoint);
      ops.push(...standing, ...this.#endpoints.creation(endpoint, network));
    }
    fault('sandbox.leased');
    const topics = [nodeTopic(this.#parts.node), ...endpoints.flatMap((one) => topicsOf(one, one.spec.network))];
    const numbered = spec.origin === 'host' ? [] : [sandbox, ...endpoints].map(({ id }) => id);
    return { sandbox, ops, topics, numbered };
  }

  async #create(name: string, request: SandboxRequest, options: WriteOptions): Promise<Sandbox> {
    const made = await undoing(async (undo) => {
      const { sandbox, ops, topics, numbered } = await this.planning(name, request, undo);
      const { store, numbers } = this.#parts;
      const revision = await numbers.allocateWith('attachment', numbered, (more) =>
        store.transact([...ops, ...more], { topics, actor: options.actor }),
      );
      return { ...sandbox, revision };
    });
    fault('sandbox.stored');
    return made;
  }

  /** The same of the sandbox with that id, for who has another request for it. */
  async difference(id: string, request: SandboxRequest): Promise<string | null> {
    const sandbox = await this.records.byId(id);
    return sandbox ? this.#difference(sandbox, { ...request, labels: sandbox.labels }) : 'sandbox';
  }

  /** The first thing in which the sandbox is not what the request would make, null: none. */
  async #difference(found: Sandbox, request: SandboxRequest): Promise<string | null> {
    const { spec, labels } = found;
    if (request.attach !== spec.netns) return 'namespace';
    if (request.hostname !== spec.hostname) return 'host name';
    if (!sameJson(request.sysctls ?? {}, spec.sysctls)) return 'set of sysctls';
    if (!sameJson(request.dns ?? {}, spec.dns ?? {})) return 'choice of resolvers';
    if (!sameJson(request.labels ?? {}, labels)) return 'set of labels';
    if (request.networks === undefined) return null;
    const there = await this.#endpoints.ofSandbox(found.id);
    for (const asked of request.networks) {
      const network = await this.#networks.living(asked.network);
      const attachment = checkAttachment(network, asked);
      const endpoint = there.find((one) => one.spec.network === network.id);
      const isOn = endpoint ? !attachmentDiffers(endpoint, attachment) : !hasEndpoints(network);
      if (!isOn || (network.spec.driver === 'host') !== (spec.origin === 'host')) return `place on ${network.name}`;
    }
    return null;
  }
}

const withoutSandbox = ({ spec }: Service, id: string): Service['spec']['backends'] =>
  spec.backends.filter((backend) => !('sandbox' in backend && backend.sandbox === id));

/** The attachments checked one by one and against each other. */
function checkTogether(
  name: string,
  networks: readonly Network[],
  asked: readonly AttachmentRequest[],
): AttachmentRequest[] {
  const alone = networks.find((network) => !hasEndpoints(network));
  if (alone && networks.length > 1)
    throw new SluiceError(
      'request.invalid',
      `sandbox ${name}: the network ${alone.name} cannot be combined with others`,
      { name, network: alone.id },
    );
  const attachments = networks.map((network, n) => checkAttachment(network, asked[n]!));
  for (const [n, network] of networks.entries()) {
    const before = networks.slice(0, n);
    if (before.some(({ id }) => id === network.id))
      throw new SluiceError('request.invalid', `sandbox ${name}: network ${network.name} is named twice`, { name });
    checkApart(network, before);
    const { ifname } = attachments[n]!;
    if (ifname !== undefined && attachments.slice(0, n).some((other) => other.ifname === ifname))
      throw new SluiceError('request.invalid', `sandbox ${name}: two interfaces ${ifname}`, { name, ifname });
  }
  return attachments;
}

function specOf(name: string, request: SandboxRequest, networks: readonly Network[]): SandboxSpec {
  const onHost = networks.some(({ spec }) => spec.driver === 'host');
  if (onHost && request.attach !== undefined)
    throw new SluiceError('request.invalid', `sandbox ${name}: the network host is not ${request.attach}`, { name });
  if (request.attach !== undefined && !request.attach.startsWith('/'))
    throw new SluiceError('request.invalid', `sandbox ${name}: ${request.attach} is not an absolute path`, {
      attach: request.attach,
    });
  for (const key of Object.keys(request.sysctls ?? {})) {
    if (!/^net\.[\w./-]+$/.test(key) || key.includes('..'))
      throw new SluiceError(
        'request.invalid',
        `sandbox ${name}: sysctl ${key}: only names below net. belong to a network namespace`,
        { sysctl: key },
      );
  }
  return {
    origin: request.attach === undefined ? (onHost ? 'host' : 'own') : 'attached',
    netns: request.attach,
    hostname: request.hostname,
    sysctls: request.sysctls ?? {},
    dns: request.dns,
  };
}
