/** The links, addresses, routes, neighbours and forwarding entries of one namespace. */
import type { BridgeOptions, LinkChange, Netlink, VethOptions, VxlanOptions } from '../contracts/kernel.ts';
import { ensureAddress, listAddresses, removeAddress } from './addr.ts';
import * as links from './link.ts';
import { ensureFdb, ensureNeighbours, listFdb, listNeighbours, removeFdb, removeNeighbours } from './neigh.ts';
import { ensureRoute, listRoutes, removeRoute } from './route.ts';
import type { NetlinkSocket } from './socket.ts';

export class RouteNetlink implements Netlink {
  readonly #socket: NetlinkSocket;

  constructor(socket: NetlinkSocket) {
    this.#socket = socket;
  }

  links = () => links.listLinks(this.#socket);
  link = (which: string | number) => links.getLink(this.#socket, which);
  ensureBridge = (name: string, options: BridgeOptions) => links.ensureBridge(this.#socket, name, options);
  ensureVeth = (name: string, options: VethOptions) => links.ensureVeth(this.#socket, name, options);
  ensureVxlan = (name: string, options: VxlanOptions) => links.ensureVxlan(this.#socket, name, options);
  setLink = (link: number, change: LinkChange) => links.setLink(this.#socket, link, change);
  removeLink = (link: number) => links.removeLink(this.#socket, link);
  removeGroup = (group: number) => links.removeGroup(this.#socket, group);
  addresses = (link?: number) => listAddresses(this.#socket, link);
  ensureAddress = (link: number, cidr: string, options: { readonly nodad?: boolean } = {}) =>
    ensureAddress(this.#socket, link, cidr, options.nodad);
  removeAddress = (link: number, cidr: string) => removeAddress(this.#socket, link, cidr);
  routes = () => listRoutes(this.#socket);
  ensureRoute: Netlink['ensureRoute'] = (route) => ensureRoute(this.#socket, route);
  removeRoute: Netlink['removeRoute'] = (route) => removeRoute(this.#socket, route);
  neighbours = (link?: number) => listNeighbours(this.#socket, link);
  ensureNeighbours: Netlink['ensureNeighbours'] = (entries) => ensureNeighbours(this.#socket, entries);
  removeNeighbours: Netlink['removeNeighbours'] = (entries) => removeNeighbours(this.#socket, entries);
  fdb = (link?: number) => listFdb(this.#socket, link);
  ensureFdb: Netlink['ensureFdb'] = (entries) => ensureFdb(this.#socket, entries);
  removeFdb: Netlink['removeFdb'] = (entries) => removeFdb(this.#socket, entries);

  [Symbol.dispose](): void {
    this.#socket[Symbol.dispose]();
  }
}
