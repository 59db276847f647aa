'use strict';

const { EventEmitter } = require('node:events');

const { begin, bridge, call, json, listen, now, unlisten } = require('./calls.js');
const { Cancelled, InvalidArgument, fromJson } = require('./errors.js');
const { LockHandle } = require('./handle.js');
const { check, checkAll, required } = require('./options.js');

const UPDATE = { message: 'string' };
const UPGRADE = { wait: 'wait', signal: 'signal' };

/** Every lock that is held here. One that nobody refers to any more is held all the same. */
const held = new Set();

/**
 * Begins a call that waits, which a signal may end. Its answer is `undone` if it comes after that
 * all the same, since nobody is going to undo it.
 */
async function waiting(what, signal, ask, undo) {
  const cancelled = () => new Cancelled(`the wait for ${what} was cancelled`, { cause: signal.reason });
  if (signal?.aborted) throw cancelled();
  let number;
  const abort = () => bridge.cancel(number);
  signal?.addEventListener('abort', abort, { once: true });
  const { error, value } = await begin((call) => {
    number = call;
    ask(call);
  });
  signal?.removeEventListener('abort', abort);
  if (error == null) {
    if (!signal?.aborted) return value;
    await begin((call) => undo(call, value));
    throw cancelled();
  }
  const thrown = fromJson(error);
  if (thrown.code === 'CANCELLED' && signal?.aborted) thrown.cause = signal.reason;
  throw thrown;
}

/** Does some work under a lock, and releases it. */
async function during(lock, work) {
  let result;
  try {
    result = await work(lock);
  } catch (error) {
    // What went wrong in the work is what the caller has to hear.
    await lock[Symbol.asyncDispose]().catch(() => {});
    throw error;
  }
  await lock[Symbol.asyncDispose]();
  return result;
}

class Lock extends EventEmitter {
  #guard;
  #over = false;
  #loss = null;
  #controller = null;
  /** Who is told of a loss, and of waiters. */
  #listeners = {};

  constructor(guard) {
    super();
    this.#guard = guard;
    held.add(this);
  }

  get name() {
    return this.#guard.name;
  }

  get names() {
    return now(() => this.#guard.names);
  }

  get id() {
    return this.#guard.id;
  }

  get token() {
    return this.#guard.token;
  }

  get tokens() {
    return Object.fromEntries(this.names.map((name) => [name, this.#guard.tokenOf(name)]));
  }

  get slot() {
    return this.#guard.slot ?? null;
  }

  get mode() {
    return this.#guard.shared ? 'shared' : 'exclusive';
  }

  get isLost() {
    return this.#guard.isLost();
  }

  get signal() {
    if (this.#controller === null) {
      this.#controller = new AbortController();
      if (this.#loss !== null) this.#controller.abort(this.#loss);
      else this.#watchLoss();
    }
    return this.#controller.signal;
  }

  remaining() {
    return this.#guard.remaining();
  }

  async extend(ttl) {
    check('ttl', 'ms', ttl);
    await call((number) => this.#guard.extend(number, ttl));
  }

  async updateRefs(updates, options) {
    const { message } = checkAll(UPDATE, options);
    if (!Array.isArray(updates)) throw new InvalidArgument("updates can't be other than an array of changes");
    const words = updates.map((update) =>
      (typeof update === 'string' ? update.split(' ') : Array.from(update)).map((word) => required('a word', 'string', word)),
    );
    await call((number) => this.#guard.updateRefs(number, words, message));
  }

  async push(...refspecs) {
    const specs = refspecs.map((spec) => required('a refspec', 'string', spec));
    await call((number) => this.#guard.push(number, specs));
  }

  async release() {
    this.#end();
    try {
      await call((number) => this.#guard.release(number));
    } finally {
      this.#unlisten();
    }
  }

  releaseSync() {
    this.#end();
    try {
      now(() => this.#guard.releaseNow());
    } finally {
      this.#unlisten();
    }
  }

  async upgrade(options) {
    const { wait, signal } = checkAll(UPGRADE, options);
    const guard = this.#guard;
    const undo = (number) => guard.downgrade(number);
    const patience = wait === Infinity ? undefined : wait;
    await waiting(`the upgrade of the lock ${guard.name}`, signal, (number) => guard.upgrade(number, patience), undo);
  }

  async downgrade() {
    await call((number) => this.#guard.downgrade(number));
  }

  async wanted() {
    return json((number) => this.#guard.wanted(number));
  }

  handle() {
    return new LockHandle(now(() => this.#guard.handle()));
  }

  detach() {
    const handle = new LockHandle(now(() => this.#guard.detach()));
    this.#end();
    this.#unlisten();
    return handle;
  }

  async [Symbol.asyncDispose]() {
    if (!this.#over) await this.release();
  }

  [Symbol.dispose]() {
    if (!this.#over) this.releaseSync();
  }

  on(event, listener) {
    this.#hear(event, listener);
    return super.on(event, listener);
  }

  addListener(event, listener) {
    return this.on(event, listener);
  }

  prependListener(event, listener) {
    this.#hear(event, listener);
    return super.prependListener(event, listener);
  }

  #hear(event, listener) {
    if (event === 'wanted') this.#watchWanted();
    if (event !== 'lost') return;
    if (this.#loss === null) this.#watchLoss();
    else process.nextTick(() => listener.call(this, this.#loss));
  }

  /** Asks for news of a loss only now that somebody wants them: they cost a look at each change. */
  #watchLoss() {
    this.#listen('lost', (number) => this.#guard.onLost(number), (error) => {
      this.#loss = error;
      this.#unlisten();
      this.#controller?.abort(error);
      this.emit('lost', error);
    });
  }

  #watchWanted() {
    this.#listen('wanted', (number) => this.#guard.onWanted(number), (_, value) => {
      this.emit('wanted', JSON.parse(value));
    });
  }

  #listen(what, ask, told) {
    if (this.#over || this.#listeners[what] !== undefined) return;
    this.#listeners[what] = listen(told);
    now(() => ask(this.#listeners[what]));
  }

  #unlisten() {
    Object.values(this.#listeners).forEach(unlisten);
  }

  #end() {
    this.#over = true;
    held.delete(this);
  }

  [Symbol.for('nodejs.util.inspect.custom')](depth, options, inspect) {
    const { name, id, token, mode } = this;
    return `Lock ${inspect({ name, id, token, mode, isLost: this.isLost }, options)}`;
  }
}

module.exports = { Lock, during, waiting };
