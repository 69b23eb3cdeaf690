/** A network card that spoils inner checksums, on the uplink of a lab's host, and what its devices leave to hardware. */
import { execFile } from 'node:child_process';
import { arch } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import type { Kernel } from '../../src/contracts/kernel.ts';
import { BpfObject } from '../../src/kernel/bpf/object.ts';
import { type TcHook, tcAttach, tcDetach } from '../../src/kernel/bpf/tc.ts';
import { createKernel } from '../../src/kernel/kernel.ts';
import { projectRoot } from '../../src/lab/daemon.ts';
import type { LabHost } from '../../src/lab/lab.ts';

export class Card {
  readonly #kernel: Kernel;
  readonly #object: BpfObject;
  readonly #hook: TcHook;

  private constructor(kernel: Kernel, object: BpfObject) {
    const { ifindex } = kernel.host.netlink.link('eth0')!;
    [this.#kernel, this.#object, this.#hook] = [kernel, object, { ifindex, direction: 'egress', priority: 1 }];
  }

  static async of(host: LabHost): Promise<Card> {
    const path = join(host.runDir, 'card.o');
    const include = `-I/usr/include/${arch() === 'arm64' ? 'aarch64' : 'x86_64'}-linux-gnu`;
    const source = join(projectRoot(), 'test/e2e/card.bpf.c');
    const flags = ['-O2', '-g', '-target', 'bpf', '-mcpu=v3', '-Wall', '-Werror', include];
    await promisify(execFile)('clang', [...flags, '-c', source, '-o', path]);
    const object = new BpfObject(path);
    object.load(new Map());
    return new Card(createKernel({ host: host.netnsPath }), object);
  }

  spoil(): void {
    this.#kernel.host.run(() => tcAttach(this.#hook, this.#object.programs().get('card')!));
  }

  mend(): void {
    this.#kernel.host.run(() => tcDetach(this.#hook));
  }

  /** VXLAN devices by name: whether they leave checksums to hardware. */
  offload(): Record<string, boolean> {
    const { netlink } = this.#kernel.host;
    const devices = netlink.links().filter(({ vxlan }) => vxlan);
    return Object.fromEntries(devices.map(({ name, ifindex }) => [name, netlink.txChecksum(ifindex)]));
  }

  switchOn(name: string): void {
    const { netlink } = this.#kernel.host;
    netlink.setTxChecksum(netlink.link(name)!.ifindex, true);
  }

  close(): void {
    this.#object.close();
    this.#kernel[Symbol.dispose]();
  }
}
