'use strict';

const path = require('node:path');
const { fileURLToPath } = require('node:url');

const { bridge, call, json, listen, native, now, unlisten } = require('./calls.js');
const { Held, InvalidArgument } = require('./errors.js');
const { handleText } = require('./handle.js');
const { Lock, during, waiting } = require('./lock.js');
const { ACQUIRE, MANAGER, check, checkAll, required } = require('./options.js');

const thread = native.threadOwner();
let owners = 0;

/** An owner that nobody else is. */
const freshOwner = () => `${thread}/${++owners}`;

/** Only this module makes managers and sessions. */
const MAKE = Symbol('make');

/** What the drop-in reads: not for users, since it shows fingerprints. */
const RECORDS = Symbol('records');

/** The compiled part of a manager. */
const NATIVE = Symbol('native');

const LIST = { most: 'uint32' };
const BREAK = { id: 'string', reason: 'string' };
const CLEAN = { grace: 'ms' };
const SYNC = { strategy: 'string' };
const DOCTOR = { fix: 'boolean' };

function every(names) {
  if (!Array.isArray(names)) throw new InvalidArgument("names can't be other than an array of strings");
  return names.map((name) => required('name', 'string', name));
}

const one = (name) => [required('name', 'string', name)];
const some = (names) => (Array.isArray(names) ? every(names) : one(names));

/** What managers and sessions have in common: they acquire. */
class Acquirer {
  #native;
  #owner;

  constructor(made, owner) {
    this.#native = made;
    this.#owner = owner;
  }

  async acquire(name, options) {
    return this.#acquire(one(name), options);
  }

  async tryAcquire(name, options) {
    return this.#try(one(name), options);
  }

  async acquireAll(names, options) {
    return this.#acquire(every(names), options);
  }

  async tryAcquireAll(names, options) {
    return this.#try(every(names), options);
  }

  tryAcquireSync(name, options) {
    const { onWait, signal, ...given } = this.#request(options);
    try {
      return new Lock(now(() => this.#native.acquireNow(some(name), given)));
    } catch (error) {
      if (error instanceof Held) return null;
      throw error;
    }
  }

  async with(name, options, work) {
    if (typeof options === 'function') [options, work] = [undefined, options];
    required('the work to do', 'function', work);
    const lock = await this.#acquire(some(name), options);
    return during(lock, work);
  }

  async #try(names, options) {
    try {
      return await this.#acquire(names, { ...options, wait: 0 });
    } catch (error) {
      if (error instanceof Held) return null;
      throw error;
    }
  }

  async #acquire(names, options) {
    const { signal, onWait, ...given } = this.#request(options);
    if (given.wait === Infinity) delete given.wait;
    if (onWait !== undefined) {
      given.onWait = listen((_, news) => onWait(...JSON.parse(news)));
    }
    const ask = (number) => this.#native.acquire(number, names, given);
    const undo = (number, guard) => guard.release(number);
    try {
      return new Lock(await waiting(`the lock ${names.join(', ')}`, signal, ask, undo));
    } finally {
      if (onWait !== undefined) unlisten(given.onWait);
    }
  }

  #request(options) {
    const { session, within, ...given } = checkAll(ACQUIRE, options);
    if (session !== undefined) {
      if (!(session instanceof Session)) throw new InvalidArgument('session is none; give what session() returned');
      if (given.owner !== undefined) throw new InvalidArgument('session and owner are both given; leave one out');
      given.owner = session.owner;
    }
    if (within !== undefined) {
      given.within = within instanceof Lock ? String(within.handle()) : handleText(within);
      // Within another tenure its owner acquires.
      return given;
    }
    given.owner ??= this.#owner;
    if (given.owner === undefined) {
      if (given.reentrant) {
        const advice = 'acquire through a session(), or give an owner';
        throw new InvalidArgument(`reentrant goes by the owner, and every call is one of its own here; ${advice}`);
      }
      given.owner = freshOwner();
    }
    return given;
  }
}

class Session extends Acquirer {
  constructor(make, made, owner) {
    if (make !== MAKE) throw new TypeError('use manager.session()');
    super(made, owner);
    this.owner = owner;
  }
}

function managerOptions(options) {
  const given = typeof options === 'string' || options instanceof URL ? { cwd: options } : options;
  const { cwd, prefix, ...rest } = checkAll(MANAGER, given);
  rest.lockPrefix ??= prefix;
  const folder = cwd instanceof URL ? fileURLToPath(cwd) : (check('cwd', 'string', cwd) ?? process.cwd());
  return [path.resolve(folder), rest];
}

class LockManager extends Acquirer {
  #native;
  #owner;

  constructor(make, made, owner) {
    if (make !== MAKE) throw new TypeError('use LockManager.open()');
    super(made, owner);
    this.#native = made;
    this.#owner = owner;
  }

  static async open(options) {
    const [folder, given] = managerOptions(options);
    const made = await call((number) => native.Manager.open(bridge, number, folder, given));
    return new LockManager(MAKE, made, given.owner);
  }

  static openSync(options) {
    const [folder, given] = managerOptions(options);
    return new LockManager(MAKE, now(() => native.Manager.openNow(bridge, folder, given)), given.owner);
  }

  get [NATIVE]() {
    return this.#native;
  }

  get location() {
    return this.#native.location;
  }

  get lockPrefix() {
    return this.#native.lockPrefix;
  }

  session(owner) {
    return new Session(MAKE, this.#native, check('owner', 'string', owner) ?? freshOwner());
  }

  async status(name) {
    required('name', 'string', name);
    return json((number) => this.#native.status(number, name));
  }

  async list() {
    return json((number) => this.#native.list(number));
  }

  async log(name, options) {
    required('name', 'string', name);
    const { most = 100 } = checkAll(LIST, options);
    const { entries } = await json((number) => this.#native.log(number, name, most));
    return entries;
  }

  async break(name, options) {
    required('name', 'string', name);
    const { id, reason } = checkAll(BREAK, options);
    const { broken } = await json((number) => this.#native.breakLock(number, name, id, reason));
    return broken;
  }

  async verify(name, token) {
    required('name', 'string', name);
    required('token', 'token', token);
    await call((number) => this.#native.verify(number, name, token));
  }

  async graph() {
    return json((number) => this.#native.graph(number));
  }

  async graphDot() {
    return call((number) => this.#native.graphDot(number));
  }

  async sync(remote, options) {
    if (!(remote instanceof LockManager)) {
      throw new InvalidArgument('remote must be a LockManager; open one with the option remote');
    }
    const { strategy = 'remote-wins' } = checkAll(SYNC, options);
    return json((number) => this.#native.sync(number, remote[NATIVE], strategy));
  }

  async clean(options) {
    const { grace } = checkAll(CLEAN, options);
    return json((number) => this.#native.clean(number, grace));
  }

  async doctor(options) {
    const { fix = false } = checkAll(DOCTOR, options);
    const { findings } = await json((number) => this.#native.doctor(number, fix));
    return findings;
  }

  async release(handle) {
    const text = handleText(handle);
    await call((number) => this.#native.release(number, text));
  }

  async extend(handle, ttl) {
    const text = handleText(handle);
    check('ttl', 'ms', ttl);
    return call((number) => this.#native.extend(number, text, ttl));
  }

  async resume(handle) {
    const text = handleText(handle);
    return new Lock(await call((number) => this.#native.resume(number, text)));
  }

  async [RECORDS](name) {
    return json((number) => this.#native.records(number, name));
  }

  async close() {
    await call((number) => this.#native.close(number));
  }

  async [Symbol.asyncDispose]() {
    await this.close();
  }
}

module.exports = { LockManager, NATIVE, RECORDS, Session, freshOwner };
