/** The demo's first container: an image that is not here is pulled from a registry of the host's own, created, and runs. */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { busyboxArchive } from '../../src/lab/busybox.ts';
import type { LabHost } from '../../src/lab/lab.ts';
import type { Typed } from './actor.ts';
import type { Stage } from './stage.ts';

const REGISTRY = '127.0.0.1:5000';
const WORDS = 'Hello from Sluice: this image was not here, was pulled, became a container, and ran.';

/** Resolves to the image's name; it stays on the host. */
export async function hello(stage: Stage, host: LabHost, sluice: Typed): Promise<string> {
  const archive = join(host.runDir, 'busybox.tar');
  writeFileSync(archive, await busyboxArchive());
  const config = join(host.runDir, 'registry.json');
  const storage = { filesystem: { rootdirectory: join(host.runDir, 'registry') } };
  const http = { addr: REGISTRY, secret: 'demo' };
  writeFileSync(config, JSON.stringify({ version: '0.1', log: { level: 'error' }, storage, http }));
  stage.typed(`docker-registry serve ${REGISTRY} &`, '');
  const registry = host.spawn(['docker-registry', 'serve', config]);
  const name = `${REGISTRY}/busybox`;
  await sluice('load', '-i', archive);
  await sluice('image', 'tag', 'busybox', name);
  await host.must(`for n in $(seq 100); do busybox wget -qO- http://${REGISTRY}/v2/ && exit; sleep 0.1; done; exit 1`);
  await sluice('push', '--quiet', name);
  await sluice('rmi', name, 'busybox');
  const command = ['run', '--name', 'hello', '--network', 'none', name, 'echo', WORDS];
  const { code, stdout, stderr } = await host.sluice(command);
  stage.typed(`sluice run --name hello --network none ${name} echo '…'`, `${stderr}${stdout}`);
  stage.promise(stderr.includes(`image ${name} is not here`), 'the image was not here, and the command said so');
  stage.promise(stderr.includes(`pulled ${name}`), 'it was pulled from the registry');
  const ps = await sluice('ps', '--all');
  stage.promise(/hello/.test(ps) && /Exited \(0\)/.test(ps), 'a container was created from it');
  stage.promise(code === 0 && stdout.trim() === WORDS, 'and ran, its output and its exit status are ours');
  const log = await sluice('logs', 'hello');
  stage.promise(log.trim() === WORDS, 'its log is kept until it goes');
  await sluice('rm', 'hello');
  await registry.stop();
  return name;
}
