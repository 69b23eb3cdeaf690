/**
 * Run inside a namespace by node-netlink.test.ts: dumps the links through the npm package node-netlink and prints them as JSON. The
 * package hands raw payloads out; they are read here by other code than ours.
 */
interface Packet {
  readonly header: { readonly nlmsg_type: bigint };
  readonly payload: Buffer;
}
interface Client {
  talk(message: { header: { nlmsg_type: bigint; nlmsg_flags: bigint }; payload: Buffer }): Promise<Packet[]>;
  close(): Promise<void>;
}
interface Module {
  readonly default: {
    open(options: { family: number }): Promise<Client>;
    readonly NLM_F_REQUEST: bigint;
    readonly NLM_F_ACK: bigint;
    readonly NLM_F_DUMP: bigint;
  };
}

const name = 'node-netlink';
const { default: netlink } = (await import(name)) as Module;
const client = await netlink.open({ family: 0 });
const packets = await client.talk({
  header: { nlmsg_type: 18n, nlmsg_flags: netlink.NLM_F_REQUEST | netlink.NLM_F_ACK | netlink.NLM_F_DUMP },
  payload: Buffer.alloc(16),
});
const links = packets
  .filter(({ header }) => header.nlmsg_type === 16n)
  .map(({ payload }) => {
    const link = { ifindex: payload.readInt32LE(4), name: '', mtu: 0, mac: '' };
    for (let at = 16; at + 4 <= payload.length; ) {
      const [length, type] = [payload.readUInt16LE(at), payload.readUInt16LE(at + 2)];
      const value = payload.subarray(at + 4, at + length);
      if (type === 3) link.name = value.toString('latin1').replace(/\0$/, '');
      if (type === 4) link.mtu = value.readUInt32LE();
      if (type === 1) link.mac = value.toString('hex').replace(/..(?=.)/g, '$&:');
      at += (length + 3) & ~3;
    }
    return link;
  });
process.stdout.write(JSON.stringify(links));
await client.close();
process.exit(0);
