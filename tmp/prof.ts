import { openStage, WAIT_MS } from '../bench/stage.ts';
import { spawn, execSync } from 'node:child_process';
const stage = await openStage('prof', { daemon: { env: { SLUICE_TC: process.env.TC ?? '' } } });
try {
  await stage.client.networks.put('bench', { subnets: [{ cidr: '10.78.0.0/16' }] }, { waitMs: WAIT_MS });
  await stage.client.sandboxes.put('guest', { networks: [] }, { waitMs: WAIT_MS });
  for (let i = 0; i < 5; i++) { await stage.client.sandboxes.put('w' + i, { networks: [{ network: 'bench' }] }, { waitMs: WAIT_MS }); }
  const pid = stage.host.daemon.current!.pid!;
  const tracer = process.argv[2] ? spawn('strace', ['-f', '-T', '-ttt', '-o', process.argv[2], '-p', String(pid)], { stdio: 'inherit' }) : null;
  if (tracer) await new Promise((r) => setTimeout(r, 800));
  const times: number[] = [];
  for (let i = 0; i < 20; i++) { const s = performance.now(); await stage.client.sandboxes.put('m' + i, { networks: [{ network: 'bench' }] }, { waitMs: WAIT_MS }); times.push(performance.now() - s); }
  console.log('create', times.map((t) => t.toFixed(0)).join(' '));
  const ct: number[] = [], dt: number[] = [];
  for (let i = 0; i < 20; i++) { let s = performance.now(); await stage.client.sandboxes.connect('guest', { network: 'bench' }, { waitMs: WAIT_MS }); ct.push(performance.now() - s); s = performance.now(); await stage.client.sandboxes.disconnect('guest', 'bench'); dt.push(performance.now() - s); }
  console.log('connect', ct.map((t) => t.toFixed(0)).join(' ')); console.log('disconnect', dt.map((t) => t.toFixed(0)).join(' '));
  if (tracer) { tracer.kill('SIGINT'); await new Promise((r) => tracer.once('exit', r)); }
} finally { await stage.close(); }
