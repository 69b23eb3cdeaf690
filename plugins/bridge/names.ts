/** Names and options of the bridge driver: pure. */
import type { DriverNetwork } from '../../src/contracts/driver.ts';
import { SluiceError } from '../../src/errors.ts';
import { bridgeOf } from '../../src/model/mark.ts';

/** IFNAMSIZ less the closing zero. */
const IFNAME_LENGTH_MAX = 15;

export interface BridgeSettings {
  /** `-o bridge.name=br0`: name of the bridge on the host. */
  readonly ifname?: string;
  /** `-o icc=false`: endpoints of the network cannot reach each other. */
  readonly icc: boolean;
}

/** Options that this driver knows, with what they accept; `masquerade` and `spoof` are acted on by the core. */
const KNOWN: Readonly<Record<string, (value: string) => boolean>> = {
  'bridge.name': (value) => /^[^\s/:]{1,15}$/.test(value) && value.length <= IFNAME_LENGTH_MAX,
  icc: (value) => value === 'true' || value === 'false',
  masquerade: (value) => value === 'true' || value === 'false',
  spoof: (value) => value === 'allow' || value === 'deny',
};

export function parseOptions(options: Readonly<Record<string, string>>): BridgeSettings {
  for (const [key, value] of Object.entries(options)) {
    const accepts = KNOWN[key];
    if (!accepts) {
      throw new SluiceError(
        'request.invalid',
        `bridge driver: unknown option ${key} (known: ${Object.keys(KNOWN).join(', ')})`,
        { option: key },
      );
    }
    if (!accepts(value))
      throw new SluiceError('request.invalid', `bridge driver: option ${key} cannot be "${value}"`, {
        option: key,
        value,
      });
  }
  return { ifname: options['bridge.name'], icc: options.icc !== 'false' };
}

export const bridgeName = (network: DriverNetwork): string =>
  parseOptions(network.options).ifname ?? bridgeOf(network.id);
