/** Names and options of the overlay driver: pure. */
import type { DriverNetwork } from '../../src/contracts/driver.ts';
import type { VxlanDf } from '../../src/contracts/kernel.ts';
import { SluiceError } from '../../src/errors.ts';
import { bridgeOf } from '../../src/model/mark.ts';

export interface OverlaySettings {
  /** `-o icc=false`: endpoints of the network on one host cannot reach each other. */
  readonly icc: boolean;
  /** `-o vxlan.df=set`: don't-fragment bit of the outer packet. */
  readonly df: VxlanDf;
}

const DF: readonly string[] = ['unset', 'set', 'inherit'] satisfies VxlanDf[];
const isBoolean = (value: string): boolean => value === 'true' || value === 'false';

/** Options that this driver knows, with what they accept; `masquerade`, `shortcut` and `spoof` are acted on by the core. */
const KNOWN: Readonly<Record<string, (value: string) => boolean>> = {
  'vxlan.df': (value) => DF.includes(value),
  icc: isBoolean,
  masquerade: isBoolean,
  shortcut: isBoolean,
  spoof: (value) => value === 'allow' || value === 'deny',
};

export function parseOptions(options: Readonly<Record<string, string>>): OverlaySettings {
  for (const [key, value] of Object.entries(options)) {
    const accepts = KNOWN[key];
    if (!accepts)
      throw new SluiceError(
        'request.invalid',
        `overlay driver: unknown option ${key} (known: ${Object.keys(KNOWN).join(', ')})`,
        { option: key },
      );
    if (!accepts(value))
      throw new SluiceError('request.invalid', `overlay driver: option ${key} cannot be "${value}"`, {
        option: key,
        value,
      });
  }
  return { icc: options.icc !== 'false', df: (options['vxlan.df'] ?? 'unset') as VxlanDf };
}

export const bridgeName = ({ id }: Pick<DriverNetwork, 'id'>): string => bridgeOf(id);
export const vxlanName = ({ id }: Pick<DriverNetwork, 'id'>): string => `sx${id.slice(0, 12)}`;
