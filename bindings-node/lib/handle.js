'use strict';

const { native, now } = require('./calls.js');
const { required } = require('./options.js');

class LockHandle {
  #text;

  constructor(text) {
    this.#text = required('a handle', 'string', text instanceof LockHandle ? String(text) : text);
    const { names, id, token } = now(() => native.describeHandle(this.#text));
    this.names = names;
    this.name = names[0];
    this.id = id ?? null;
    this.token = token ?? null;
    Object.freeze(this);
  }

  static byFingerprint(name, fingerprint) {
    required('name', 'string', name);
    required('fingerprint', 'string', fingerprint);
    return new LockHandle(now(() => native.handleByFingerprint(name, fingerprint)));
  }

  toString() {
    return this.#text;
  }

  toJSON() {
    return this.#text;
  }

  // Without the secret, so that it can be logged.
  [Symbol.for('nodejs.util.inspect.custom')](depth, options, inspect) {
    const { names, id, token } = this;
    return `LockHandle ${inspect({ names, id, token }, options)}`;
  }
}

/** The text of a handle, given as what can be one. */
function handleText(handle) {
  return required('a handle', 'string', handle instanceof LockHandle ? String(handle) : handle);
}

module.exports = { LockHandle, handleText };
