/** What a service means for the data plane. Pure: objects in, backend sets and frontends out. */
import type { FrontendProtocol } from '../../contracts/dataplane.ts';
import type { Endpoint } from '../../model/endpoint.ts';
import { isProtocol, type Service } from '../../model/service.ts';

export interface PlannedBackend {
  /** `<endpoint id or ->/<address>/<port>`: its number's key. */
  readonly key: string;
  readonly address: string;
  /** 0: the port that was asked for. */
  readonly port: number;
}

export interface PlannedSet {
  /** `<service id>/<port or *>/<protocol or *>/<4|6>`: its number's key. */
  readonly key: string;
  readonly address: string;
  readonly port: number;
  readonly protocol?: FrontendProtocol;
  readonly backends: readonly PlannedBackend[];
}

const familyOf = (address: string): 4 | 6 => (address.includes(':') ? 6 : 4);
const bare = (address: string): string => address.split('/')[0]!;

/**
 * One set for each VIP and port. A VIP is balanced over backends of its own family. `endpoints`: those on the service's network that
 * are ready. Backends come in a stable order (by key), so that every node and every run draws the same. Ports of a protocol that only a newer
 * version knows are not balanced here.
 */
export function planService(service: Service, endpoints: readonly Endpoint[]): PlannedSet[] {
  const { vips, ports, backends } = service.spec;
  const bySandbox = new Map(endpoints.map((endpoint) => [endpoint.spec.sandbox, endpoint]));
  const sets: PlannedSet[] = [];
  const known = ports.filter(({ protocol }) => isProtocol(protocol));
  for (const vip of vips) {
    const family = familyOf(vip);
    for (const port of ports.length > 0 ? known : [undefined]) {
      const planned: PlannedBackend[] = [];
      for (const backend of backends) {
        const target = backend.port ?? port?.target ?? 0;
        const endpoint = 'sandbox' in backend ? bySandbox.get(backend.sandbox) : undefined;
        const address =
          'address' in backend
            ? backend.address
            : endpoint?.spec.addresses.map(bare).find((own) => familyOf(own) === family);
        if (!address || familyOf(address) !== family) continue;
        planned.push({ key: `${endpoint?.id ?? '-'}/${address}/${target}`, address, port: target });
      }
      sets.push({
        key: `${service.id}/${port?.port ?? '*'}/${port?.protocol ?? '*'}/${family}`,
        address: vip,
        port: port?.port ?? 0,
        protocol: port?.protocol,
        backends: planned.sort((a, b) => (a.key < b.key ? -1 : 1)),
      });
    }
  }
  return sets;
}

/** The endpoint that a backend's number key speaks of, null for a plain address. */
export function endpointOfKey(key: string): string | null {
  const id = key.slice(0, key.indexOf('/'));
  return id === '-' ? null : id;
}

/** Whether the service may balance over the endpoint: it names its sandbox, or the endpoint is, or may be, one of its replicas'. */
export function mayUse({ id, spec }: Service, { network, sandbox, replica }: Endpoint['spec']): boolean {
  if (spec.network !== network) return false;
  if (spec.replicas && (replica === undefined || replica.service === id)) return true;
  return spec.backends.some((backend) => 'sandbox' in backend && backend.sandbox === sandbox);
}
