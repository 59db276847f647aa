// A migration that no process can run that has lost its lock without noticing: the database itself refuses a token lower
// than one it has seen. `node migrate.mjs FOLDER DATABASE`, where the "database" is a file.

import { readFileSync, renameSync, writeFileSync } from 'node:fs';

import { LockManager } from 'gitlock';

const [, , cwd, file] = process.argv;

/** What a database would do in one transaction: `UPDATE … WHERE token <= $1`. */
function migrate(token) {
  let database = { token: 0, version: 0 };
  try {
    database = JSON.parse(readFileSync(file, 'utf8'));
  } catch (error) {
    if (error.code !== 'ENOENT') throw error;
  }
  if (token < database.token) throw new Error(`the token ${token} is stale: ${database.token} was here`);
  writeFileSync(`${file}.new`, JSON.stringify({ token, version: database.version + 1 }));
  renameSync(`${file}.new`, file);
  return database.version + 1;
}

const locks = await LockManager.open({ cwd });
await locks.with('migrate', { reason: 'schema' }, (lock) => {
  console.log(`at version ${migrate(lock.token)}`);
});
