/** What a condition may be: the one list that the code, docs/generated/conditions.md and alerts go by. */

export const CONDITIONS = {
  ForwardBlocked:
    "Somebody else's chain drops what is forwarded (Docker, ufw, firewalld), so that this network reaches neither the outside nor, with `bridge-nf-call-iptables`, itself. The message names family, table and chain, and the rule that lets it through.",
  Repaired:
    'Something of the object was missing or wrong in the kernel (removed by hand, flushed, re-made) and was put right; the message says what, `count` how often. It stays, with its time, so that a cause can be found.',
  UnderlayBlocked:
    "The port on which the hosts exchange an overlay network's frames is closed by somebody else's chain; the message names it and the rule that opens the port.",
  Unencrypted: 'Frames of this overlay network cross the underlay in the clear.',
} as const satisfies Readonly<Record<string, string>>;

export type ConditionType = keyof typeof CONDITIONS;
