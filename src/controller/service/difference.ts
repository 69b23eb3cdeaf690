/** A planned set against what the data plane has of it: pure. */
import type { DataplaneBackend, DataplaneFrontend } from '../../contracts/dataplane.ts';
import type { Difference } from '../../model/diagnosis/diff.ts';
import type { PlannedSet } from './balance.ts';

const at = ({ address, port }: { readonly address: string; readonly port: number }): string =>
  `${address.includes(':') ? `[${address}]` : address}:${port || '*'}`;

/** `10.20.0.9:80/tcp` */
export const frontendText = (planned: Pick<PlannedSet, 'address' | 'port' | 'protocol'>): string =>
  `${at(planned)}${planned.protocol ? `/${planned.protocol}` : ''}`;

export function serviceDifferences(
  planned: PlannedSet,
  set: number | undefined,
  views: readonly number[],
  present: {
    readonly backends: ReadonlyMap<number, readonly DataplaneBackend[]>;
    readonly frontends: readonly DataplaneFrontend[];
  },
): Difference[] {
  const vip = `VIP ${frontendText(planned)}`;
  const held = set === undefined ? undefined : present.backends.get(set);
  if (held === undefined)
    return [{ what: vip, want: 'in the map of frontends', command: 'bpftool map dump name frontends' }];
  const has = (view: number): boolean =>
    present.frontends.some(
      (one) =>
        one.view === view &&
        one.set === set &&
        one.address === planned.address &&
        one.port === planned.port &&
        (planned.port === 0 || one.protocol === planned.protocol),
    );
  const command = 'bpftool map dump name backends';
  const [want, have] = [planned.backends.map(at), held.map(at)];
  return [
    ...views
      .filter((view) => !has(view))
      .map((view) => ({ what: `${vip} in view ${view}`, want: 'there', command: 'bpftool map dump name frontends' })),
    ...want
      .filter((one) => !have.includes(one))
      .map((one) => ({ what: `backend ${one} of ${vip}`, want: 'there', command })),
    ...have
      .filter((one) => !want.includes(one))
      .map((one) => ({ what: `backend ${one} of ${vip}`, have: 'there', command })),
  ];
}
