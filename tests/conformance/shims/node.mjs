// The shim of the Node surface: `node.mjs PACKAGE`, with the folder that gitlock is installed in.
//
// tests/conformance/README.md says what is asked and answered.

import { writeSync } from 'node:fs';
import { createRequire } from 'node:module';
import { createInterface } from 'node:readline';

const gitlock = createRequire(import.meta.url)(process.argv[2]);

const OPERATIONS =
  'open close acquire try start cancel look extend release upgrade start-upgrade downgrade token-of wanted heed watch ' +
  'handle detach handle-of resume extend-handle release-handle update-refs push verify status list graph log break clean doctor sync ' +
  'everywhere quorum let-go';

const NUMBERS = ['ttl', 'wait', 'priority', 'slots'];
const decode = (value) => value.replace(/%([0-9A-F]{2})/gi, (_, hex) => String.fromCharCode(parseInt(hex, 16)));
const encode = (value) =>
  String(value).replaceAll('%', '%25').replaceAll('\t', '%09').replaceAll('\n', '%0A').replaceAll('\r', '%0D');

function say(verb, fields) {
  let line = Buffer.from([verb, ...Object.entries(fields).map(([key, value]) => `${key}=${encode(value)}`)].join('\t') + '\n');
  // In one piece, and at once: the process may be killed.
  while (line.length > 0) {
    try {
      line = line.subarray(writeSync(1, line));
    } catch (error) {
      if (error.code !== 'EAGAIN') throw error;
    }
  }
}

function told(error) {
  if (!(error instanceof gitlock.LockError)) throw error;
  if (!(error instanceof gitlock[error.name])) throw new TypeError(`${error.name} is no ${error.name}`);
  const { code, message, retry, holder } = error;
  return { class: `gitlock.${error.name}`, error: JSON.stringify({ code, message, retry, holder }) };
}

function described(lock) {
  const { id, token, mode, slot } = lock;
  return slot === null ? { id, token, mode } : { id, token, mode, slot };
}

let locks;
/** Who acquires, unless somebody else is named: one for the process. */
let session;
const held = new Map();
const waits = new Map();
const number = (fields, key) => (key in fields ? Number(fields[key]) : undefined);

/** The names and the options of what is to be acquired. */
function asked(fields, more) {
  const options = { ...more };
  for (const key of ['fingerprint', 'reason', 'owner', 'within']) if (key in fields) options[key] = fields[key];
  for (const key of NUMBERS) if (key in fields) options[key] = Number(fields[key]);
  if ('max_hold' in fields) options.maxHold = number(fields, 'max_hold');
  if ('renew' in fields) options.renew = fields.renew === 'yes';
  if ('shared' in fields) options.shared = true;
  if ('reentrant' in fields) options.reentrant = true;
  return [[fields.name, ...(fields.also?.split(',') ?? [])], options];
}

async function take(fields, more) {
  const [names, options] = asked(fields, more);
  const who = 'owner' in fields || 'within' in fields ? locks : session;
  return keep(fields, await (names.length === 1 ? who.acquire(names[0], options) : who.acquireAll(names, options)));
}

async function takeSeveral(verb, fields) {
  const places = fields.places.split(',').map((cwd) => gitlock.LockManager.open({ cwd }));
  const repositories = new gitlock.Repositories(await Promise.all(places));
  const [names, options] = asked(fields);
  const lock = await (verb === 'quorum' ? repositories.quorum(names[0], options) : repositories.all(names, options));
  held.set(fields.as ?? fields.name, lock);
  return { token: lock.token };
}

function keep(fields, lock) {
  held.set(fields.as ?? lock.name, lock);
  return described(lock);
}

/** Waits in the background, and tells when that is over. */
async function start(about, wait) {
  const controller = new AbortController();
  waits.set(about, controller);
  const ended = await wait(controller.signal).catch(told);
  say('event', { kind: 'ended', about, ...ended });
}

function startAcquire(fields) {
  const about = fields.wait_as;
  const onWait = (ahead) => say('event', { kind: 'waiting', about, ahead });
  start(about, (signal) => take({ ...fields, as: about }, { signal, onWait }));
}

function startUpgrade(lock, fields) {
  start(fields.wait_as, (signal) => lock.upgrade({ wait: number(fields, 'wait'), signal }).then(() => described(lock)));
}

async function answer(verb, fields) {
  const lock = held.get(fields.guard);
  const json = (value) => ({ json: JSON.stringify(value) });
  const { name } = fields;
  switch (verb) {
    case 'supports':
      return { operations: OPERATIONS };
    case 'open': {
      const options = { cwd: fields.path, lockPrefix: fields.prefix, owner: fields.owner, keep: number(fields, 'keep') };
      options.remote = fields.remote;
      options.lockTimeout = number(fields, 'lock_timeout');
      options.maxClockSkew = number(fields, 'max_clock_skew');
      locks = await gitlock.LockManager.open(options);
      session = options.owner === undefined ? locks.session() : locks;
      return {};
    }
    case 'close':
      await locks.close();
      return {};
    case 'acquire':
      return take(fields);
    case 'try':
      // As tryAcquire(), which has `null` for an answer instead of an error.
      return take({ ...fields, wait: 0 });
    case 'start':
      startAcquire(fields);
      return {};
    case 'cancel':
      waits.get(fields.wait_as).abort();
      return {};
    case 'look':
      return { ...described(lock), lost: lock.isLost, remaining: Math.floor(lock.remaining()) };
    case 'extend':
      await lock.extend(number(fields, 'ttl'));
      return {};
    case 'everywhere':
    case 'quorum':
      return takeSeveral(verb, fields);
    case 'release':
    case 'let-go':
      await lock.release();
      return {};
    case 'upgrade':
      await lock.upgrade({ wait: number(fields, 'wait') });
      return {};
    case 'start-upgrade':
      startUpgrade(lock, fields);
      return {};
    case 'downgrade':
      await lock.downgrade();
      return {};
    case 'token-of': {
      const token = lock.tokens[name];
      return token === undefined ? {} : { token };
    }
    case 'wanted':
      return json(await lock.wanted());
    case 'heed':
      lock.on('wanted', (wanted) => say('event', { kind: 'wanted', about: fields.guard, ...wanted }));
      return {};
    case 'watch':
      lock.on('lost', (error) => say('event', { kind: 'lost', about: fields.guard, ...told(error) }));
      return {};
    case 'handle':
      return { handle: lock.handle() };
    case 'detach':
      return { handle: lock.detach() };
    case 'handle-of':
      return { handle: gitlock.LockHandle.byFingerprint(name, fields.fingerprint) };
    case 'resume':
      return keep(fields, await locks.resume(fields.handle));
    case 'extend-handle':
      return { remaining: Math.floor(await locks.extend(fields.handle, number(fields, 'ttl'))) };
    case 'release-handle':
      await locks.release(fields.handle);
      return {};
    case 'update-refs':
      await lock.updateRefs(['change', 'also'].filter((key) => key in fields).map((key) => fields[key]), {
        message: fields.message,
      });
      return {};
    case 'push':
      await lock.push(...['refspec', 'also'].filter((key) => key in fields).map((key) => fields[key]));
      return {};
    case 'verify':
      await locks.verify(name, Number(fields.token));
      return {};
    case 'sync': {
      const there = await gitlock.LockManager.open({ cwd: fields.there });
      return json(await locks.sync(there, { strategy: fields.strategy }));
    }
    case 'graph':
      return json(await locks.graph());
    case 'status':
      return json(await locks.status(name));
    case 'list':
      return json(await locks.list());
    case 'log':
      return json({ name, entries: await locks.log(name, { most: number(fields, 'most') }) });
    case 'break':
      return json({ name, broken: await locks.break(name, { id: fields.tenure, reason: fields.reason }) });
    case 'clean':
      return json(await locks.clean({ grace: number(fields, 'grace') }));
    case 'doctor':
      return json({ findings: await locks.doctor({ fix: 'fix' in fields }) });
    default:
      throw new TypeError(`nobody knows how to ${verb}`);
  }
}

for await (const line of createInterface({ input: process.stdin })) {
  const [verb, ...words] = line.split('\t');
  const fields = Object.fromEntries(words.map((word) => /^([^=]*)=(.*)$/s.exec(word).slice(1).map(decode)));
  const { n } = fields;
  try {
    say('ok', { n, ...(await answer(verb, fields)) });
  } catch (error) {
    say('error', { n, ...told(error) });
  }
}
process.exit(0);
