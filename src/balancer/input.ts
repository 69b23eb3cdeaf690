/** What a call may ask of any form of the data plane. */
import type { DataplaneBackend, DataplaneFrontend } from '../contracts/dataplane.ts';
import { SluiceError } from '../errors.ts';
import { isId } from '../model/id.ts';
import { canonicalAddress, parseAddress } from '../model/ip.ts';

export type FrontendKey = Pick<DataplaneFrontend, 'view' | 'address' | 'port' | 'protocol'>;

/** Names a frontend; port 0 stands for every port and both protocols. */
export const frontendName = ({ view, address, port, protocol }: FrontendKey): string =>
  `${view}/${canonicalAddress(address)}/${port === 0 ? '*' : `${port}/${protocol}`}`;

/** Fails with `request.invalid` on a port without its protocol. */
export function checkFrontend(frontend: FrontendKey): void {
  if (frontend.port !== 0 && !frontend.protocol)
    throw new SluiceError('request.invalid', `frontend ${frontendName(frontend)} has a port but no protocol`, {
      ...frontend,
    });
}

/** 0 is the number of nothing; an address that is none is `request.invalid`. Nothing is written before all are sound. */
export function checkBackends(set: number, backends: readonly DataplaneBackend[]): void {
  for (const { address } of backends) parseAddress(address);
  if (set === 0 || backends.some(({ number }) => number === 0))
    throw new SluiceError('internal', `set ${set}: the number 0 stands for none`, { set });
}

export function checkId(what: string, id: string): void {
  if (!isId(id)) throw new SluiceError('internal', `${what} ${id}: an id has 64 hex digits`, { id });
}
