/** What every runtime does for what is above it. The process of a container runs until it is told to end. */
import { describe, expect, test } from 'vitest';
import type { ContainerPlan, ContainerState, Runtime } from '../../src/contracts/runtime.ts';

export interface RuntimeUnderTest {
  readonly runtime: Runtime;
  /** Of a program that runs until it gets a signal, its first generation unless it says otherwise. */
  plan(change?: { readonly id?: string; readonly generation?: number }): ContainerPlan;
  close(): Promise<void>;
}

const LIMIT_MS = 5_000;
const NONE = 'f'.repeat(64);
const EXEC = { args: ['true'], env: [], tty: false, privileged: false, stdin: false };

async function codeOf(work: Promise<unknown>): Promise<string> {
  try {
    await work;
    return 'it went well';
  } catch (error) {
    return (error as { code?: string }).code ?? String(error);
  }
}

async function until<T>(look: () => Promise<T | null | undefined | false>): Promise<T> {
  const end = performance.now() + LIMIT_MS;
  for (;;) {
    const found = await look();
    if (found) return found;
    if (performance.now() > end) throw new Error(`not within ${LIMIT_MS} ms`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

const exited = (runtime: Runtime, id: string): Promise<ContainerState> =>
  until(async () => {
    const state = await runtime.state(id);
    return state?.state === 'exited' ? state : null;
  });

async function started({ runtime, plan }: RuntimeUnderTest): Promise<ContainerPlan> {
  const made = plan();
  await runtime.create(made);
  await runtime.start(made.id);
  return made;
}

export const RUNTIME_CASES: Readonly<Record<string, (under: RuntimeUnderTest) => Promise<void>>> = {
  async 'created, then running with a process, then exited with its status and times'(under) {
    const { runtime } = under;
    const plan = under.plan();
    expect(await runtime.create(plan)).toMatchObject({ id: plan.id, state: 'created', generation: 1 });
    expect(await runtime.state(plan.id)).toMatchObject({ state: 'created' });
    const state = await runtime.start(plan.id);
    expect(state).toMatchObject({ state: 'running', pid: expect.any(Number), startedAt: expect.any(String) });
    await runtime.kill(plan.id, 'SIGKILL');
    const end = await exited(runtime, plan.id);
    expect(end).toMatchObject({ exitCode: 137, generation: 1, startedAt: state.startedAt });
    expect(Date.parse(end.exitedAt!)).toBeGreaterThanOrEqual(Date.parse(state.startedAt!) - 1_000);
    expect(end.pid).toBeUndefined();
  },
  async 'an exit is told once, and again to who asks later'(under) {
    const { runtime } = under;
    const told: ContainerState[] = [];
    runtime.onExit((state) => told.push(state));
    const { id } = await started(under);
    expect(told).toEqual([]);
    await runtime.kill(id, 'SIGKILL');
    await until(async () => told.length > 0);
    await new Promise((resolve) => setTimeout(resolve, 100));
    expect(told).toEqual([await runtime.state(id)]);
    const later: ContainerState[] = [];
    runtime.onExit((state) => later.push(state));
    expect(later).toEqual(told);
  },
  async 'a later generation replaces what an earlier one left'(under) {
    const { runtime } = under;
    const { id } = await started(under);
    const second = under.plan({ id, generation: 2 });
    expect(await runtime.create(second)).toMatchObject({ id, state: 'created', generation: 2 });
    expect(await runtime.list()).toHaveLength(1);
    expect(await runtime.start(id)).toMatchObject({ state: 'running', generation: 2 });
  },
  async 'starting what runs changes nothing'(under) {
    const { id } = await started(under);
    const before = await under.runtime.state(id);
    expect(await under.runtime.start(id)).toEqual(before);
  },
  async 'deleted it is unknown, whatever it did; deleting the absent succeeds'(under) {
    const { runtime } = under;
    const { id } = await started(under);
    await runtime.delete(id);
    expect(await runtime.state(id)).toBeNull();
    expect(await runtime.list()).toEqual([]);
    await runtime.delete(id);
    await runtime.delete(NONE);
  },
  async 'the dead can be killed, the unknown cannot'(under) {
    const { runtime } = under;
    const { id } = await started(under);
    await runtime.kill(id, 'SIGKILL');
    await exited(runtime, id);
    await runtime.kill(id, 'SIGKILL');
    for (const work of [
      () => runtime.kill(NONE, 'SIGKILL'),
      () => runtime.start(NONE),
      () => runtime.exec(NONE, EXEC),
      () => runtime.attach(NONE),
    ])
      expect(await codeOf(work())).toBe('object.notfound');
  },
  async 'a command inside ends with its status'(under) {
    const { id } = await started(under);
    const process = await under.runtime.exec(id, EXEC);
    expect(await process.exit).toBe(0);
    for await (const _ of process.output) throw new Error('it said something');
  },
  async 'an attached stream ends with the process'(under) {
    const { runtime } = under;
    const { id } = await started(under);
    const streams = await runtime.attach(id);
    const end = (async () => {
      for await (const _ of streams.output);
      return true;
    })();
    await runtime.kill(id, 'SIGKILL');
    const late = new Promise((resolve) => setTimeout(resolve, LIMIT_MS, 'it goes on'));
    expect(await Promise.race([end, late])).toBe(true);
  },
  async 'what it uses, and its processes'(under) {
    const { id } = await started(under);
    const stats = await under.runtime.stats(id);
    expect(stats.memoryBytes).toBeGreaterThan(0);
    expect(stats.pids).toBeGreaterThanOrEqual(1);
    expect((await under.runtime.processes(id)).length).toBeGreaterThanOrEqual(1);
  },
};

export function runtimeConformance(name: string, open: () => Promise<RuntimeUnderTest>): void {
  describe(`runtime contract: ${name}`, () => {
    test.each(Object.entries(RUNTIME_CASES))('%s', async (_title, run) => {
      const under = await open();
      try {
        await run(under);
      } finally {
        await under.close();
      }
    });
  });
}
