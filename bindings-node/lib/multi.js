'use strict';

const { EventEmitter } = require('node:events');

const { bridge, call, listen, native, now, unlisten } = require('./calls.js');
const { InvalidArgument, LockLost } = require('./errors.js');
const { during, waiting } = require('./lock.js');
const { LockManager, NATIVE, freshOwner } = require('./manager.js');
const { ACQUIRE, check, checkAll, required } = require('./options.js');

const { shared, priority, ttl, wait, maxHold, owner, reason, signal } = ACQUIRE;
const MULTI = { shared, priority, ttl, wait, maxHold, owner, reason, signal };

/** Every one that is held here. One that nobody refers to any more is held all the same. */
const held = new Set();

class MultiLock extends EventEmitter {
  #guard;
  #names;
  #over = false;
  #loss = null;
  #listener;
  #controller = null;

  constructor(guard, names) {
    super();
    this.#guard = guard;
    this.#names = names;
    held.add(this);
  }

  get names() {
    return [...this.#names];
  }

  get token() {
    return this.#guard.token;
  }

  get isLost() {
    return this.#guard.isLost();
  }

  get heldIn() {
    return this.#guard.heldIn();
  }

  get signal() {
    if (this.#controller === null) {
      this.#controller = new AbortController();
      if (this.#loss !== null) this.#controller.abort(this.#loss);
      else this.#watch();
    }
    return this.#controller.signal;
  }

  validity() {
    return this.#guard.validity();
  }

  async extend(ttl) {
    check('ttl', 'ms', ttl);
    await call((number) => this.#guard.extend(number, ttl));
  }

  async release() {
    this.#over = true;
    held.delete(this);
    try {
      await call((number) => this.#guard.release(number));
    } finally {
      unlisten(this.#listener);
    }
  }

  async [Symbol.asyncDispose]() {
    if (!this.#over) await this.release();
  }

  on(event, listener) {
    if (event === 'lost') {
      if (this.#loss === null) this.#watch();
      else process.nextTick(() => listener.call(this, this.#loss));
    }
    return super.on(event, listener);
  }

  addListener(event, listener) {
    return this.on(event, listener);
  }

  #watch() {
    if (this.#over || this.#listener !== undefined) return;
    this.#listener = listen(() => {
      unlisten(this.#listener);
      this.#loss = new LockLost(`the lock ${this.#names[0]} is lost: it is held in too few of its repositories`);
      this.#controller?.abort(this.#loss);
      this.emit('lost', this.#loss);
    });
    this.#guard.onLost(this.#listener);
  }
}

class Repositories {
  #native;

  constructor(managers) {
    if (!Array.isArray(managers) || !managers.every((manager) => manager instanceof LockManager)) {
      throw new InvalidArgument("managers can't be other than an array of LockManagers");
    }
    this.#native = now(() => native.Repositories.of(bridge, managers.map((manager) => manager[NATIVE])));
  }

  async all(names, options) {
    const every = Array.isArray(names) ? names : [names];
    return this.#acquire(every.map((name) => required('name', 'string', name)), false, options);
  }

  async quorum(name, options) {
    return this.#acquire([required('name', 'string', name)], true, options);
  }

  async with(name, options, work) {
    if (typeof options === 'function') [options, work] = [undefined, options];
    required('the work to do', 'function', work);
    const lock = await this.quorum(name, options);
    return during(lock, work);
  }

  async #acquire(names, quorum, options) {
    const { signal, ...given } = checkAll(MULTI, options);
    if (given.wait === Infinity) delete given.wait;
    given.owner ??= freshOwner();
    const ask = (number) => this.#native.acquire(number, names, quorum, given);
    const undo = (number, guard) => guard.release(number);
    return new MultiLock(await waiting(`the lock ${names.join(', ')}`, signal, ask, undo), names);
  }
}

module.exports = { MultiLock, Repositories };
