/** The host driver: the sandbox is the host's own namespace; there is nothing to make. */
import type {
  DriverCapabilities,
  DriverHost,
  DriverNetwork,
  EndpointResult,
  JoinResult,
  NetworkDriver,
  NetworkResult,
} from '../../src/contracts/driver.ts';
import { SluiceError } from '../../src/errors.ts';

export const create = (_host: DriverHost): NetworkDriver => ({
  name: 'host',
  capabilities: (): DriverCapabilities => ({ scope: 'local', addresses: false, overhead: { ipv4: 0, ipv6: 0 } }),
  validate(network: DriverNetwork): void {
    if (network.name !== 'host')
      throw new SluiceError('request.invalid', 'there is one network of the host driver, and it exists: host', {
        network: network.name,
      });
  },
  createNetwork: async (): Promise<NetworkResult> => ({ routed: false }),
  deleteNetwork: async (): Promise<void> => undefined,
  createEndpoint: async (): Promise<EndpointResult> => ({}),
  join: async (): Promise<JoinResult> => ({
    ifprefix: '',
    gateways: [],
    routes: [],
    neighbours: [],
    hostNamespace: true,
  }),
  leave: async (): Promise<void> => undefined,
  deleteEndpoint: async (): Promise<void> => undefined,
});
