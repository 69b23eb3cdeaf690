/** Sandboxes, made together with their endpoints in one transaction. */
import type { Op } from '../contracts/store.ts';
import { SluiceError } from '../errors.ts';
import { fault } from '../fault.ts';
import type { Endpoint } from '../model/endpoint.ts';
import { nodeTopic, topicsOf } from '../model/keys.ts';
import type { Network } from '../model/network.ts';
import type { AttachmentRequest, SandboxRequest } from '../model/request.ts';
import type { Sandbox, SandboxSpec } from '../model/sandbox.ts';
import type { Service } from '../model/service.ts';
import { attachmentDiffers, checkApart, checkAttachment, hasEndpoints } from './attachment.ts';
import { type Endpoints, NETWORKS_MAX } from './endpoint.ts';
import { checkName, type Parts, type Put, type PutOptions, Records, sameJson, type WriteOptions } from './records.ts';
import { retrying, undoing } from './turn.ts';

export class Sandboxes {
  readonly records: Records<'sandbox', Sandbox>;
  readonly #parts: Parts;
  readonly #endpoints: Endpoints;
  readonly #networks: Records<'network', Network>;
  readonly #services: Records<'service', Service>;

  constructor(parts: Parts, endpoints: Endpoints) {
    this.#parts = parts;
    this.#endpoints = endpoints;
    this.records = new Records('sandbox', parts);
    this.#networks = new Records('network', parts);
    this.#services = new Records('service', parts);
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
   * transaction.
   */
  remove(ref: string, options: WriteOptions & { readonly force?: boolean } = {}): Promise<Sandbox> {
    return this.#parts.turns.take('backends', () =>
      retrying(async () => {
        const sandbox = await this.records.get(ref);
        if (sandbox.removing) return sandbox;
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
        const ops: Op[] = [
          ...this.records.removal(sandbox),
          unreferred,
          ...endpoints.flatMap((endpoint) => this.#endpoints.records.removal(endpoint)),
          ...services.map((service) =>
            this.#services.change(service, {
              spec: { ...service.spec, backends: withoutSandbox(service, sandbox.id) },
            }),
          ),
        ];
        const revision = await this.#parts.store.transact(ops, {
          topics: [
            ...topicsOf(sandbox),
            ...endpoints.flatMap((endpoint) => topicsOf(endpoint, endpoint.spec.network)),
            ...services.flatMap((service) => topicsOf(service, service.spec.network)),
          ],
          actor: options.actor,
        });
        return { ...sandbox, removing: true, revision };
      }),
    );
  }

  /** The namespace is gone, and its endpoints before it. Repeating it harms nobody. */
  async forget(sandbox: Sandbox): Promise<void> {
    await this.records.forget(sandbox);
  }

  async #create(name: string, request: SandboxRequest, options: WriteOptions): Promise<Sandbox> {
    const asked = request.networks ?? (request.attach ? [] : [{ network: 'bridge' }]);
    if (asked.length > NETWORKS_MAX)
      throw new SluiceError('request.invalid', `sandbox ${name}: more than ${NETWORKS_MAX} networks`, { name });
    const networks: Network[] = [];
    for (const { network } of asked) networks.push(await this.#networks.living(network));
    const spec = specOf(name, request, networks);
    const attachments = checkTogether(name, networks, asked);
    const sandbox = this.records.fresh(this.records.newId(), name, this.#parts.node, request.labels ?? {}, spec);
    const revision = await undoing(async (undo) => {
      const endpoints: Endpoint[] = [];
      const ops: Op[] = this.records.creation(sandbox);
      for (const [n, network] of networks.entries()) {
        if (!hasEndpoints(network)) continue;
        const endpoint = await this.#endpoints.plan(sandbox, network, attachments[n]!, undo);
        endpoints.push(endpoint);
        ops.push(...this.#endpoints.creation(endpoint, network));
      }
      fault('sandbox.leased');
      return this.#parts.store.transact(ops, {
        topics: [nodeTopic(this.#parts.node), ...endpoints.flatMap((one) => topicsOf(one, one.spec.network))],
        actor: options.actor,
      });
    });
    fault('sandbox.stored');
    return { ...sandbox, revision };
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
