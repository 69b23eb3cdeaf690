/** What the demo leaves behind: nothing. */
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import type { LabHost } from '../../src/lab/lab.ts';

/** What the host's kernel still holds of Sluice, by kind. */
export async function leftBehind(host: LabHost): Promise<Record<string, string[]>> {
  const lines = async (command: string): Promise<string[]> =>
    (await host.exec(command)).stdout.split('\n').filter((line) => line.trim() !== '');
  const folder = (path: string): string[] => {
    try {
      return readdirSync(path, { recursive: true }).map(String);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return [];
      throw error;
    }
  };
  return {
    links: (await lines('ip -o link')).filter((line) => !/^\d+: (?:lo|eth0)[:@]/.test(line)),
    namespaces: folder(join(host.runDir, 'netns')),
    'nft tables': (await lines('nft list tables')).filter((line) => line.includes(host.instance)),
    // Two files are every bpffs's own.
    pins: folder(host.bpffs).filter((name) => !name.endsWith('.debug')),
    mounts: (await lines('cat /proc/self/mountinfo')).filter((line) => line.includes(` ${host.stateDir}/`)),
    cgroups: readdirSync(host.cgroupRoot, { withFileTypes: true })
      .filter((entry) => entry.isDirectory() && !['daemon', 'programs'].includes(entry.name))
      .map(({ name }) => name),
    processes: (await lines(`cat ${host.cgroupRoot}/daemon/cgroup.procs`)).filter(Boolean),
  };
}
