// What the tests share. They use the package as it is installed.

import { execFileSync, spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { once } from 'node:events';

export const SOON = 60_000;

/** A fresh repository, which goes when the test is over. */
export function repository(test) {
  const folder = mkdtempSync(join(tmpdir(), 'gitlock-node-'));
  // gitlock tidies up a while after a change, and may put a file there meanwhile.
  test.after(async () => {
    for (let round = 0; round < 100; round++) {
      try {
        return rmSync(folder, { recursive: true, force: true });
      } catch (error) {
        if (error.code !== 'ENOTEMPTY') throw error;
        await sleep(20);
      }
    }
  });
  execFileSync('git', ['init', '-q', '-b', 'main', folder]);
  return folder;
}

export const git = (folder, ...words) => execFileSync('git', words, { cwd: folder, encoding: 'utf8' }).trim();

export const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** Waits until something holds. */
export async function until(holds) {
  const end = performance.now() + SOON;
  while (!(await holds())) {
    if (performance.now() > end) throw new Error(`in vain: ${holds}`);
    await sleep(5);
  }
}

export const queued = (locks, name, count) => until(async () => (await locks.status(name)).queue.length === count);

/** Runs a module in a process of its own. Resolves with its exit code and what it said. */
export async function run(source, ...words) {
  const child = spawn(process.execPath, ['--input-type=module', '--eval', source, ...words], {
    cwd: import.meta.dirname,
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  let out = '';
  child.stdout.setEncoding('utf8').on('data', (text) => (out += text));
  const [code, signal] = await once(child, 'close');
  return { code: code ?? signal, out: out.trim() };
}
