/** `sluice events`: what changes, as it changes. */
import type { Client } from '../client/client.ts';
import type { ObjectChange, WatchMessage } from '../model/answer.ts';
import type { ContainerDetail } from '../model/container.ts';
import { shortId } from '../model/id.ts';
import { KINDS, type Kind, type Obj, type Status } from '../model/object.ts';
import { command, UsageError } from './command/command.ts';
import { integer, many, one, type Reader, text } from './command/flag.ts';
import { troubles } from './print/listing.ts';
import { clean } from './print/table.ts';

export interface Event {
  readonly revision: number;
  readonly kind: Kind;
  readonly id: string;
  /** Empty for an object that was removed before its name was seen. */
  readonly name: string;
  /** `create`, `update`, `removing`, `remove`, or the state that it has come to. */
  readonly action: string;
  /** Why, for people: error, conditions, who asked. */
  readonly detail: string;
  readonly object?: Obj | null;
  readonly status?: Status | null;
}

/** Tells changes as events; remembers names, since the removal of an object has no name in it. */
export class Teller {
  readonly #seen = new Map<string, { readonly name: string; state?: string }>();

  /** What is there already. Objects written after `revision` are left to the changes to come, which may tell of their creation. */
  learn(objects: readonly Obj[], revision = Number.POSITIVE_INFINITY): void {
    for (const object of objects) {
      if (object.revision <= revision && !this.#seen.has(object.id)) this.#seen.set(object.id, { name: object.name });
    }
  }

  tell(message: Extract<WatchMessage, { type: 'change' }>): Event[] {
    return message.changes.flatMap((change) => {
      const event = 'object' in change ? this.#object(change, message.actor) : this.#status(change);
      return event ? [{ revision: message.revision, kind: change.kind, id: change.id, ...event }] : [];
    });
  }

  #object(
    { id, object }: Extract<ObjectChange, { object: unknown }>,
    actor = '',
  ): Omit<Event, 'revision' | 'kind' | 'id'> {
    const known = this.#seen.get(id);
    if (object === null) {
      this.#seen.delete(id);
      return { name: known?.name ?? '', action: 'remove', detail: actor, object };
    }
    this.#seen.set(id, { name: object.name, state: known?.state });
    const action = object.removing ? 'removing' : known ? 'update' : 'create';
    return { name: object.name, action, detail: actor, object };
  }

  /** A status that only repeats what was told is no event; the end of one goes with its object's. */
  #status({ id, status }: Extract<ObjectChange, { status: unknown }>): Omit<Event, 'revision' | 'kind' | 'id'> | null {
    if (status === null) return null;
    const known = this.#seen.get(id);
    const { error } = status;
    const notes = troubles(status).map(({ type, message }) => `${type}: ${message}`);
    const detail = [...(error ? [`${error.message} (${error.code})`] : []), ...notes].join('; ');
    const { action, why } = lifeOf(status);
    const state = `${action} ${why} ${detail}`;
    if (known?.state === state) return null;
    if (known) known.state = state;
    return { name: known?.name ?? '', action, detail: [why, detail].filter(Boolean).join('; '), status };
  }
}

/** Of a container what its process does, of others the state. */
function lifeOf({ kind, state, detail }: Status): { readonly action: string; readonly why: string } {
  const { phase, exitCode, health } = detail as Partial<ContainerDetail>;
  if (kind !== 'container' || phase === undefined || state === 'error') return { action: state, why: '' };
  const ended = phase === 'exited' || phase === 'restarting';
  return { action: phase, why: ended ? `exit status ${exitCode ?? 'unknown'}` : (health ?? '') };
}

const readKind: Reader<Kind> = (given) => {
  const kind = KINDS.find((known) => known === given);
  if (!kind) throw new UsageError(`"${given}" is not one of ${KINDS.join(', ')}`);
  return kind;
};

async function objectsOf(client: Client): Promise<readonly Obj[]> {
  const { networks, sandboxes, endpoints, services, containers, volumes } = client;
  const lists = [networks, sandboxes, endpoints, services, containers, volumes].map((noun) => noun.list());
  return (await Promise.all<readonly Obj[]>(lists)).flat();
}

export const events = command({
  summary: 'Changes as they happen, until interrupted',
  about:
    'One line an event: time of arrival, kind, action or new state, name, id, and why. After a pause of the daemon it goes on where it was; ' +
    '"relist" says that changes up to a revision are not told one by one.',
  examples: ["sluice events --kind service --format '{{.Name}} {{.Action}}'"],
  flags: {
    kind: many('KIND', readKind, KINDS.join(', '), { absent: 'all' }),
    since: one('REVISION', integer, 'Begin after this revision of the store', { absent: 'now' }),
    format: one('FORMAT', text, 'table, json (an object a line), or a template', { absent: 'table' }),
  },
  args: {},
  async run(context, { kind, since, format = 'table' }) {
    const client = await context.client();
    const { terminal } = context;
    const teller = new Teller();
    const template =
      format === 'table' || format === 'json' ? null : (await import('./print/template.ts')).compile(format);
    const print = (event: Event): void => {
      if (template) terminal.out(`${template(event)}\n`);
      else if (format === 'json') terminal.out(`${JSON.stringify(event)}\n`);
      else {
        const { kind, action, name, id, detail } = event;
        const words = [
          new Date().toISOString(),
          kind,
          action,
          name || '-',
          shortId(id),
          ...(detail ? [clean(detail)] : []),
        ];
        terminal.out(`${words.join(' ')}\n`);
      }
    };
    teller.learn(await objectsOf(client), since);
    for await (const message of client.watch({ ...(kind.length > 0 && { kinds: kind }), from: since })) {
      if (message.type === 'change') for (const event of teller.tell(message)) print(event);
      else {
        teller.learn(await objectsOf(client), message.revision);
        if (format === 'table') terminal.out(`${new Date().toISOString()} relist revision ${message.revision}\n`);
      }
    }
  },
});
