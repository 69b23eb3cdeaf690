/** The links, addresses, routes, neighbours and forwarding entries of one namespace. */
import type {
  BridgeOptions,
  LinkChange,
  MarkRule,
  Netlink,
  VethOptions,
  VxlanOptions,
} from '../../contracts/kernel.ts';
import { ensureAddress, listAddresses, removeAddress } from './addr.ts';
import { ensureFdb, listFdb, removeFdb } from './fdb.ts';
import * as links from './link.ts';
import { ensureNeighbours, listNeighbours, removeNeighbours } from './neigh.ts';
import { setTxChecksum, txChecksum } from './offload.ts';
import { ensureRoute, listRoutes, removeRoute } from './route.ts';
import { ensureRule, listRules, removeRule } from './rule.ts';
import type { NetlinkSocket } from './socket.ts';

export class RouteNetlink implements Netlink {
  readonly #open: () => NetlinkSocket;
  readonly #aside: () => NetlinkSocket;
  readonly #close: () => void;

  /** `open` gives the socket of the moment: it may be closed between two calls, and is then opened anew. `aside`: a new one, the caller's. */
  constructor(open: () => NetlinkSocket, aside: () => NetlinkSocket, close: () => void) {
    this.#open = open;
    this.#aside = aside;
    this.#close = close;
  }

  links = () => links.listLinks(this.#open());
  link = (which: string | number) => links.getLink(this.#open(), which);
  ensureBridge = (name: string, options: BridgeOptions) => links.ensureBridge(this.#open(), name, options);
  ensureVeth = (name: string, options: VethOptions) => links.ensureVeth(this.#open(), name, options);
  ensureVxlan = (name: string, options: VxlanOptions) => links.ensureVxlan(this.#open(), name, options);
  setLink = (link: number, change: LinkChange) => links.setLink(this.#open(), link, change);
  removeLink = (link: number) => links.removeLink(this.#open(), link);
  removeLinks = (doomed: readonly number[]) => links.removeLinks(this.#open(), this.#aside, doomed);
  txChecksum = (link: number) => txChecksum(this.#open(), link);
  setTxChecksum = (link: number, on: boolean) => setTxChecksum(this.#open(), link, on);
  addresses = (link?: number) => listAddresses(this.#open(), link);
  ensureAddress: Netlink['ensureAddress'] = (link, cidr, options) => ensureAddress(this.#open(), link, cidr, options);
  removeAddress = (link: number, cidr: string) => removeAddress(this.#open(), link, cidr);
  routes = (table?: number) => listRoutes(this.#open(), { table });
  ensureRoute: Netlink['ensureRoute'] = (route) => ensureRoute(this.#open(), route);
  removeRoute: Netlink['removeRoute'] = (route) => removeRoute(this.#open(), route);
  rules = () => listRules(this.#open());
  ensureRule = (rule: MarkRule) => ensureRule(this.#open(), rule);
  removeRule = (rule: MarkRule) => removeRule(this.#open(), rule);
  neighbours = (link?: number) => listNeighbours(this.#open(), link);
  ensureNeighbours: Netlink['ensureNeighbours'] = (entries) => ensureNeighbours(this.#open(), entries);
  removeNeighbours: Netlink['removeNeighbours'] = (entries) => removeNeighbours(this.#open(), entries);
  fdb = (link?: number) => listFdb(this.#open(), link);
  ensureFdb: Netlink['ensureFdb'] = (entries) => ensureFdb(this.#open(), entries);
  removeFdb: Netlink['removeFdb'] = (entries) => removeFdb(this.#open(), entries);

  [Symbol.dispose](): void {
    this.#close();
  }
}
