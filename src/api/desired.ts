/** What the API needs of the desired state; src/desired is it. */
import type { Endpoint } from '../model/endpoint.ts';
import type { Network } from '../model/network.ts';
import type { Obj } from '../model/object.ts';
import type {
  AttachmentRequest,
  BackendRequest,
  NetworkRequest,
  SandboxRequest,
  ServiceRequest,
  View,
} from '../model/request.ts';
import type { Sandbox } from '../model/sandbox.ts';
import type { Service } from '../model/service.ts';

export interface WriteOptions {
  /** Who asks, for the change log. */
  readonly actor?: string;
}
export interface PutOptions extends WriteOptions {
  /** Fails with `object.exists` instead of changing one that is there. */
  readonly create?: boolean;
}
export interface Put<O> {
  readonly object: O;
  /** False: it was there, changed or not. */
  readonly created: boolean;
}

/** `ref`: a name, an id or the beginning of one; none fits: `object.notfound`, several: `object.ambiguous`. */
export interface DesiredState {
  readonly networks: {
    put(name: string, request: NetworkRequest, options: PutOptions): Promise<Put<Network>>;
    get(ref: string): Promise<Network>;
    list(): Promise<readonly Network[]>;
    remove(ref: string, options: WriteOptions): Promise<Network>;
    /** Marks every network without endpoints and services for removal. */
    prune(options: WriteOptions): Promise<readonly Network[]>;
  };
  readonly sandboxes: {
    put(name: string, request: SandboxRequest, options: PutOptions): Promise<Put<Sandbox>>;
    get(ref: string): Promise<Sandbox>;
    list(): Promise<readonly Sandbox[]>;
    remove(ref: string, options: WriteOptions & { readonly force?: boolean }): Promise<Sandbox>;
  };
  readonly endpoints: {
    connect(sandbox: string, request: AttachmentRequest, options: WriteOptions): Promise<Put<Endpoint>>;
    disconnect(sandbox: string, network: string, options: WriteOptions): Promise<Endpoint>;
    get(ref: string): Promise<Endpoint>;
    list(): Promise<readonly Endpoint[]>;
  };
  readonly services: {
    put(name: string, request: ServiceRequest, options: PutOptions): Promise<Put<Service>>;
    update(
      ref: string,
      change: { readonly addBackends?: readonly BackendRequest[]; readonly removeBackends?: readonly BackendRequest[] },
      options: WriteOptions,
    ): Promise<Service>;
    get(ref: string): Promise<Service>;
    list(): Promise<readonly Service[]>;
    remove(ref: string, options: WriteOptions): Promise<Service>;
  };
  readonly statuses: {
    view<O extends Obj>(object: O): Promise<View<O>>;
  };
}
