/** Sandboxes, made together with their endpoints in one transaction. */
import type { Op } from '../contracts/store.ts';
import { isSluiceError, SluiceError } from '../errors.ts';
import { fault } from '../fault.ts';
import type { Endpoint } from '../model/endpoint.ts';
import { canonicalAddress } from '../model/ip.ts';
import type { Network } from '../model/network.ts';
import type { AttachmentRequest, SandboxRequest } from '../model/request.ts';
import type { Sandbox, SandboxSpec } from '../model/sandbox.ts';
import type { Service } from '../model/service.ts';
import type { Endpoints } from './endpoint.ts';
import {
  checkName,
  type Parts,
  type Put,
  type PutOptions,
  Records,
  retrying,
  undoing,
  type WriteOptions,
} from './records.ts';

/** Networks of one sandbox. */
const NETWORKS_MAX = 64;

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

  async put(name: string, request: SandboxRequest, options: PutOptions = {}): Promise<Put<Sandbox>> {
    checkName('sandbox', name);
    return retrying(async () => {
      const found = await this.records.byName(name);
      if (!found) return { object: await this.#create(name, request, options), created: true };
      if (options.create) throw new SluiceError('object.exists', `a sandbox ${name} exists`, { name, id: found.id });
      const differs = await this.#difference(found, request);
      if (differs)
        throw new SluiceError('object.exists', `sandbox ${name} exists with another ${differs}`, {
          name,
          id: found.id,
          differs,
        });
      return { object: found, created: false };
    });
  }

  /** Refused while services balance over it; with `force` it leaves their lists in the same transaction. */
  async remove(ref: string, options: WriteOptions & { readonly force?: boolean } = {}): Promise<Sandbox> {
    return retrying(async () => {
      const sandbox = await this.records.get(ref);
      if (sandbox.removing) return sandbox;
      const services = (await this.#services.list()).filter(
        (service) => !service.removing && usesSandbox(service, sandbox.id),
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
        ...endpoints.flatMap((endpoint) => this.#endpoints.removal(endpoint)),
        ...services.map((service) =>
          this.#services.change(service, {
            spec: {
              ...service.spec,
              backends: service.spec.backends.filter((one) => !('sandbox' in one) || one.sandbox !== sandbox.id),
            },
          }),
        ),
      ];
      await this.#parts.store.transact(ops, {
        topics: this.#topics(endpoints.map(({ spec }) => spec.network)),
        actor: options.actor,
      });
      return { ...sandbox, removing: true };
    });
  }

  async forget(sandbox: Sandbox): Promise<void> {
    await this.records.forget(sandbox);
  }

  #topics(networks: readonly string[]): string[] {
    return [`node/${this.#parts.node}`, ...new Set(networks.map((id) => `network/${id}`))];
  }

  async #create(name: string, request: SandboxRequest, options: WriteOptions): Promise<Sandbox> {
    const attachments = request.networks ?? (request.attach ? [] : [{ network: 'bridge' }]);
    if (attachments.length > NETWORKS_MAX)
      throw new SluiceError('request.invalid', `more than ${NETWORKS_MAX} networks`, { name });
    const networks = await Promise.all(attachments.map(({ network }) => this.#networks.living(network)));
    const spec = specOf(name, request, networks);
    const sandbox = this.records.fresh(this.records.newId(), name, this.#parts.node, request.labels ?? {}, spec);
    return undoing(async (undo) => {
      const endpoints: Endpoint[] = [];
      for (const [i, network] of networks.entries()) {
        if (network.spec.driver === 'host' || network.spec.driver === 'none') continue;
        endpoints.push(await this.#endpoints.plan(sandbox, network, attachments[i]!, networks.slice(0, i), undo));
      }
      fault('sandbox.leased');
      const ops = [
        ...this.records.creation(sandbox),
        ...endpoints.flatMap((endpoint) => this.#endpoints.records.creation(endpoint)),
        // A network whose removal began since it was read must not get an endpoint.
        ...networks.map((network) => this.#networks.check(network)),
      ];
      const revision = await this.#parts.store.transact(ops, {
        topics: this.#topics(networks.map(({ id }) => id)),
        actor: options.actor,
      });
      fault('sandbox.stored');
      return { ...sandbox, revision };
    });
  }

  async #difference(found: Sandbox, request: SandboxRequest): Promise<string | null> {
    if (request.attach !== undefined && request.attach !== found.spec.netns) return 'namespace';
    if (request.hostname !== undefined && request.hostname !== found.spec.hostname) return 'hostname';
    if (request.networks === undefined) return null;
    const there = (await this.#endpoints.ofSandbox(found.id)).filter(({ removing }) => !removing);
    for (const attachment of request.networks) {
      const network = await this.#networks.get(attachment.network).catch((error: unknown) => {
        if (isSluiceError(error, 'object.notfound')) return null;
        throw error;
      });
      const endpoint = there.find(({ spec }) => spec.network === network?.id);
      if (!endpoint ? network && !['host', 'none'].includes(network.spec.driver) : differsFrom(endpoint, attachment))
        return `network ${attachment.network}`;
    }
    return null;
  }
}

const usesSandbox = (service: Service, id: string): boolean =>
  service.spec.backends.some((backend) => 'sandbox' in backend && backend.sandbox === id);

function differsFrom({ spec }: Endpoint, { ip, ip6 }: AttachmentRequest): boolean {
  return [ip, ip6].some(
    (address) =>
      address !== undefined && !spec.addresses.some((own) => own.split('/')[0] === canonicalAddress(address)),
  );
}

function specOf(name: string, request: SandboxRequest, networks: readonly Network[]): SandboxSpec {
  const onHost = networks.some(({ spec }) => spec.driver === 'host');
  if (onHost && (networks.length > 1 || request.attach))
    throw new SluiceError('request.invalid', `sandbox ${name}: the network host cannot be combined with others`, {
      name,
    });
  if (networks.some(({ spec }) => spec.driver === 'none') && networks.length > 1)
    throw new SluiceError('request.invalid', `sandbox ${name}: the network none cannot be combined with others`, {
      name,
    });
  const twice = networks.find(
    (network, i) => networks.indexOf(network) !== i || networks.findIndex(({ id }) => id === network.id) !== i,
  );
  if (twice)
    throw new SluiceError('request.invalid', `sandbox ${name}: network ${twice.name} is named twice`, { name });
  if (request.attach !== undefined && !request.attach.startsWith('/'))
    throw new SluiceError('request.invalid', `${request.attach} is not an absolute path`, { attach: request.attach });
  for (const key of Object.keys(request.sysctls ?? {})) {
    if (!/^net\.[\w.-]+$/.test(key) || key.includes('..'))
      throw new SluiceError('request.invalid', `sysctl ${key}: only names below net. belong to a network namespace`, {
        sysctl: key,
      });
  }
  return {
    origin: request.attach ? 'attached' : onHost ? 'host' : 'own',
    netns: request.attach,
    hostname: request.hostname,
    sysctls: request.sysctls ?? {},
    dns: request.dns,
  };
}
