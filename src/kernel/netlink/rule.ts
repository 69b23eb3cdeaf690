/** Routing rules by mark over rtnetlink. By hand: `ip rule`, `ip -6 rule`. */
import type { MarkRule } from '../../contracts/kernel.ts';
import { attr, attrs, NLM_F, u32 } from './message.ts';
import type { NetlinkSocket } from './socket.ts';

const RTM_NEWRULE = 32;
const RTM_DELRULE = 33;
const RTM_GETRULE = 34;
/** linux/fib_rules.h */
const FRA = { PRIORITY: 6, FWMARK: 10, TABLE: 15, FWMASK: 16 } as const;
const FR_ACT_TO_TBL = 1;
const AF_INET = 2;
const AF_INET6 = 10;
/** ENOENT: no such rule; EAFNOSUPPORT: a host without IPv6. */
const ABSENT = [2, 97];

/** struct fib_rule_hdr */
function header(family: 4 | 6, action = 0): Buffer {
  const out = Buffer.alloc(12);
  out[0] = family === 4 ? AF_INET : AF_INET6;
  out[7] = action;
  return out;
}

const payload = ({ family, mark, mask, table, priority }: MarkRule): Buffer =>
  Buffer.concat([
    header(family, FR_ACT_TO_TBL),
    attr(FRA.PRIORITY, u32(priority)),
    attr(FRA.FWMARK, u32(mark)),
    attr(FRA.FWMASK, u32(mask)),
    attr(FRA.TABLE, u32(table)),
  ]);

/** Rules that go by a mark alone are told, all others passed over. */
export const listRules = (socket: NetlinkSocket): MarkRule[] =>
  ([4, 6] as const).flatMap((family) =>
    socket.dump({ type: RTM_GETRULE, flags: 0, payload: header(family), what: 'list rules' }, ({ data }) => {
      const found = attrs(data, 12);
      const mark = found.get(FRA.FWMARK)?.readUInt32LE() ?? 0;
      if (mark === 0 || data[7] !== FR_ACT_TO_TBL) return undefined;
      return {
        family,
        mark,
        mask: found.get(FRA.FWMASK)?.readUInt32LE() ?? 0xffff_ffff,
        table: found.get(FRA.TABLE)?.readUInt32LE() ?? data[4]!,
        priority: found.get(FRA.PRIORITY)?.readUInt32LE() ?? 0,
      };
    }),
  );

const same = (a: MarkRule, b: MarkRule): boolean =>
  (['family', 'mark', 'mask', 'table', 'priority'] as const).every((key) => a[key] === b[key]);

/** The kernel would take an equal rule twice. */
export function ensureRule(socket: NetlinkSocket, rule: MarkRule): boolean {
  if (listRules(socket).some((there) => same(there, rule))) return false;
  const what = `add rule fwmark ${rule.mark} table ${rule.table}`;
  socket.change({ type: RTM_NEWRULE, flags: NLM_F.CREATE | NLM_F.EXCL, payload: payload(rule), what });
  return true;
}

export const removeRule = (socket: NetlinkSocket, rule: MarkRule): void =>
  socket.remove(
    {
      type: RTM_DELRULE,
      flags: 0,
      payload: payload(rule),
      what: `delete rule fwmark ${rule.mark} table ${rule.table}`,
    },
    ABSENT,
  );
