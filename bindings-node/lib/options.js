'use strict';

// Checks options, so that a misspelt one isn't silently nothing.

const { InvalidArgument } = require('./errors.js');

const isMillis = (value) => typeof value === 'number' && value >= 0;
const isInteger = (low, high) => (value) => Number.isInteger(value) && value >= low && value <= high;

const KINDS = {
  ms: [(value) => isMillis(value) && value !== Infinity, 'a number of milliseconds, 0 or more'],
  wait: [isMillis, 'a number of milliseconds, 0 or more, or Infinity'],
  boolean: [(value) => typeof value === 'boolean', 'true or false'],
  string: [(value) => typeof value === 'string', 'a string'],
  int32: [isInteger(-(2 ** 31), 2 ** 31 - 1), 'a whole number'],
  uint32: [isInteger(0, 2 ** 32 - 1), 'a whole number, 0 or more'],
  token: [isInteger(0, Number.MAX_SAFE_INTEGER), 'a whole number, 0 or more'],
  signal: [(value) => value instanceof AbortSignal, 'an AbortSignal'],
  function: [(value) => typeof value === 'function', 'a function'],
  any: [() => true, ''],
};

const ACQUIRE = {
  shared: 'boolean',
  priority: 'int32',
  ttl: 'ms',
  wait: 'wait',
  maxHold: 'ms',
  renew: 'boolean',
  owner: 'string',
  session: 'any',
  fingerprint: 'string',
  reason: 'string',
  slots: 'uint32',
  within: 'any',
  reentrant: 'boolean',
  processGroup: 'uint32',
  onWait: 'function',
  signal: 'signal',
};

const MANAGER = {
  cwd: 'any',
  lockPrefix: 'string',
  prefix: 'string',
  owner: 'string',
  keep: 'uint32',
  durable: 'boolean',
  staleLockAge: 'ms',
  maxClockSkew: 'ms',
  claimWindow: 'ms',
  pollInterval: 'ms',
  lockTimeout: 'ms',
  sweepGrace: 'ms',
  environment: 'boolean',
  remote: 'string',
  remoteTimeout: 'ms',
};

/** One argument, if it is of its kind. `undefined` and `null` are the default. */
function check(what, kind, value) {
  if (value === undefined || value === null) return undefined;
  const [fits, words] = KINDS[kind];
  if (!fits(value)) {
    const shown = typeof value === 'string' ? JSON.stringify(value) : String(value);
    throw new InvalidArgument(`${what} can't be ${shown}; give ${words}`);
  }
  return value;
}

/** An argument that has to be there. */
function required(what, kind, value) {
  const checked = check(what, kind, value);
  if (checked === undefined) throw new InvalidArgument(`${what} is missing; give ${KINDS[kind][1]}`);
  return checked;
}

/** Options by their table. Those that aren't given are left out. */
function checkAll(table, options) {
  if (options === undefined || options === null) return {};
  if (typeof options !== 'object') throw new InvalidArgument(`options can't be ${String(options)}; give an object`);
  const checked = {};
  for (const key of Object.keys(options)) {
    const kind = table[key];
    if (kind === undefined) {
      throw new InvalidArgument(`there is no option ${JSON.stringify(key)}; there are ${Object.keys(table).join(', ')}`);
    }
    const value = check(key, kind, options[key]);
    if (value !== undefined) checked[key] = value;
  }
  return checked;
}

module.exports = { ACQUIRE, MANAGER, check, checkAll, required };
