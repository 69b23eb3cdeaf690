import { openStage, WAIT_MS } from '../bench/stage.ts';
import { spawn } from 'node:child_process';
const stage = await openStage('prof', { daemon: { env: { SLUICE_TC: process.env.TC ?? '', NODE_OPTIONS: process.env.NO ?? '' } } });
try {
  await stage.client.networks.put('bench', { subnets: [{ cidr: '10.78.0.0/16' }] }, { waitMs: WAIT_MS });
  await stage.client.sandboxes.put('guest', { networks: [] }, { waitMs: WAIT_MS });
  const cyc = async (n: number) => { const s = performance.now(); for (let i = 0; i < n; i++) { await stage.client.sandboxes.connect('guest', { network: 'bench' }, { waitMs: WAIT_MS }); await stage.client.sandboxes.disconnect('guest', 'bench'); } return (performance.now() - s) / n; };
  console.log('warm', await cyc(600));
  const pid = stage.host.daemon.current!.pid!;
  const p = process.argv[2] ? spawn('perf', ['record', '-F', '2000', '-g', '-p', String(pid), '-o', process.argv[2]], { stdio: 'ignore' }) : null;
  if (p) await new Promise((r) => setTimeout(r, 500));
  for (let i=0;i<2;i++) console.log("cycle ms", await cyc(200));
  if (p) { p.kill('SIGINT'); await new Promise((r) => p.once('exit', r)); }
} finally { await stage.close(); }
